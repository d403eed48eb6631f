"""The texts of the console that a reader sees, taken from its templates and its code."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, nodes

__all__ = ["FOLDER", "texts_to_translate"]

FOLDER = Path(__file__).parents[3] / "gateway" / "console"


def texts_to_translate() -> dict[str, str]:
    """Return every text inside `_(…)` and every word of `words.toml` with the file that has it."""
    found: dict[str, str] = {}
    for words in tomllib.loads((FOLDER / "words.toml").read_text("utf-8")).values():
        listed = words if isinstance(words, list) else words.values()
        found |= {(it[0] if isinstance(it, list) else it): "words.toml" for it in listed}
    for path in sorted(FOLDER.glob("templates/*.html")):
        found |= dict.fromkeys(_of_template(path), path.name)
    for path in sorted(FOLDER.glob("*.py")):
        found |= dict.fromkeys(_of_module(path), path.name)
    return found


def _of_template(path: Path) -> Iterator[str]:
    tree = Environment(loader=FileSystemLoader(path.parent)).parse(path.read_text("utf-8"))  # noqa: S701  # only parsed
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "_":
            for argument in call.args:
                yield from (part.value for part in [argument] if isinstance(part, nodes.Const))


def _of_module(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            yield from (ast.literal_eval(argument) for argument in node.args if isinstance(argument, ast.Constant))
