"""A region-aware gateway for AI assistants: one chat endpoint, answered inside the boundary of the caller's region."""

__version__ = "0.1.0"
