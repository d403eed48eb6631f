"""A run that is killed and resumed loses no answer and repeats no answered question."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from gateway.cli import main
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.evaluation.candidates import config_of, servers, suite_in

ITEMS, CONCURRENT, LIMIT_S = 120, 4, 240
NAMES = ("one", "two")


def prompts(thread: SimulatorThread) -> Counter[tuple[str, str]]:
    """Return how often each candidate was asked each question."""
    return Counter(
        (name, json.loads(request.body)["messages"][-1]["content"])
        for name in NAMES
        for request in thread[name].requests
    )


@pytest.mark.slow("two runs of an evaluation")
def test_killed_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers({name: Scenario(latency_s=0.005, text="x") for name in NAMES}) as thread:
        config, out = tmp_path / "gateway.yaml", tmp_path / "out"
        config.write_text(config_of({name: thread[name].origin for name in NAMES}).text)
        text = f"limits: {{concurrent: {CONCURRENT}}}\nperformance: {{sets: [{{name: a, file: many.yaml}}]}}"
        suite = suite_in(tmp_path, text, items=ITEMS)
        command = [sys.executable, "-m", "gateway.cli", "evaluate", "--config", str(config), "--region", "cn"]
        command += ["--suite", str(tmp_path / "suite.yaml"), "--candidates", ",".join(NAMES), "--out", str(out)]
        environ = {**os.environ, "KEY": "sk-test"}

        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        ends_at = time.monotonic() + LIMIT_S
        while thread["one"].received < ITEMS / 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < ends_at, "it never asks"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()

        database = sqlite3.connect(out / "run.db")
        kept = set(database.execute("SELECT candidate, item FROM answer WHERE answered").fetchall())
        database.close()
        before = prompts(thread)
        assert 0 < len(kept) < 2 * ITEMS, "it was not killed in the middle"

        monkeypatch.setenv("KEY", "sk-test")
        assert main(command[3:]) == 0
        after = prompts(thread)
        prompt_of = {item.id: item.prompt for item in suite.performance}
        assert set(after) == {(name, prompt) for name in NAMES for prompt in prompt_of.values()}, "some were lost"
        again = {question for question in after if after[question] > before[question] > 0}
        assert not again & {(name, prompt_of[item]) for name, item in kept}, "what was answered was asked again"
        # Only questions that were open when the process died are asked twice, because their answers were lost.
        assert len(again) <= CONCURRENT * len(NAMES)
        report = json.loads((out / "report.json").read_text("utf-8"))
        assert {name: len(report["candidates"][name]["scores"]["performance"]) for name in NAMES} == dict.fromkeys(
            NAMES, ITEMS
        )

        asked = thread["one"].received
        assert main(command[3:]) == 0
        assert thread["one"].received == asked, "a finished run asks nothing"
