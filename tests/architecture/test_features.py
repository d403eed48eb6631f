"""A feature is a folder: this names the feature that lacks a word, an erase, a metric, a note or a page.

A new feature needs an entry in `EXAMPLES`, and one in `NOTES` if it adds to the record of a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.changes.activation import changes_between
from gateway.changes.plan import plan_of
from gateway.config.check_report import render_matrix
from gateway.config.feature_compiler import FeatureCompiler
from gateway.features.configuration import COMPILERS, GatewayFile
from gateway.features.crisis.model import CrisisNote
from gateway.features.duties.model import UseNote
from gateway.features.feature import Feature
from gateway.features.running import FEATURES
from gateway.features.shadow.model import ShadowNote
from gateway.model.public_names import LOG_FIELDS, RECEIPT_FIELDS, names_in
from gateway.model.record import AttemptRecord, FeatureNote
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS
from tests.architecture.source_tree import ROOT, modules
from tests.kit.configs import BASE, Config, table_of

FOLDERS = sorted(path.name for path in (ROOT / "gateway/features").iterdir() if (path / "__init__.py").exists())
CRISIS = {"judges": ["guard"], "categories": ["self-harm"], "then": "stop", "on_failure": "open"}
GUARD = {
    "provider": "openai-compatible",
    "model": "g",
    "endpoint": "https://guard.example/v1",
    "stores": "CN",
    "processes": "CN",
}
BANDS = {"child": {"tools": False}}
KEY = json.loads((ROOT / "tests/fixtures/marks/vectors.json").read_text("utf-8"))["private_key"]
MARKS = {"issuer": "https://assistant.example.com", "key": KEY}
# The smallest configuration that uses each feature.
EXAMPLES: Mapping[str, Config] = {
    "marks": BASE.merge({"marks": MARKS, "regions": {"cn": {"labels": [{"name": "eu-art50", "mark": "signed"}]}}}),
    "crisis": BASE.merge({"regions": {"cn": {"crisis": CRISIS}}, "deployments": {"guard": GUARD}}),
    "claims": BASE.merge(
        {"regions": {"cn": {"profile": {"locale": "zh-Hans-CN"}, "claims": {"forbidden": ["health-licence"]}}}}
    ),
    "redaction": BASE.merge({"redactions": {"personal": {}}, "regions": {"cn": {"redact": "personal"}}}),
    "minors": BASE.merge({"regions": {"cn": {"age_bands": BANDS, "age_missing": "refuse"}}}),
    "shadow": BASE.merge({"assistants": {"assistant": {"shadow": {"cn": {"deployment": "qwen-cn"}}}}}),
    "duties": BASE.merge(
        {"regions": {"cn": {"use": {}, "age_bands": {"child": {"use": {"session": "1h"}}}, "age_missing": "child"}}}
    ),
}
# A note of each class that a feature adds to records.
NOTES: Mapping[str, tuple[FeatureNote, ...]] = {
    "crisis": (CrisisNote("stop"),),
    "shadow": (ShadowNote(AttemptRecord("d", "openai", "m", 0.0)),),
    "duties": (UseNote("day"),),
}


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
    before, after = table_of(BASE), table_of(EXAMPLES[name])
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


def test_each_class_of_notes_has_an_example() -> None:
    classes = {
        f"{name}.{node.name}"
        for name in FOLDERS
        for module in _modules_of(name)
        for node in module.nodes
        if hasattr(node, "bases") and any(getattr(it, "name", "") == "receipt_members" for it in node.body)
    }
    assert classes == {f"{name}.{type(note).__name__}" for name, notes in NOTES.items() for note in notes}


@pytest.mark.parametrize("name", FOLDERS)
def test_members_of_receipt_and_log_line_are_stated_and_described(name: str) -> None:
    notes = NOTES.get(name, ())
    members = {member for note in notes for member in note.receipt_members(lambda it: {"deployment": it.deployment})}
    assert members <= {*names_in(RECEIPT_FIELDS)}
    assert {field for note in notes for field in note.log_fields()} <= {*names_in(LOG_FIELDS)}
