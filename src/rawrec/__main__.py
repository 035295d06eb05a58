"""`python -m rawrec`: the command line, for whoever has no script `rawrec` on the path."""

from rawrec.cli import main

main()
