"""`gateway check`: its output on both streams, and its exit status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command
from tests.kit.configs import BASE

EXAMPLE = ROOT / "config" / "gateway.yaml"
KEYS = (
    "DASHSCOPE_API_KEY DASHSCOPE_INTL_API_KEY GEMINI_API_KEY OPENAI_EU_API_KEY OPENAI_US_API_KEY QIANFAN_API_KEY"
).split()
BROKEN = """\
version: 1
cell: {territory: DE}
assistants: {assistant: {routes: {eu: [chatgpt]}}}
regions: {eu: {territories: [DE], boundary: [DE]}}
deployments: {chatgpt: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${SOME_KEY}"}}
"""


def test_check_prints_the_routes_of_a_valid_config(gateway: Command) -> None:
    shown = gateway("check", "--no-secrets", EXAMPLE)
    assert (shown.status, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("config ")
    assert "    1. chatgpt-eu: openai gpt-6-luna at eu" in lines
    assert "       stores and processes: @EEA, CH" in lines
    assert "  cn (served by https://cn.assistant.example, not by this cell):" in lines
    assert max(map(len, lines)) <= 100


def test_check_accepts_the_file_as_config_option(gateway: Command) -> None:
    shown = gateway("check", "--no-secrets", "--config", EXAMPLE)
    assert shown == gateway("check", "--no-secrets", EXAMPLE)
    both = gateway("check", "--config", EXAMPLE, EXAMPLE)
    assert (both.status, both.out) == (2, "")
    assert "FILE and --config both name the config: give only one of them" in both.err


def test_unset_key_is_a_warning(gateway: Command) -> None:
    shown = gateway("check", EXAMPLE)
    assert shown.status == 0
    assert "warning: deployments.qwen-cn.api_key: DASHSCOPE_API_KEY is not set: the deployment is skipped" in shown.err
    assert "11 warnings" in shown.err
    assert "       not now: no credential" in shown.out.splitlines()


def test_unset_key_is_reported_once(gateway: Command) -> None:
    shown = gateway("check", EXAMPLE)
    output = f"{shown.out}{shown.err}"
    assert {name: len(re.findall(rf"\b{name}\b", output)) for name in KEYS} == dict.fromkeys(KEYS, 1)


def test_strict_treats_warnings_as_errors(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = gateway("check", "--strict", EXAMPLE)
    assert shown.status == 1
    assert shown.out.splitlines()[-1] == "--strict: the warnings are treated as errors"
    assert gateway("check", "--strict", "--no-secrets", EXAMPLE).status == 0
    for name in KEYS:
        monkeypatch.setenv(name, "sk-secret")
    shown = gateway("check", "--strict", EXAMPLE)
    assert (shown.status, shown.err) == (0, "")
    assert "sk-secret" not in shown.out


def test_check_reports_position_and_fix_of_each_error(gateway: Command) -> None:
    Path("broken.yaml").write_text(BROKEN)
    shown = gateway("check", "--no-secrets", "broken.yaml")
    assert (shown.status, shown.out) == (1, "")
    first, _, count = shown.err.splitlines()
    assert first.startswith("broken.yaml:3:40: assistants.assistant.routes.eu[0]: 'chatgpt' stores and processes in US")
    assert "; use a site inside the boundary, or widen `regions.eu.boundary`" in first
    assert count == "1 error"


def test_config_defaults_to_the_setting_then_to_the_usual_path(
    gateway: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = gateway("check")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err == (
        "gateway: there is no config at config/gateway.yaml; `gateway init` writes one, `gateway demo` needs none\n"
    )
    monkeypatch.setenv("GATEWAY_CONFIG", str(EXAMPLE))
    assert gateway("check", "--no-secrets").status == 0


def test_directory_is_rejected_as_config(gateway: Command, tmp_path: Path) -> None:
    shown = gateway("check", tmp_path)
    assert shown.status == 1
    assert "the file can't be read (Is a directory)" in shown.err


def test_check_compiles_a_demo_config_as_a_demo(gateway: Command) -> None:
    shown = gateway("check", ROOT / "config" / "demo.yaml")
    assert (shown.status, shown.err) == (0, "")
    assert "    1. qwen-cn: dashscope qwen-plus at cn-beijing, simulated" in shown.out


@pytest.mark.parametrize(("key", "is_kept"), [("${SOME_KEY}", True), ("sk-in-clear-0123456789", False)])
def test_config_with_a_secret_in_clear_will_not_be_in_the_history(
    gateway: Command, tmp_path: Path, key: str, *, is_kept: bool
) -> None:
    path = BASE.merge({"deployments": {"chatgpt-eu": {"api_key": key}}}).write(tmp_path)
    shown = gateway("check", path)
    said = "this configuration will not be in the history, because a secret is written in it (deployments.chatgpt-eu.api_key)"
    assert (shown.status, said in shown.err, key in shown.err) == (0, not is_kept, False)
