"""Studies of papers as one command each: `rawrec study lmm`, `rawrec study em3`; what they share is here."""
