"""The core opens each outbuilding in few places, and grows no more. The numbers in `outbuildings.py` only fall."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.architecture.outbuilding_removal import TAKEOUTS, dangling, take_out
from tests.architecture.outbuildings import MOST_CORE_LINES, MOST_DOORS, OUTBUILDINGS, doors, lines_of
from tests.architecture.removal import copy_of_the_product, left_without
from tests.architecture.source_tree import ROOT, modules

CONFIG = """
version: 1
cell: {territory: DE}
regions: {eu: {territories: [DE], boundary: [DE]}}
deployments: {d: {provider: openai-compatible, model: m, endpoint: https://d.example/v1, stores: DE, processes: DE}}
assistants: {a: {routes: {eu: [d]}}}
location: {unknown: eu}
"""
CHAT = {"model": "a", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize("name", OUTBUILDINGS)
def test_the_core_opens_an_outbuilding_in_few_places(name: str) -> None:
    opened = sorted(doors()[name])
    assert len(opened) <= OUTBUILDINGS[name].doors, f"{name} is opened by {', '.join(opened)}"


@pytest.mark.parametrize("name", OUTBUILDINGS)
def test_an_outbuilding_has_rooms(name: str) -> None:
    paths = [str(module.path.relative_to(ROOT)) for module in modules().values()]
    assert any(re.match(OUTBUILDINGS[name].rooms, path) for path in paths)


def test_the_page_has_a_row_for_each_outbuilding() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert [name for name in OUTBUILDINGS if f"\n| `{name}` |" not in page] == []


def test_all_doors_together_are_few() -> None:
    assert sum(map(len, doors().values())) <= MOST_DOORS


def test_the_core_does_not_grow() -> None:
    assert lines_of("core") <= MOST_CORE_LINES


@pytest.mark.slow("copies the product")
@pytest.mark.parametrize("name", TAKEOUTS)
def test_an_outbuilding_can_be_taken_out(name: str, tmp_path: Path) -> None:
    """`python -m tests.architecture.removal NAME` also checks the types of the rest."""
    assert [place for place in TAKEOUTS[name].edits if not (ROOT / place).exists()] == []
    copy_of_the_product(tmp_path, with_cache=False)
    take_out(name, tmp_path)
    assert dangling(tmp_path) == []


@pytest.mark.slow("checks the types of a copy of the product, and starts it")
def test_the_core_answers_a_chat_without_its_outbuildings(tmp_path: Path) -> None:
    tree, config = tmp_path / "copy", tmp_path / "gateway.yaml"
    tree.mkdir()
    assert left_without([*TAKEOUTS], tree) == ""
    config.write_text(CONFIG, "utf-8")
    command = [sys.executable, "-m", "gateway.cli", "serve", "--simulated", str(config), "--port", "0"]
    settings = {**os.environ, "GATEWAY_STATE_DIR": str(tmp_path / "state")}
    with subprocess.Popen(command, cwd=tree, env=settings, stderr=subprocess.PIPE, text=True) as gateway:
        assert gateway.stderr is not None
        url = next(line["url"] for line in map(json.loads, gateway.stderr) if line["event"] == "listening")
        choice = httpx.post(f"{url}/v1/chat/completions", json=CHAT).json()["choices"][0]
        gateway.terminate()
        gateway.stderr.read()
    assert choice["finish_reason"] == "stop"
    assert gateway.returncode == 0
