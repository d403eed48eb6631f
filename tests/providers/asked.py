"""A deployment as a use sees it."""

from types import SimpleNamespace
from typing import Any


def asked_with(use: str, facts: object) -> Any:
    """Return a deployment whose model has these facts."""
    return SimpleNamespace(
        adapter=SimpleNamespace(**{use: SimpleNamespace(facts=lambda _: facts, accepts=bool)}), model="m", guard=None
    )
