"""Limits of clients: how many requests each may send."""
