"""The one error of credentials that can't be used: it says why, and never a word of them."""

from __future__ import annotations

__all__ = ["KeyProblem"]


class KeyProblem(ValueError):
    """A credential that can't be used; the message reads on after "the key"."""
