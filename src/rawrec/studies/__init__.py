"""Studies of papers as one command each: `rawrec study lmm`."""
