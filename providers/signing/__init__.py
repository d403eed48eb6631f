"""Signatures that need a library of their own."""

from __future__ import annotations


class KeyProblem(ValueError):
    """A credential that can't be used; the message reads on after "the key"."""
