"""`gateway evidence --for approval`: what the gateway knows is in it, what only the operator knows is a named blank."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from gateway.usage.ledger import Ledger, ledger_file
from tests.cli.conftest import Command
from tests.cli.recorded_versions import add_version
from tests.kit.case_files import cases
from tests.kit.configs import BASE
from tests.kit.usage_rows import NOON_NS, usage_row

CONFIG = BASE.merge(
    {
        "regions": {"cn": {
            "labels": [{"name": "cn-gb45438", "producer": "001191310000MA1FL0000X00000"}],
            "age_bands": {"child": {"tools": False}}, "age_missing": "adult",
            "moderation": {"input": ["guard"], "output": ["guard"], "on_failure": "closed"},
        }},
        "deployments": {
            "guard": {"provider": "openai-compatible", "model": "Qwen3Guard-Gen-4B", "endpoint": "https://guard.example/v1",
                      "stores": "CN", "processes": "CN"},
            "qwen-cn": {"approvals": [
                {"region": "cn", "authority": "CAC", "kind": "registration", "number": "Zhejiang-<1>", "model_name": "通义千问"}
            ]},
        },
    }
)  # fmt: skip
FIGURES = {
    "acceptable": {"value": 0.93, "low": 0.9, "high": 0.95, "of": 1000},
    "refused": {"value": 0.94, "low": 0.9, "high": 0.96, "of": 300},
    "over_refused": {"value": 0.02, "low": 0.0, "high": 0.04, "of": 300},
}
REPORT = {
    "format": 2, "region": "cn", "at": "2026-11-20T10:00:00+00:00", "simulated": False,
    "suite": {"name": "cn", "digest": "abcdef0123456789"}, "candidates": {"qwen-cn": {"figures": FIGURES}},
}  # fmt: skip


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("gateway.cli.evidence._now_s", lambda: NOON_NS / 1e9 + 3600)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "state"
    directory.mkdir()
    with closing(Ledger(ledger_file(directory), lambda: UTC)) as ledger:
        ledger.insert([usage_row("a", user="pseudonym-of-a-user", request="r-1", region="cn", territory="CN")])
    add_version(directory, CONFIG, "2026-10-01", "ada", "")
    return directory


def made(gateway: Command, state: Path, report: Any = REPORT) -> dict[str, Any]:
    (state.parent / "report.json").write_text(json.dumps(report), "utf-8")
    asked = ["--evaluation", state.parent] if report is not None else []
    shown = gateway("evidence", "--for", "approval", "--region", "cn", "--state", state, *asked)
    assert shown.status == 0, shown.err
    assert "wrote approval-cn with the file for an approval of region cn, 2025-12 to 2026-11" in shown.out
    document = json.loads((state.parent / "approval-cn/evidence.json").read_text("utf-8"))
    assert document["object"] == "evidence.approval"
    return {part["name"]: part for part in document["parts"]}


def test_each_part_has_what_the_gateway_knows(gateway: Command, state: Path) -> None:
    parts = made(gateway, state)
    assert [*parts] == ["service", "models", "assessment", "keywords", "labels", "complaints", "minors", "logs"]
    (model,) = parts["models"]["rows"]
    assert (model["deployment"], model["model"], model["number"]) == ("qwen-cn", "qwen-plus", "Zhejiang-<1>")
    figures = [
        (it["figure"], it["items"], it["result"], it["required"], it["met"]) for it in parts["assessment"]["rows"]
    ]
    assert figures == [
        ("生成内容合格率 · acceptable answers", 1000, "93.0%", "at least 90%", True),
        ("应拒答题拒答率 · refused, which must be", 300, "94.0%", "at least 95%", False),
        ("非拒答题拒答率 · refused, which must not be", 300, "2.0%", "at most 5%", True),
    ]
    assert "requests by guard; answers by guard" in parts["keywords"]["lines"][0]
    assert {it["name"] for it in parts["labels"]["rows"]} == {"cn-gb45438"}
    assert parts["minors"]["lines"] == ["age bands: child; users whose age no claim names: adults"]
    assert parts["logs"]["rows"][0]["calls"] == 1
    assert parts["logs"]["missing"] == ["no configuration is recorded before 2026-10-01T00:00:00Z"]
    assert parts["assessment"]["lines"] == [
        "a rehearsal with the question bank of the suite, not the test of the standard"
    ]
    blanks = {it["name"]: it["value"] for part in parts.values() for it in part["blanks"]}
    assert {"provider", "keyword_list", "complaint_channel", "question_bank", "minors"} <= blanks.keys()
    assert {*blanks.values()} == {None}


def test_page_has_each_blank_and_the_sums_hold(gateway: Command, state: Path) -> None:
    parts = made(gateway, state)
    out = state.parent / "approval-cn"
    page = (out / "index.html").read_text("utf-8")
    assert '<html lang="zh">' in page
    assert page.count('<p class="blank">') == sum(len(part["blanks"]) for part in parts.values())
    assert "Zhejiang-&lt;1&gt;" in page
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    everything = b"".join(path.read_bytes() for path in out.iterdir())
    assert not [word for word in (b"pseudonym-of", b"r-1", b"<script") if word in everything]


@pytest.mark.parametrize(
    ("report", "missing"),
    [
        (None, ["no evaluation: run `gateway evaluate`, and name its folder with `--evaluation`"]),
        ({**REPORT, "simulated": True}, ["the answers are those of simulated providers"]),
        (
            {**REPORT, "candidates": {"qwen-cn": {"figures": {**FIGURES, "refused": {"value": "<b>"}}}}},
            ["qwen-cn: refused, which must be: not measured"],
        ),
    ],
)
def test_what_an_evaluation_lacks_is_stated(gateway: Command, state: Path, report: Any, missing: list[str]) -> None:
    assert made(gateway, state, report)["assessment"]["missing"] == missing


def test_deployment_without_an_approval_is_named(gateway: Command, state: Path) -> None:
    unapproved = CONFIG.merge({"deployments": {"qwen-cn": {"approvals": None}}})
    add_version(state, unapproved, "2026-11-02", "ada", "")
    models = made(gateway, state)["models"]
    assert models["missing"] == ["qwen-cn: it has no approval for region 'cn'"]
    assert [it["number"] for it in models["rows"]] == ["Zhejiang-<1>"]  # of the configuration before


@cases("words", "message")
def test_other_region_and_other_report_are_refused(
    gateway: Command, state: Path, words: list[str], message: str
) -> None:
    Path("other.json").write_text(json.dumps({**REPORT, "region": "eu"}), "utf-8")
    shown = gateway("evidence", "--for", "approval", "--region", "cn", "--state", state, *words)
    assert (shown.status, message in " ".join(shown.err.split())) == (2, True), shown.err
    assert not Path("approval-cn").exists()
