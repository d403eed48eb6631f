"""API dialects: how a client of one API writes its requests and reads its answers."""
