"""Sign in to clouds without keys: what is sent to an issuer of tokens, and what its answer means. Pure."""
