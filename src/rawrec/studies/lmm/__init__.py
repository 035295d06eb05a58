"""`rawrec study lmm`: "Large Multi-modal Encoders for Recommendation" (Yi et al., 2023)."""
