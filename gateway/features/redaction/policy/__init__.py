"""Pure parts of redaction: what is found, how placeholders are numbered, and how a request and its answer change."""
