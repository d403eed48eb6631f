"""What a newcomer reads first, and how long it takes to appear."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__, cli
from gateway.commands import keys
from gateway.settings import Settings
from tests.cli.conftest import Command

COMMANDS = (
    "serve demo simulate init check explain plan history diff rollback audit receipt schema key providers evaluate"
).split()
HEAVY = {
    "fastapi",
    "starlette",
    "httpx",
    "pydantic",
    "pydantic_core",
    "yaml",
    "uvicorn",
    "orjson",
    "structlog",
    "asyncio",
    "jinja2",
    "jsonschema",
    "matplotlib",
    "numpy",
    "rich",
    "scipy",
}


def test_help_lists_every_command_and_where_to_begin(gateway: Command) -> None:
    shown = gateway("--help")
    assert (shown.status, shown.err) == (0, "")
    listed = [line.split()[0] for line in shown.out.splitlines() if line.startswith("    ")]
    assert listed[-len(COMMANDS) :] == COMMANDS
    assert "gateway demo " in shown.out
    assert set(re.findall(r"GATEWAY_\w+", shown.out)) == {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    "arguments",
    [*([name] for name in COMMANDS), ["key", "new"], *(["providers", name] for name in ("list", "check", "new"))],
    ids=" ".join,
)
def test_each_command_says_in_a_sentence_what_it_does(gateway: Command, arguments: list[str]) -> None:
    shown = gateway(*arguments, "--help")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith(f"usage: gateway {' '.join(arguments)}")
    assert shown.out.split("\n\n")[1].rstrip()[-1] in ".`", "there is no sentence"


@pytest.mark.parametrize("arguments", [[], ["key"]], ids=["nothing", "key"])
def test_an_unfinished_command_shows_the_help(gateway: Command, arguments: list[str]) -> None:
    shown = gateway(*arguments)
    assert (shown.status, shown.out) == (2, "")
    assert "commands:" in shown.err


def test_an_unknown_command_is_told_the_known_ones(gateway: Command) -> None:
    shown = gateway("frobnicate")
    assert shown.status == 2
    for name in COMMANDS:
        assert f"'{name}'" in shown.err


def test_the_package_is_the_command_too() -> None:
    """Where an environment is not activated, `python -m` is what people try."""
    shown = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout.split()[-1], shown.stderr) == (0, __version__, "")


def test_the_version(gateway: Command) -> None:
    assert gateway("--version").out == f"gateway {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gateway.cli", "--help"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"gateway --help: {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.3f} s of CPU")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert not loaded & HEAVY


def test_ctrl_c_is_no_traceback(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(keys, "new", interrupted)
    shown = gateway("key", "new")
    assert (shown.status, shown.err) == (130, "")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", cli.__name__, "schema"]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_one_line() -> None:
    command = [sys.executable, "-m", cli.__name__, "schema"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    told = "gateway: the disk is full: not all was written; make room, and run it again\n"
    assert (done.returncode, done.stderr) == (2, told)
