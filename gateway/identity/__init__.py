"""Identities: the caller by a signed token, and the tokens that deployments get in place of keys."""
