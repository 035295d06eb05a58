"""Prints the page of all settings."""

from rawrec.config.page import describe

print(describe())
