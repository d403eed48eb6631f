"""`gateway evaluate`: an estimate, a small run with simulated candidates, its report, and a comparison."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.cli import main
from tests.cli.conftest import Command, Outcome
from tests.kit.case_files import cases
from tests.kit.config_cases import edited

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "evaluations" / "rehearsal-gateway.yaml"
HOSTILE = "<script>alert(1)</script> | `x` <img src=//evil.example/x.png> **b**"
SUITE = f"""
version: 1
name: small
seed: 3
limits: {{concurrent: 4}}
performance: {{sets: [{{name: en, file: sums.yaml}}, {{name: hostile, file: hostile.yaml}}]}}
compliance: {{bank: {ROOT}/config/evaluations/banks/cn.yaml, accept: 31, refuse: 17, answer: 20, consistency: 4}}
scalability: {{rates: [10, 20], step: 500ms, recovery: 300ms, prompt: hello, objectives: {{first_token: 1s, total: 5s}}}}
prices: {{currency: CNY, deployments: {{qwen-cn: {{input: 2.4, output: 9.6}}}}}}
requirements: {{approval: true, performance: 50%}}
simulated:
  qwen-cn: {{quality: 97%, seed: 1}}
  ernie-cn: {{quality: 60%, acceptable: 50%, seed: 2}}
  doubao-cn: {{quality: 99%, seed: 3}}
"""
CANDIDATES = "qwen-cn,ernie-cn,doubao-cn"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "suite.yaml").write_text(SUITE, "utf-8")
    asked = [{"ask": f"{HOSTILE} {number}", "exact": [f"{HOSTILE} {number}"]} for number in range(12)]
    sums = [{"ask": f"{one} + 1?", "exact": [str(one + 1)]} for one in range(90)]
    for name, items in {"hostile": asked, "sums": sums}.items():
        file = {"version": 1, "language": "en", "items": {name: items}}
        (folder / f"{name}.yaml").write_text(json.dumps(file), "utf-8")
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    named = ["--config", str(CONFIG), "--region", "cn", "--suite", str(folder / "suite.yaml")]
    return ["evaluate", *named, "--candidates", CANDIDATES, "--out", str(folder / "out"), *more]


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    """Return the directory of a finished run."""
    assert main(arguments(folder)) == 0
    return folder / "out"


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text("utf-8"))


def test_dry_run_estimates_and_sends_nothing(gateway: Command, folder: Path, tmp_path: Path) -> None:
    shown = gateway(*arguments(folder), "--out", tmp_path / "dry", "--dry-run")
    assert shown.status == 0
    assert re.search(r"^qwen-cn +\d+ +[\d,]+ +[\d,]+ +", shown.out, re.MULTILINE)
    assert re.search(r"^qwen-cn .* 0\.\d\d CNY$", shown.out, re.MULTILINE)
    assert "no price is set" in shown.out
    assert "It takes about" in shown.out
    assert not (tmp_path / "dry").exists()


def test_dry_run_lists_refused_candidates_without_an_estimate(gateway: Command, folder: Path, tmp_path: Path) -> None:
    """The estimate must not include candidates that will not be asked."""
    config = tmp_path / "gateway.yaml"
    abroad = "  abroad: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: us}\n"
    config.write_text(CONFIG.read_text("utf-8") + abroad, "utf-8")
    asked = arguments(folder, "--dry-run")
    asked[asked.index("--config") + 1] = str(config)
    asked[asked.index("--candidates") + 1] = f"{CANDIDATES},abroad"
    shown = gateway(*asked)
    assert shown.status == 0, shown.err
    assert re.search(r"^abroad: not asked: .* would leave the boundary of the region 'cn'.*$", shown.out, re.MULTILINE)
    assert not re.search(r"^abroad +[\d,]+ ", shown.out, re.MULTILINE)
    assert "doubao-cn: asked with an evaluation permit, which waives: its approval" in shown.out


def test_cost_limit_needs_no_price_for_simulated_candidates(gateway: Command, folder: Path, tmp_path: Path) -> None:
    """A suite with a cost limit can be tested with simulated candidates, which cost nothing."""
    suite = folder / "limited.yaml"
    suite.write_text(SUITE + "spend: {cost: 5}\n", "utf-8")
    asked = arguments(folder)
    asked[asked.index("--suite") + 1] = str(suite)
    shown = gateway(*asked, "--out", tmp_path / "dry", "--dry-run")
    assert shown.status == 0, shown.err


def test_best_candidate_is_recommended_and_expired_one_is_out(out: Path) -> None:
    """The first test of `out` waits for a whole evaluation of three candidates."""
    report = report_of(out)
    assert report["ranking"] == ["qwen-cn", "ernie-cn", "doubao-cn"]
    assert report["out"] == ["doubao-cn"]
    assert report["candidates"]["doubao-cn"]["waived"] == "its approval for region 'cn' ended on 2026-01-31"
    assert report["candidates"]["doubao-cn"]["figures"]["performance"]["value"] > 0.9, "it was asked all the same"
    advice = report["recommendation"]
    assert (advice["deployment"], advice["route"]) == ("qwen-cn", ["qwen-cn", "ernie-cn"])
    assert "doubao-cn misses requirements: approval: its approval for region 'cn' ended on 2026-01-31" in " ".join(
        advice["reasons"]
    )


def test_every_axis_has_figures_with_intervals(out: Path) -> None:
    for found in report_of(out)["candidates"].values():
        keys = ("performance", "acceptable", "refused", "over_refused", "consistent")
        for estimate in (*(found["figures"][key] for key in keys), found["load"]["goodput"]):
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate["of"] > 0
        assert [step["offered"] for step in found["load"]["steps"]] == [10, 20]
        assert (found["cost"] or 0) == pytest.approx(
            (found["tokens"]["prompt"] * 2.4 + found["tokens"]["completion"] * 9.6) / 1e6 if found["cost"] else 0,
            abs=1e-6,
        )
        assert found["load"]["steps"][0]["times"]["first_token"]["p99"]["value"] > 0


def test_proposed_config_changes_only_one_route(gateway: Command, out: Path) -> None:
    before, after = CONFIG.read_text("utf-8").splitlines(), (out / "gateway.yaml").read_text("utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [
        ("      cn: [ernie-cn, qwen-cn] # the previous choice", "      cn: [qwen-cn, ernie-cn] # the previous choice")
    ]
    assert gateway("check", out / "gateway.yaml").status == 0


class Page(HTMLParser):
    """Collects what a page would load or run, and checks that its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data") and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")
            assert not name.startswith("on"), f"{tag} {name}"


def test_html_report_loads_nothing_and_runs_no_script(out: Path) -> None:
    text = (out / "report.html").read_text("utf-8")
    report_page = Page()
    report_page.feed(text)
    assert report_page.fetched == []
    assert not report_page.tags & {"script", "img", "iframe", "link", "object", "embed", "form", "base"}
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text, "the failed item can't be read"
    assert text.count("<svg") >= 8


def test_html_report_has_the_results(out: Path) -> None:
    text = (out / "report.html").read_text("utf-8")
    for words in (
        "Recommended: qwen-cn.",
        "The candidates are simulated",
        "Goodput against offered load",
        "TC260-003",
        "qwen-cn is better than ernie-cn",
        "a1-a: 煽动颠覆国家政权",
        "its approval for region &#39;cn&#39; ended on 2026-01-31",
        "-      cn: [ernie-cn, qwen-cn]",
    ):
        assert words in text, words
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "two drawings share an id"


def test_markdown_report_escapes_untrusted_text(out: Path) -> None:
    text = (out / "report.md").read_text("utf-8")
    assert "<script>" not in text
    assert "<img" not in text
    assert "## Recommendation" in text
    assert "```diff" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) >= 3


@pytest.mark.slow("runs an evaluation")
def test_finished_run_repeats_its_report_without_questions(gateway: Command, folder: Path, out: Path) -> None:
    before = report_of(out)
    shown = gateway(*arguments(folder))
    assert shown.status == 0
    again = report_of(out)
    assert {**before, "at": ""} == {**again, "at": ""}
    assert "qwen-cn is better than ernie-cn" in shown.out


@pytest.mark.slow("runs an evaluation")
def test_new_requirements_apply_to_a_finished_run(gateway: Command, folder: Path, out: Path, tmp_path: Path) -> None:
    suite = folder / "suite.yaml"
    try:
        suite.write_text(edited(SUITE, ("performance: 50%", "performance: 100%")), "utf-8")
        shown = gateway(*arguments(folder))
        assert shown.status == 1
        assert "No candidate is recommended." in shown.out
        assert report_of(out)["recommendation"]["route"] == ["ernie-cn", "qwen-cn"]
        assert not (out / "gateway.yaml").exists()
    finally:
        suite.write_text(SUITE, "utf-8")
        assert gateway(*arguments(folder)).status == 0


def worsened(out: Path, tmp_path: Path) -> Path:
    report = report_of(out)
    found = report["candidates"]["qwen-cn"]
    for item in list(found["scores"]["performance"])[:20]:
        found["scores"]["performance"][item] = 0.0
    found["load"]["goodput"] = {"value": 1, "low": 0.5, "high": 2, "of": 2}
    path = tmp_path / "worse.json"
    path.write_text(json.dumps(report), "utf-8")
    return path


def test_compare_reports_changes_between_two_runs(gateway: Command, out: Path, tmp_path: Path) -> None:
    same = gateway("evaluate", "--compare", out, out)
    assert same.status == 0
    assert re.fullmatch(r"(\d+) of \1 figures show no measurable difference\.\n", same.out)
    worse = gateway("evaluate", "--compare", out, worsened(out, tmp_path))
    assert worse.status == 1
    assert re.search(r"^worse: qwen-cn, performance: 0\.\d+ before, 0\.\d+ now \(p = ", worse.out, re.MULTILINE)
    assert "worse: qwen-cn, goodput" in worse.out
    better = gateway("evaluate", "--compare", worsened(out, tmp_path), out)
    assert better.status == 0
    assert "better: qwen-cn, performance" in better.out


@cases("changed", "message")
def test_evaluate_rejects_unusable_options(gateway: Command, folder: Path, changed: list[str], message: str) -> None:
    shown: Outcome = gateway(*arguments(folder, "--out", "none"), *changed)
    assert shown.status == 2
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_compare_rejects_files_that_are_not_reports(gateway: Command, tmp_path: Path, out: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    for other, message in ((tmp_path / "x.json", "is not a report"), (tmp_path, "can't be read")):
        shown = gateway("evaluate", "--compare", out, other)
        assert shown.status == 2
        assert message in shown.err


def test_simulated_suite_is_rejected_for_a_real_config(
    gateway: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "sk")
    config = folder / "real.yaml"
    config.write_text(
        "version: 1\nassistants: {a: {routes: {cn: [x]}}}\nregions: {cn: {territories: [CN], boundary: [CN]}}\n"
        "deployments: {x: {provider: openai-compatible, model: m, endpoint: 'https://x.example/v1', stores: CN, "
        'processes: CN, available: ["*"], api_key: "${KEY}"}}\n'
    )
    shown = gateway(*arguments(folder, "--out", "none", "--config", str(config), "--candidates", "x"))
    assert shown.status == 2
    assert "describes simulated candidates" in shown.err


def test_missing_extra_is_named_with_its_install_command(
    gateway: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("evaluation.")]:
        # The package has its modules as attributes, too. Both are put back afterwards.
        package, _, attribute = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], attribute, sys.modules[name])
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    shown = gateway(*arguments(folder, "--out", "none"))
    assert shown.status == 2
    assert "evaluations need scipy: pip install jsonschema numpy rich scipy" in shown.err
