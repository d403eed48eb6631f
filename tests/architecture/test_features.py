"""A feature is a folder: this names the feature that lacks a word, an erase, a metric, a note or a page.

A new feature needs an example in `features/NAME.yaml` here.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from gateway.changes.activation import changes_between
from gateway.changes.plan import plan_of
from gateway.config.check_report import render_matrix
from gateway.config.feature_compiler import FeatureCompiler
from gateway.features.configuration import COMPILERS, GatewayFile
from gateway.features.feature import Feature
from gateway.features.running import FEATURES
from gateway.public_names import LOG_FIELDS, RECEIPT_FIELDS, names_in
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS
from tests.architecture.source_tree import ROOT, modules
from tests.kit.configs import BASE, table_of

HERE = Path(__file__).parent
FOLDERS = sorted(path.name for path in (ROOT / "gateway/features").iterdir() if (path / "__init__.py").exists())
EXAMPLES = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (HERE / "features").glob("*.yaml")}
"""What a small configuration that uses each feature adds to `BASE`."""


@dataclass(frozen=True)
class Parts:
    """The entries of one feature in the two lists."""

    feature: Feature | None
    compiler: FeatureCompiler


RUNNING = {feature.name: feature for feature in FEATURES}
PARTS = {compiler.name: Parts(RUNNING.get(compiler.name), compiler) for compiler in COMPILERS}


def page(path: str) -> str:
    return (ROOT / "docs" / path).read_text("utf-8")


def test_each_folder_is_in_each_list() -> None:
    """The lists have one order, and what they have of a feature is from its folder."""
    assert sorted(PARTS) == FOLDERS == sorted(EXAMPLES)
    for name, parts in PARTS.items():
        for part in (parts.feature, parts.compiler):
            called = [
                it for field in (fields(part) if part is not None else ()) if callable(it := getattr(part, field.name))
            ]
            ours = f"gateway.features.{name}."
            strangers = [it for it in called if not it.__module__.startswith(ours)]
            assert not strangers, f"{name}: {strangers}"


def sections_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, type]]:
    """Yield the key of each section in the file, and its class."""
    for key, field in model.model_fields.items():
        text = repr(field.annotation)
        is_named = "dict[" in text
        for section in _sections_in(field.annotation):
            here = (*path, key)
            yield ".".join(here), section
            yield from sections_of(section, (*here, "*") if is_named else here)


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _sections_in(part)


def test_each_section_of_a_feature_is_among_its_keys() -> None:
    found = {(section.__module__.split(".")[2], key) for key, section in sections_of(GatewayFile) if _is_ours(section)}
    stated = {(name, key.path) for name, parts in PARTS.items() for key in parts.compiler.keys}
    assert found <= stated
    schema = json.loads((ROOT / "config/gateway.schema.json").read_text("utf-8"))
    assert [key for _, key in stated if f'"{key.rpartition(".")[2]}"' not in json.dumps(schema)] == []


def _is_ours(section: type) -> bool:
    return section.__module__.startswith("gateway.features.")


@pytest.mark.parametrize("name", FOLDERS)
def test_check_plan_and_activation_show_the_feature(name: str) -> None:
    before, after = table_of(BASE), table_of(BASE.merge(EXAMPLES[name]))
    versions = re.compile(re.escape(before.version) + "|" + re.escape(after.version))
    assert versions.sub("", render_matrix(before)) != versions.sub("", render_matrix(after)), "`check` shows nothing"
    plan = plan_of(before, after)
    assert plan.regions or plan.routes or plan.sections, "a plan shows nothing"
    assert changes_between(before, after) != changes_between(before, before), "the change is not listed"


@pytest.mark.parametrize("name", FOLDERS)
def test_the_page_of_the_feature_names_its_keys(name: str) -> None:
    text = page(f"operate/{name}.md")
    assert [key.name for key in PARTS[name].compiler.keys if key.name not in text] == []


@pytest.mark.parametrize("name", FOLDERS)
def test_a_feature_that_stores_something_exports_and_erases_it(name: str) -> None:
    """Its place is listed for those who ask what is kept of a person. `tests/e2e/test_subject.py` erases a person."""
    is_storing = any(
        one.target in ("sqlite3", "gateway.state.database") for module in _modules_of(name) for one in module.imports
    )
    feature = PARTS[name].feature
    kept, of_users = (feature.kept, feature.of_users) if feature is not None else (None, None)
    assert (kept is not None or of_users is not None) == is_storing
    if is_storing:
        personal = page("prove/personal-data.md")
        assert f"operate/{name}.md" in personal
        assert [place for place, _ in (kept.elsewhere if kept is not None else ()) if place not in personal] == []
        members = {it.member for it in (kept, of_users) if it is not None}
        erased = Path(ROOT / "tests/e2e/test_subject.py").read_text("utf-8")
        assert [member for member in members if f'"{member}"' not in erased] == []


@pytest.mark.parametrize("name", FOLDERS)
def test_metrics_that_a_feature_counts_are_defined(name: str) -> None:
    texts = [module.path.read_text("utf-8") for module in _modules_of(name)]
    counted = {metric for text in texts for metric in re.findall(r'"(gateway_\w+)"', text)}
    assert counted <= {*METRIC_DEFINITIONS}
    feature = PARTS[name].feature
    assert counted or feature is None or feature.watcher is None, "what a watcher does is counted"


def _modules_of(name: str) -> list[Any]:
    return [module for module in modules().values() if module.name.startswith(f"gateway.features.{name}.")]


@pytest.mark.parametrize("name", FOLDERS)
def test_fields_of_receipt_and_log_line_are_in_its_public_names(name: str) -> None:
    """They are the keys that the methods of its notes name."""
    shown = {"log_fields": LOG_FIELDS, "receipt_members": RECEIPT_FIELDS}
    for module in _modules_of(name):
        methods = [node for node in module.nodes if isinstance(node, ast.FunctionDef) and node.name in shown]
        for method in methods:
            tables = [node.value for node in ast.walk(method) if isinstance(node, ast.Return)]
            keys = {
                ast.literal_eval(key) for table in tables if isinstance(table, ast.Dict) for key in table.keys if key
            }
            assert keys, f"{module.name}.{method.name} returns a dictionary"
            assert keys <= {*names_in(shown[method.name])}, f"gateway/features/{name}/public_names.json"
