"""From a source's files to a dataset folder: one module per source, each with one function that returns the `Dataset`.

What was read, kept and skipped, and why, is in `import.json` of the dataset folder.
"""
