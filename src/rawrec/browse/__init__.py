"""The page on which a run is looked at: `/` of `rawrec serve`, `rawrec browse`, and as a file (`--export`)."""
