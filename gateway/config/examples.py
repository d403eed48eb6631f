"""Where the configs that come with the gateway are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["example_path"]

_PACKAGE = Path(__file__).resolve().parent.parent


def example_path(name: str) -> Path:
    """The file `name` (`demo.yaml`): package data of an installed gateway, else the checkout's; FileNotFoundError."""
    for folder in (_PACKAGE / "examples", _PACKAGE.parent / "config"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"the gateway comes without {name}")
