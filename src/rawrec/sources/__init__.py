"""From a source's files to a dataset folder: one module per source, each with one function that returns the `Dataset`.

They stand on `tables/` (rows and columns of files), `media/` (pictures of folders, tar shards) and `download/`
(pictures by address, datasets of the hub), in this order: each imports only those before it. `append.py` reads the same
for a dataset that is there. What was read, kept and skipped, and why, is in `import.json` of the dataset folder.
"""
