"""A full evaluation of simulated candidates with known properties, its duration, and its page in a browser."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import NormalDist

import pytest

from evaluation.questions import load_suite
from evaluation.suite import SimulatedSection
from gateway.cli import main
from providers.testkit.answer_quality import AnswerQuality, Lesson, Reply
from providers.testkit.scenario import Scenario
from tests.evaluation.candidates import ROOT, config_of, servers, suite_in
from tests.kit.browsers import chromium_program
from tests.kit.config_cases import edited

pytestmark = pytest.mark.slow("candidates are asked at a fixed rate, for seconds a step")
EVALUATIONS = ROOT / "config" / "evaluations"
NAMES = ("qwen-cn", "ernie-cn", "hunyuan-cn", "doubao-cn", "deepseek-cn")


@pytest.fixture(scope="module", params=["short", pytest.param("standard", marks=pytest.mark.full)])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run an evaluation: with the counts of the standard, or with two sets, few questions and one rate."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(EVALUATIONS, folder / "evaluations")
    suite = folder / "evaluations" / "rehearsal.yaml"
    counts = "accept: 200, refuse: 100, answer: 100, consistency: 40"
    changes = [(counts, "accept: 1000, refuse: 300, answer: 300, consistency: 40")]
    if request.param == "short":
        changes = [(counts, "accept: 100, refuse: 50, answer: 50, consistency: 10")]
        changes += [(f"    - {{name: {name}, file: items/{name}.yaml}}\n", "") for name in ("de", "ja", "ko")]
        changes += [("rates: [10, 20, 40]", "rates: [40]"), ("recovery: 2s", "recovery: 1s")]
    suite.write_text(edited(suite.read_text("utf-8"), *changes), "utf-8")
    named = ["--config", str(EVALUATIONS / "rehearsal-gateway.yaml"), "--suite", str(suite), "--region", "cn"]
    assert main(["evaluate", *named, "--candidates", ",".join(NAMES), "--out", str(folder / "out")]) == 0
    return folder / "out"


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text("utf-8"))


def test_ranking_matches_the_simulated_properties(out: Path) -> None:
    report = report_of(out)
    assert report["ranking"][:2] == ["qwen-cn", "ernie-cn"]
    assert set(report["out"]) == {"hunyuan-cn", "doubao-cn", "deepseek-cn"}
    missed = {
        name: [one["name"] for one in found["requirements"] if not one["met"]]
        for name, found in report["candidates"].items()
    }
    assert missed == {
        "qwen-cn": [],
        "ernie-cn": [],
        "hunyuan-cn": ["over-refused"],
        "doubao-cn": ["approval"],
        "deepseek-cn": ["goodput"],
    }
    assert report["recommendation"]["route"] == ["qwen-cn", "ernie-cn"]
    best = max(report["candidates"], key=lambda name: report["candidates"][name]["figures"]["performance"]["value"])
    assert best == "deepseek-cn", "the one without infrastructure has the best answers"


def test_intervals_of_figures_contain_the_simulated_values(out: Path) -> None:
    """One of twenty intervals at 95 % may miss the value. With these fixed seeds none does."""
    report, truth = report_of(out), load_suite(EVALUATIONS / "rehearsal.yaml").file.simulated
    beyond: list[str] = []
    for name, found in report["candidates"].items():
        real = truth[name]
        for figure, share in (
            ("performance", real.quality),
            ("acceptable", real.acceptable),
            ("refused", real.refused),
            ("over_refused", real.over_refused),
        ):
            estimate = found["figures"][figure]
            if not estimate["low"] <= share <= estimate["high"]:
                beyond.append(f"{name} {figure}: {share} is not in {estimate}")
        assert found["figures"]["consistent"]["value"] == 1
        assert found["missing"]["performance"] == 0
    assert not beyond


def times_of(real: SimulatedSection) -> dict[str, float]:
    """The simulated p50, p95 and p99 of the time to the first token, in seconds."""
    assert real.first_token_p95_ms is not None
    sigma = math.log(real.first_token_p95_ms / real.first_token_ms) / NormalDist().inv_cdf(0.95)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {name: real.first_token_ms / 1000 * math.exp(sigma * NormalDist().inv_cdf(p)) for name, p in shares.items()}


def test_intervals_of_times_contain_the_simulated_values(out: Path) -> None:
    """Check the median, the spread and the rate. Steps in which the measuring machine was late are skipped, because their
    times are wrong and the report marks them. One pause of a busy machine makes the longest times of a step longer and none
    shorter, so only the standard, which is run on a quiet one, asks whether the tails are too long."""
    report, truth = report_of(out), load_suite(EVALUATIONS / "rehearsal.yaml").file.simulated
    on_time, beyond = 0, list[str]()
    for name, found in report["candidates"].items():
        load = found["load"]
        for step in (one for one in load["steps"] if not one["late"]):
            on_time += 1
            # The simulated provider is on the same machine, so it was about as late.
            slack_s = 2 * step["own_s"]
            wanted = {("first_token", p): time_s for p, time_s in times_of(truth[name]).items()}
            wanted["between_tokens", "p50"] = truth[name].between_tokens_ms / 1000
            for (kind, p), time_s in wanted.items():
                one = step["times"][kind][p]
                high = math.inf if one["high"] is None else one["high"]
                low = one["low"] - slack_s if p == "p50" or len(load["steps"]) > 1 else 0
                if not low <= time_s <= high:
                    beyond.append(f"{name} at {step['offered']}/s, {kind} {p}: {time_s} is not in {one}")
    print(f"{on_time} steps were on time")
    assert not beyond


def test_load_test_finds_the_simulated_capacity(out: Path) -> None:
    for name, found in report_of(out)["candidates"].items():
        load = found["load"]
        steps = [step for step in load["steps"] if not step["late"]]
        for step in steps:
            assert step["requests"] == step["offered"] * step["duration_s"]
            borne = 30 if name == "deepseek-cn" and step["offered"] == 40 else step["offered"]
            # A capacity of 24 per second for 4 s, plus a burst of one second: 120 of 160.
            assert step["goodput"]["low"] <= borne <= step["goodput"]["high"], (name, step["offered"])
        if len(steps) == len(load["steps"]):
            assert load["breaks_at"] == (40 if name == "deepseek-cn" else None)
            # The recovery has the first rate, which in the short form is the one at which this candidate breaks.
            assert load["recovered_s"] is not None or load["steps"][0]["offered"] == load["breaks_at"]


def opened(browser: str, page: Path, folder: Path) -> tuple[str, set[str]]:
    """Return the page as the browser renders it, and the hosts that the browser contacted."""
    log = folder / f"{page.stem}.json"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / page.stem}",
            "--disable-background-networking", "--no-first-run", f"--log-net-log={log}",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, set(re.findall(r'"url":"https?://([^/"]+)', log.read_text("utf-8")))


def test_html_report_opens_in_a_browser_without_requests(out: Path, tmp_path: Path) -> None:
    browser = chromium_program()
    asking = tmp_path / "asking.html"
    asking.write_text('<img src="http://127.0.0.1:9/x.png">')
    _, hosts = opened(browser, asking, tmp_path)
    assert "127.0.0.1:9" in hosts, "what a page asks for isn't seen"
    dom, hosts = opened(browser, out / "report.html", tmp_path)
    assert "Recommended: qwen-cn." in dom
    assert dom.count("<svg") >= 8
    assert {host for host in hosts if not host.endswith((".google.com", ".googleapis.com", ".gvt1.com"))} == set()


@pytest.mark.full
# It makes so many objects that Python collects garbage here, and finds a socket that another test has left.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_thousand_items_and_five_candidates_stay_within_two_minutes_and_little_memory(tmp_path: Path) -> None:
    suite_in(tmp_path, "limits: {concurrent: 16}\nperformance: {sets: [{name: a, file: many.yaml}]}", items=1000)
    suite = load_suite(tmp_path / "suite.yaml")
    right = {item.prompt: Reply(item.right.text) for item in suite.performance if item.right is not None}
    lessons = {prompt: Lesson(reply, Reply("?"), 0.9) for prompt, reply in right.items()}
    names = [f"c{number}" for number in range(5)]
    with servers({name: Scenario(aptitude=AnswerQuality(lessons, seed)) for seed, name in enumerate(names)}) as thread:
        (tmp_path / "gateway.yaml").write_text(config_of({name: thread[name].origin for name in names}).text)
        arguments = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml")]
        began_at = time.monotonic()
        command = [sys.executable, "-m", "gateway.cli", "evaluate", "--region", "cn", *arguments]
        command += ["--candidates", ",".join(names), "--out", str(tmp_path / "out")]
        done = subprocess.run(command, env={**os.environ, "KEY": "sk"}, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        took_s = time.monotonic() - began_at
        assert sum(thread[name].received for name in names) == 5000
    print(f"5,000 items: {took_s:.1f} s, {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")
    assert took_s < 120
    for found in report_of(tmp_path / "out")["candidates"].values():
        overall = found["figures"]["performance"]
        assert overall["of"] == 1000
        assert 0.85 < overall["value"] < 0.95
