"""Compare what a request requires with what a deployment can do."""
