"""The rules of a region for minors: age bands, and what their users may do."""
