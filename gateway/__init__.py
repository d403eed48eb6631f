"""A region-aware gateway for AI assistants: one address for every model, and answers from inside a boundary."""

__version__ = "0.2.0"
