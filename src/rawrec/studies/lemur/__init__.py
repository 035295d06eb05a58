"""`rawrec study lemur`: "LEMUR: Large scale End-to-end MUltimodal Recommendation" (2025)."""
