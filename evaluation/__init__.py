"""Evaluate candidate deployments and recommend a route. Only the command `gateway evaluate` imports this package."""
