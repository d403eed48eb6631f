"""The optional features, one folder each: what a feature adds is here, and the places that ask for it are lists.

`docs/architecture.md`, "where to add what", names the modules of a folder.
"""
