"""Marks and shadows can be taken out with their folders and at most eight other files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture import removal
from tests.architecture.source_tree import ROOT

_SERVE = """
import asyncio, httpx
from gateway.assembly.application import Gateway
from gateway.config.loading import parse_document
from gateway.features.configuration import GatewayFile, compile_config
from providers.registry import load_registry

text = "{version: 1, assistants: {a: {routes: {r: [d]}}}, regions: {r: {territories: ['*'], boundary: ['*']}}, "
text += "deployments: {d: {provider: openai-compatible, model: m, endpoint: 'https://d.example/v1', stores: any, processes: any}}, location: {unknown: r}}"
config = compile_config(parse_document(text.encode(), "gateway.yaml", {}), registry=load_registry()).config
gateway = Gateway(config, None)
print(sorted(GatewayFile.model_fields), type(gateway).__name__)
"""


_GENERATED = (
    "config/gateway.schema.json",
    "docs/reference/config.md",
    "docs/reference/metrics.md",
    "gateway/config/data/sensitive_keys.json",
)


# Commands are taken out of their file last, because that joins its lines.
_TOGETHER = tuple(sorted(removal.REMOVALS, key=lambda name: len(removal.REMOVALS[name].commands)))


@pytest.mark.slow("checks the types and the names of two copies of the product")
@pytest.mark.parametrize(
    "features", [_TOGETHER, *(pytest.param((name,), marks=pytest.mark.full) for name in _TOGETHER)], ids=",".join
)
def test_features_can_be_taken_out(features: tuple[str, ...], tmp_path: Path) -> None:
    removal.copy_of_the_product(tmp_path)
    for feature in features:
        assert len(removal.REMOVALS[feature].files) <= removal.MOST_FILES
        removal.without(feature, tmp_path)
    checked = removal.run(["-m", "mypy", "gateway", "providers", "evaluation"], tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert not removal.dead_names(tmp_path) - removal.dead_names(ROOT)
    started = removal.run(["-c", _SERVE], tmp_path)
    assert started.returncode == 0, started.stderr
    assert not any(feature in started.stdout for feature in features)
    for command in [command for feature in features for command in removal.REMOVALS[feature].commands]:
        refused = removal.run(["-m", "gateway.cli", *command.split()], tmp_path)
        assert refused.returncode == 2, refused.stdout
    assert removal.run(["-m", "gateway.cli", "--help"], tmp_path).returncode == 0
    generated = removal.run(["-m", "scripts.generate"], tmp_path)
    assert generated.returncode == 0, generated.stderr
    keys = "|".join(removal.REMOVALS[feature].keys for feature in features)
    assert [it for it in _GENERATED if re.search(keys, (tmp_path / it).read_text("utf-8"))] == []
    assert _failures_in("tests/gateway/telemetry", features, tmp_path) == ""


@pytest.mark.full
@pytest.mark.parametrize("feature", sorted(removal.REMOVALS))
def test_all_other_tests_pass_without_the_feature(feature: str, tmp_path: Path) -> None:
    removal.copy_of_the_product(tmp_path)
    removal.without(feature, tmp_path)
    removal.drop_cases(feature, tmp_path / "tests/gateway/config")
    assert removal.run(["-m", "scripts.generate"], tmp_path).returncode == 0
    assert _failures_in("tests/gateway", (feature,), tmp_path) == ""


def _failures_in(folder: str, features: tuple[str, ...], tree: Path) -> str:
    """Return the output of the tests of a folder that name none of the features, or an empty text if all pass."""
    files = sorted(set.intersection(*(set(removal.files_without(feature, folder, tree)) for feature in features)))
    ran = removal.run(["-m", "pytest", "-q", "-m", "not slow and not full", *files], tree)
    return ran.stdout if ran.returncode else ""
