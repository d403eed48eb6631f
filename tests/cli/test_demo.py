"""`gateway demo`: the first screen that a newcomer sees, and what can be done with it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from providers.simulator import registry
from providers.simulator.registry import Dialects, load_dialects
from tests.cli.conftest import ROOT, Command, Running

Start = Callable[..., Running]
COLUMNS = ["from", "region", "why", "deployment", "provider", "answer", "ms"]


@pytest.fixture
def demo(start: Start) -> Running:
    running = start("demo", "--port", "0")
    running.wait_for("Ctrl-C")
    return running


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def test_three_places_are_answered_in_a_table(demo: Running) -> None:
    lines = demo.out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("from "))
    assert lines[head].split() == COLUMNS
    rules = [len(rule) for rule in lines[head + 1].split()]
    rows = [re.split(r"  +", line) for line in lines[head + 2 : head + 5]]
    assert [row[:5] for row in rows] == [
        ["China", "cn", "edge_header", "qwen-cn", "dashscope"],
        ["Germany", "eu", "edge_header", "chatgpt-eu", "openai"],
        ["United States", "us", "edge_header", "chatgpt-us", "openai"],
    ]
    for row in rows:
        assert float(row[6]) > 0
        assert all(width(cell) <= rule for cell, rule in zip(row, rules, strict=True))
    assert rows[0][5].startswith("你好")
    assert max(map(width, lines)) <= 110
    assert demo.err == ""


def test_the_lines_to_paste_work_when_pasted(demo: Running) -> None:
    ask, why, operate = re.findall(r"(curl (?:.*\\\n)*.*)", demo.out)
    environ = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(["sh", "-c", ask], env=environ, capture_output=True, text=True, check=True)
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "x-gateway-deployment: qwen-cn" in head.splitlines()
    assert json.loads(body)["choices"][0]["message"]["content"]
    done = subprocess.run(["sh", "-c", why], env=environ, capture_output=True, text=True, check=True)
    assert [step["deployment"] for step in json.loads(done.stdout)["outcome"]["plan"]] == ["qwen-intl"]
    done = subprocess.run(["sh", "-c", operate], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "ready"
    documentation = re.search(r"http\S+/docs", demo.out)
    assert documentation
    page = subprocess.run(["curl", "-sS", documentation[0]], env=environ, capture_output=True, text=True, check=True)
    assert "Assistant gateway" in page.stdout
    # What the page would send works as it is: the country header stands there, filled in.
    url = documentation[0].replace("/docs", "/openapi.json")
    document = subprocess.run(["curl", "-sS", url], env=environ, capture_output=True, text=True, check=True)
    operation = json.loads(document.stdout)["paths"]["/v1/chat/completions"]["post"]
    [place] = [one for one in operation["parameters"] if one["name"] == "cf-ipcountry"]
    assert place["schema"]["default"] == "DE"
    assert shlex.split(ask)[0] == "curl"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_it_ends_quietly(demo: Running, number: int) -> None:
    ended = demo.end(number)
    assert ended.status == 0
    assert ended.err == ""
    assert ended.out.rstrip().endswith("Ctrl-C")


def test_requests_are_logged_below(demo: Running) -> None:
    url = demo.wait_for(r"listens on (\S+)\.")[1]
    subprocess.run(
        ["curl", "-sS", "--noproxy", "*", f"{url}/v1/chat/completions", "-d", "{}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    demo.wait_for('"event":"request"')
    line = json.loads(demo.err.splitlines()[-1])
    assert (line["outcome"], line["code"]) == ("refused", "region_unknown")


def test_a_real_deployment_has_no_place_in_a_demo(gateway: Command) -> None:
    shown = gateway("demo", "--config", ROOT / "config" / "gateway.yaml", "--port", "0")
    assert (shown.status, shown.out) == (1, "")
    assert "in demo mode every deployment is a simulator" in shown.err


def test_a_simulator_that_does_not_load_is_named(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_dialects()
    others = {name: dialect for name, dialect in found.dialects.items() if name != "gemini"}
    broken = Dialects(others, {"gemini": "gemini:DIALECT: ImportError: no module named 'acme_sdk'"})
    monkeypatch.setattr(registry, "load_dialects", lambda: broken)
    told = "gateway: the simulator of 'gemini' doesn't load: " + broken.broken["gemini"] + "\n"
    shown = gateway("demo", "--port", "0")
    assert (shown.status, shown.out, shown.err) == (2, "", told)
    checked = gateway("check", ROOT / "config" / "demo.yaml")
    assert (checked.status, checked.err) == (1, told), "who checks it hears of it before"


def test_a_missing_demo_config_is_one_line(gateway: Command) -> None:
    shown = gateway("demo", "--config", Path("nothing.yaml"))
    assert shown.status == 2
    assert shown.err.startswith("gateway: there is no config at nothing.yaml")
