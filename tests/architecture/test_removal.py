"""Marks and shadows can be taken out with their folders and at most eight other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.removal import MOST_FILES, REMOVALS, copy_of_the_product, run, without

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


@pytest.mark.slow("checks the types of two copies of the product")
@pytest.mark.parametrize("feature", sorted(REMOVALS))
def test_feature_can_be_taken_out(feature: str, tmp_path: Path) -> None:
    assert len(REMOVALS[feature].files) <= MOST_FILES
    copy_of_the_product(tmp_path)
    without(feature, tmp_path)
    checked = run(["-m", "mypy", "gateway", "providers", "evaluation"], tmp_path)
    assert checked.returncode == 0, checked.stdout
    started = run(["-c", _SERVE], tmp_path)
    assert started.returncode == 0, started.stderr
    assert feature not in started.stdout
    for command in REMOVALS[feature].commands:
        refused = run(["-m", "gateway.cli", *command.split()], tmp_path)
        assert refused.returncode == 2, refused.stdout
    assert run(["-m", "gateway.cli", "--help"], tmp_path).returncode == 0
