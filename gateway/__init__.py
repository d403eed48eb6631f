"""A region-aware gateway for AI assistants: one address for every model, and answers from inside a boundary."""

__version__ = "1.1.0"
