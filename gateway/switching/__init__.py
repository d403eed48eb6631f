"""Switching from one table to another: what changes, whether it may be, and how it is told."""
