"""Signatures over a request, as pure functions: `auth` calls them with the secret, the host and the time."""
