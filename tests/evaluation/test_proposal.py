"""The proposed config can be served, whatever the route contained before."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation import report_page, run
from evaluation.recommendation import Recommendation
from evaluation.run import proposed_config

CONFIG = """\
version: 1
demo: true
assistants:
  assistant:
    routes: {cn: [{qwen-cn: 95, ernie-cn: 5}]}
    schedules: {cn: {candidate: ernie-cn, steps: "5% for 1h, 100%"}}
    shadow: {cn: {deployment: deepseek-cn, share: 1%}}
regions:
  cn: {territories: [CN], boundary: [CN]}
deployments:
  qwen-cn: {provider: dashscope, model: qwen3-max, endpoint: simulator, simulates: cn-beijing}
  ernie-cn: {provider: qianfan, model: ernie-5.1, endpoint: simulator, simulates: cn}
  deepseek-cn: {provider: deepseek, model: deepseek-chat, endpoint: simulator, simulates: cn}
"""


@pytest.mark.parametrize("route", [("ernie-cn", "qwen-cn"), ("deepseek-cn",)])
def test_recommended_route_replaces_a_running_canary(tmp_path: Path, route: tuple[str, ...]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    changed = proposed_config(path, "assistant", "cn", route, demo=True)
    lines = CONFIG.splitlines(keepends=True)
    lines[4:6] = [f"    routes: {{cn: [{', '.join(route)}]}}\n"]
    assert changed == "".join(lines)


def test_failed_proposal_leaves_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report has answers that were paid for, so it is written before the proposed config."""

    def fail(*_: object, **__: object) -> str:
        assert (tmp_path / "report.json").exists()
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "proposed_config", fail)
    written: list[str] = []
    monkeypatch.setattr(run, "write_report", lambda *_: written.append("report") or (tmp_path / "report.json").touch())
    monkeypatch.setattr(run, "markdown_page", lambda *_: "")
    monkeypatch.setattr(report_page, "html_page", lambda *_: "")
    monkeypatch.setattr(report_page, "drawings_of", lambda *_: {})
    options = run.EvaluateOptions(tmp_path / "gateway.yaml", "s", "cn", None, ("a", "b"), tmp_path)
    advice = Recommendation("b", ("b", "a"), ())
    report = {
        "assistant": "assistant",
        "region": "cn",
        "stopped": None,
        "notices": [],
        "refusal_rule": [],
        "recommendation": {"reasons": [], "route_now": ["a", "b"]},
    }
    assert run._write(options, report, advice, demo=True) == 0
    assert written == ["report", "report"]
    reasons = report["recommendation"]["reasons"]
    assert reasons == [
        "The config can't be changed automatically (RuntimeError). Write the route by hand: b, a.",
    ]
