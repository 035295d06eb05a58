"""Pictures on this machine: files of a folder, members of tar shards."""
