"""Evaluate candidate deployments and recommend a route. Only the command line imports this package."""
