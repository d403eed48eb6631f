"""A provider or a model that has ended, for the operator: `gateway check`, and `gateway init --from` of the own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.kit.case_files import cases
from tests.kit.config_cases import edited

OLD = """\
version: 1
# ours
cell: {territory: CN}
assistants: {assistant: {routes: {cn: [tencent, flow, voice]}}}
regions: {cn: {territories: [CN], boundary: [CN], approvals: none}}
deployments:
  tencent:   # the vendor
    provider: hunyuan-compatible
    model: "hunyuan-turbos-latest"  # old
    api_key: ${HUNYUAN_API_KEY}
  flow: {provider: hunyuan, model: 'hunyuan-role', endpoint: nearest, api_key: "${K}"}
  voice: {provider: tokenhub, model: hy3, endpoint: ap-guangzhou, api_key: "${K}"}
"""
NEW = """\
version: 1
# ours
cell: {territory: CN}
assistants: {assistant: {routes: {cn: [tencent, flow, voice]}}}
regions: {cn: {territories: [CN], boundary: [CN], approvals: none}}
deployments:
  tencent:   # the vendor
    provider: tokenhub
    endpoint: ap-guangzhou
    model: "hy3"  # old
    api_key: ${TOKENHUB_API_KEY}
  flow: {provider: tokenhub, model: 'hunyuan-role-latest', endpoint: ap-guangzhou, api_key: "${TOKENHUB_API_KEY}"}
  voice: {provider: tokenhub, model: hy3, endpoint: ap-guangzhou, api_key: "${K}"}
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(OLD, "utf-8")
    return path


def test_check_names_the_end_and_the_lines_to_write(gateway: Command, old: Path) -> None:
    shown = gateway("check", "--no-secrets", old)
    assert shown.status == 1
    for words in (
        ":8:15: deployments.tencent.provider: the API of 'hunyuan-compatible' ended on 2026-09-30",
        "write provider: tokenhub, model: hy3, endpoint: ap-guangzhou, api_key: ${TOKENHUB_API_KEY}",
        f"`gateway init --from {old} --to DIR`",
    ):
        assert words in shown.err
    assert "2 errors" in shown.err


def test_init_writes_the_successor_and_keeps_every_other_line(gateway: Command, old: Path, tmp_path: Path) -> None:
    shown = gateway("init", "--from", old, "--to", tmp_path / "new")
    assert shown.status == 0
    assert "line 8: hunyuan-compatible -> tokenhub, endpoint: ap-guangzhou" in shown.out
    assert (tmp_path / "new" / "gateway.yaml").read_text("utf-8") == NEW
    assert gateway("check", "--no-secrets", tmp_path / "new" / "gateway.yaml").status == 0


def test_init_of_a_model_without_a_replacement_leaves_a_gap(gateway: Command, old: Path, tmp_path: Path) -> None:
    old.write_text(OLD.replace("hunyuan-role", "hunyuan-vision"), "utf-8")
    assert "hunyuan-vision -> none replaces it" in gateway("init", "--from", old, "--to", tmp_path / "new").out
    assert gateway("check", "--no-secrets", tmp_path / "new" / "gateway.yaml").status == 1


def test_init_from_a_file_with_no_ended_provider_changes_nothing(gateway: Command, old: Path, tmp_path: Path) -> None:
    old.write_text(NEW, "utf-8")
    shown = gateway("init", "--from", old, "--to", tmp_path / "new")
    assert shown.status == 2
    assert "names no provider that has ended" in shown.err
    assert not (tmp_path / "new").exists()


@cases("model", "day", "status", "words")
def test_check_judges_the_day_that_it_is_given(
    gateway: Command, old: Path, model: str, day: str, status: int, words: str
) -> None:
    site = "stores: CN, processes: CN, endpoint: 'https://h.example/v1'"
    text = edited(
        NEW, ("provider: tokenhub, model: hy3, endpoint: ap-guangzhou", f"provider: mistral, model: {model}, {site}")
    )
    old.write_text(text, "utf-8")
    shown = gateway("check", "--no-secrets", "--at", day, old)
    assert (shown.status, words in shown.err) == (status, True), shown.err
    old.write_text(edited(text, (site, f"{site}, accept_ended: true")), "utf-8")
    kept = gateway("check", "--no-secrets", "--at", day, old)
    assert (kept.status, "RETIRED" in kept.err) == (0, False), kept.err
    assert ("accept_ended: it has no effect" in kept.err) is (model == "mistral-small-2603")
