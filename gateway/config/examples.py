"""The example configurations of the package, and the files that `gateway init` writes."""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = _PACKAGE / "examples", _PACKAGE.parent / "config"
_SCHEMA = "gateway.schema.json"
_NAME = re.compile(r"^[^#\n]*\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.MULTILINE)
_ENVIRONMENT = """\
# The keys that gateway.yaml refers to. Set them in the environment of `gateway serve`:
#   set -a; . ./env.example; set +a
# A deployment whose key is not set is skipped, and `gateway check` warns about it.
"""


def example_path(name: str) -> Path:
    """Return the path of an example such as `demo.yaml`, in the package or the checkout. Raises FileNotFoundError."""
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"the package has no example {name}")


def example_names() -> list[str]:
    """Return the names of the examples for `gateway init`, such as `eu-only`, in alphabetical order."""
    return sorted({path.stem for folder in _FOLDERS for path in (folder / "examples").glob("*.yaml")})


def starting_files(example: str | None) -> dict[str, str]:
    """Return the files for a new configuration: the annotated config or the example, its schema and `env.example`."""
    if example is None:
        return {name: _text(name) for name in ("gateway.yaml", _SCHEMA, "env.example")}
    config = _text(f"examples/{example}.yaml").replace(f"$schema=../{_SCHEMA}", f"$schema={_SCHEMA}", 1)
    keys = "".join(f"{name}=\n" for name in dict.fromkeys(_NAME.findall(config)))
    return {"gateway.yaml": config, _SCHEMA: _text(_SCHEMA), "env.example": _ENVIRONMENT + keys}


def schema_file() -> dict[str, str]:
    """Return the JSON Schema of a configuration by its file name."""
    return {_SCHEMA: _text(_SCHEMA)}


def _text(name: str) -> str:
    return example_path(name).read_text("utf-8")
