"""A region-aware gateway for AI assistants: one address for every model, with answers from inside the boundary of the caller's region."""

__version__ = "0.1.0"
