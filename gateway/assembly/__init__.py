"""Builds the application of a process from a config version."""
