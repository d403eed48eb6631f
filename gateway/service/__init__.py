"""One request's journey in reading order; no rules of its own."""
