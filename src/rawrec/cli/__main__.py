from rawrec.cli import main

main()
