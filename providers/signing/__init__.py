"""Signatures that need a library of their own."""

from __future__ import annotations


class KeyProblem(ValueError):
    """A credential that cannot be used. The message reads on after "the key"."""
