"""Deprecated aliases for one release."""
