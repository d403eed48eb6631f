"""A caller: authentication and headers, read once into one value."""
