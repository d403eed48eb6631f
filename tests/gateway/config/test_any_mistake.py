"""Random values in a shipped config: it compiles, or each error has a position and shows no secret."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.check_report import render_matrix, render_problems
from gateway.config.compile import Compiled
from gateway.config.problems import ConfigRejected
from gateway.config.yaml_document import parse_yaml
from gateway.model.approval import days_at
from tests.kit.chat_strategies import unhurried
from tests.kit.config_cases import compiled

ROOT = Path(__file__).parents[3] / "config"
CONFIGS = [ROOT / "gateway.yaml", ROOT / "demo.yaml", *sorted((ROOT / "examples").glob("*.yaml"))]
NOW_S = 1_795_000_000.0
SECRET = "sk-5ecret" + "x" * 32
WORDS = [
    "",
    " ",
    "*",
    "!CN",
    "@NOPE",
    "any",
    "${",
    "${X}",
    "${file:/etc}",
    "a\nb",
    "\0",
    "\x1b[2J",
    "\u202e",
    "x" * 5000,
]
WORDS += ["5", "0s", "9" * 20 + "s", "-5%", "https://[", "https://x:99999", "0.0.0.0/0", "9999-12-31", "../x", "Mars/X"]
SCALARS = st.sampled_from([None, True, -1, 3.5, 10**30, float("inf"), *WORDS])
KNOWN = "version regions deployments location cell routes boundary provider stores keys from secret total a d0".split()
KEYS = st.sampled_from(["", "<<", "5", "\u0430ssistants", "a\nb", "\0", "${X}", "x" * 3000, *KNOWN])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
Place = tuple[str | int, ...]


class Environment(dict[str, str]):
    """An environment in which every variable is set to a secret value."""

    def get(self, _: object, default: object = None) -> Any:
        return SECRET


def places_in(value: object, path: Place = ()) -> list[Place]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [place for key, held in inner for place in ((*path, key), *places_in(held, (*path, key)))]


TREES: dict[str, Any] = {path.name: parse_yaml(path.read_bytes(), path.name).values for path in CONFIGS}
PLACES = {name: places_in(tree) for name, tree in TREES.items()}


def held(tree: Any, place: Place) -> Any:
    """Return the value at the path, or None if an earlier mistake has removed it."""
    for part in place:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


@st.composite
def mistaken(draw: st.DrawFn) -> str:
    """A config in which one to three things are gone, called otherwise or replaced; JSON is YAML, a line for a value."""
    name = draw(st.sampled_from(sorted(TREES)))
    tree = deepcopy(TREES[name])
    for place in draw(st.lists(st.sampled_from(PLACES[name]), min_size=1, max_size=3)):
        holder = held(tree, place[:-1])
        last = place[-1]
        if isinstance(holder, dict) and last in holder:
            match draw(st.sampled_from(("gone", "renamed", "replaced"))):
                case "gone":
                    del holder[last]
                case "renamed":
                    holder[draw(KEYS)] = holder.pop(last)
                case _:
                    holder[last] = draw(VALUES)
        elif isinstance(holder, list) and isinstance(last, int) and last < len(holder):
            holder[last] = draw(VALUES)
    return json.dumps(tree, indent=1).replace("Infinity", ".inf")


def outcome(text: str) -> Compiled | ConfigRejected:
    try:
        return compiled(text, Environment())
    except ConfigRejected as rejection:
        return rejection


@unhurried
@given(text=mistaken())
def test_random_config_compiles_or_every_error_has_a_position(text: str) -> None:
    found = outcome(text)
    if isinstance(found, Compiled):
        shown = render_problems(found.warnings) + render_matrix(found.config, days_at(NOW_S))
    else:
        shown = render_problems(found.problems)
        assert any(problem.severity == "error" for problem in found.problems)
        for problem in found.problems:
            assert 1 <= problem.line <= text.count("\n") + 1
            assert problem.column >= 1
            assert str(problem).isprintable()
    assert SECRET not in shown


@pytest.mark.parametrize("name", sorted(TREES))
def test_shipped_config_compiles_in_other_yaml_spellings(name: str) -> None:
    found = outcome(json.dumps(TREES[name]))
    assert isinstance(found, Compiled), found
