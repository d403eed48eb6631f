"""Prices, the proposed config, and outputs without hidden characters."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from evaluation import run
from evaluation.questions import Suite, load_suite, suite_path
from evaluation.run import OptionsError, proposed_config, with_known_prices
from evaluation.suite import CandidatePriceSection, PricesSection, SpendSection
from evaluation.texts import open_private, visible_line, visible_text
from gateway.cli import main
from gateway.model.deployment import Deployment
from providers.catalogue.prices import Price, Rates, free_price
from providers.testkit.scenario import Scenario
from tests.evaluation.candidates import config_of, servers, suite_in
from tests.kit.configs import BASE, table_of

SOME = next(iter(table_of(BASE).deployments.values()))


def costing(name: str, currency: str, input_micros: int, reasoning: int | None = None) -> Deployment:
    rates = Rates(input_micros, 2 * input_micros, reasoning=reasoning)
    return replace(SOME, name=name, price=Price(rates, currency, date(2026, 11, 1), "a page"))


def suite_with(prices: dict[str, float] | None, cost: float | None = None) -> Suite:
    suite = load_suite(suite_path("cn"))
    section = None
    if prices is not None:
        own = {name: CandidatePriceSection(input=price, output=price) for name, price in prices.items()}
        section = PricesSection(currency="CNY", deployments=own)
    return replace(suite, file=suite.file.model_copy(update={"prices": section, "spend": SpendSection(cost=cost)}))


@pytest.mark.parametrize(
    ("own", "asked", "costs"),
    [
        (None, [costing("a", "CNY", 2_000_000), costing("b", "CNY", 500_000)], {"a": 6.0, "b": 1.5}),
        ({"a": 9}, [costing("a", "CNY", 2_000_000), costing("b", "USD", 1)], {"a": 18.0, "b": None}),
        (None, [costing("a", "CNY", 1_000_000, reasoning=3_000_000)], {"a": 4.0}),
        (None, [costing("a", "CNY", 1), replace(SOME, name="b", price=free_price("own"))], {"b": 0.0}),
        (None, [costing("a", "CNY", 1), costing("b", "USD", 1)], {"a": None, "b": None}),
        (None, [], {"a": None}),
    ],
)
def test_prices_are_those_of_the_suite_else_of_the_catalogue(own: dict | None, asked: list, costs: dict) -> None:
    found = with_known_prices(suite_with(own), asked)
    assert {name: found.cost_of(name, 1_000_000, 1_000_000) for name in costs} == costs


def test_cost_limit_needs_a_price_for_every_deployment() -> None:
    asked = [costing(name, "USD", 1) for name in "cab"]
    with pytest.raises(OptionsError, match="no price in CNY: c, b; add their prices"):
        with_known_prices(suite_with({"a": 0}, cost=5.0), asked)
    with_known_prices(suite_with({"a": 0}), asked)


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
  qwen-cn: {provider: dashscope, model: qwen-plus, endpoint: simulator, simulates: cn-beijing}
  ernie-cn: {provider: qianfan, model: ernie-5.1, endpoint: simulator, simulates: cn}
  deepseek-cn: {provider: deepseek, model: deepseek-chat, endpoint: simulator, simulates: cn}
"""


@pytest.mark.parametrize("route", [("ernie-cn", "qwen-cn"), ("deepseek-cn",)])
def test_recommended_route_replaces_a_running_canary(tmp_path: Path, route: tuple[str, ...]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    lines = CONFIG.splitlines(keepends=True)
    lines[4:6] = [f"    routes: {{cn: [{', '.join(route)}]}}\n"]
    assert proposed_config(path, "assistant", "cn", route, demo=True) == "".join(lines)


def test_deployment_of_audio_alone_is_no_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be sent a thousand questions that it cannot answer, and be reported as a bad model."""
    suite_in(tmp_path, "performance: {sets: [{name: a, file: many.yaml}]}", items=40)
    monkeypatch.setenv("KEY", "sk-test")
    config = config_of({"one": "http://127.0.0.1:9", "ears": "http://127.0.0.1:9"})
    heard = config.merge("assistants: {assistant: {transcription: {cn: [ears]}}}")
    (tmp_path / "gateway.yaml").write_text(heard.text, "utf-8")
    named = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml"), "--region", "cn"]
    assert main(["evaluate", *named, "--candidates", "one,ears", "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    problem = "ears can't be evaluated, because it answers no chats: this config asks it for transcription only"
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a\tb\nc", "👩\u200d💻", "می\u200cخواهم", "　全角", "naïve — “x”", "שלום"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible_text(text) == text


def test_control_characters_become_their_codes_and_files_are_private(tmp_path: Path) -> None:
    assert visible_line("a\x1b[31m\u202eb\r\nc\ufeff") == "a⟨U+001B⟩[31m⟨U+202E⟩b c⟨U+FEFF⟩"
    path = tmp_path / "x"
    path.write_text("before")
    path.chmod(0o644)
    with open_private(path) as file:
        file.write("x")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("x", 0o600)


def test_hostile_answers_show_in_each_output_and_a_failed_proposal_leaves_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b[31m\u202e</style><script>alert(1)</script> | `x` **b** ]]>"
    suite_in(tmp_path, "performance: {sets: [{name: a, file: many.yaml}]}", items=40)
    monkeypatch.setenv("KEY", "sk-test")

    def fail(*_: object, **__: object) -> str:
        assert (tmp_path / "out" / "report.json").exists()
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "proposed_config", fail)
    with servers({"one": Scenario(text=hostile), "two": Scenario(text="7")}) as thread:
        config = config_of({name: thread[name].origin for name in ("one", "two")})
        (tmp_path / "gateway.yaml").write_text(config.text, "utf-8")
        items = {"version": 1, "language": "en", "items": {"s": [{"ask": f"{n}?", "number": 7} for n in range(40)]}}
        (tmp_path / "many.yaml").write_text(json.dumps(items))
        named = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml"), "--region", "cn"]
        assert main(["evaluate", *named, "--candidates", "one,two", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "The config can't be changed automatically (RuntimeError). Write the route by hand: two." in shown
    hidden = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
    for text in (shown, *((tmp_path / "out" / f"report.{kind}").read_text("utf-8") for kind in ("html", "md", "json"))):
        assert not hidden.search(text)
    page, markdown = ((tmp_path / "out" / f"report.{kind}").read_text("utf-8") for kind in ("html", "md"))
    assert "<script>" not in page + markdown
    assert "⟨U+001B⟩" in page
