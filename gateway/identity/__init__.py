"""Who called by a signed token, and tokens for deployments in place of keys: how the gateway gets to know both."""
