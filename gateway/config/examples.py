"""The configs that come with the gateway, and what `gateway init` writes of them."""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_SCHEMA = "gateway.schema.json"
_NAME = re.compile(r"^[^#\n]*\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.MULTILINE)
_ENVIRONMENT = """\
# The keys that gateway.yaml refers to. Set them in the environment of `gateway serve`:
#   set -a; . ./env.example; set +a
# A deployment whose key isn't set is passed over, and `gateway check` says so.
"""


def example_path(name: str) -> Path:
    """The file `name` (`demo.yaml`): package data of an installed gateway, else the checkout's; FileNotFoundError."""
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"the gateway comes without {name}")


def example_names() -> list[str]:
    """The set-ups that a config can start from (`eu-only`), in alphabetical order."""
    return sorted({path.stem for folder in _folders() for path in (folder / "examples").glob("*.yaml")})


def starting_files(example: str | None) -> dict[str, str]:
    """What to begin with, by file name: the annotated config, or that of a named set-up, its schema and its keys."""
    if example is None:
        return {name: _text(name) for name in ("gateway.yaml", _SCHEMA, "env.example")}
    config = _text(f"examples/{example}.yaml").replace(f"$schema=../{_SCHEMA}", f"$schema={_SCHEMA}", 1)
    keys = "".join(f"{name}=\n" for name in dict.fromkeys(_NAME.findall(config)))
    return {"gateway.yaml": config, _SCHEMA: _text(_SCHEMA), "env.example": _ENVIRONMENT + keys}


def _folders() -> tuple[Path, Path]:
    return _PACKAGE / "examples", _PACKAGE.parent / "config"


def _text(name: str) -> str:
    return example_path(name).read_text("utf-8")
