"""`rawrec study em3`: "End-to-end training of Multimodal Model and ranking Model" (Deng et al., 2024)."""
