"""Shapes and descriptions of the sections of a configuration file. The compiler resolves the names in them."""
