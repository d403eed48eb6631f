"""The help texts, and what the command imports for them."""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import __version__
from gateway.cli import keys
from gateway.cli.arguments import command_parser
from gateway.release import release_name
from gateway.settings import Settings
from tests.cli.conftest import ROOT, Command

COMMANDS = (
    "help serve demo simulate init check explain plan history diff status doctor redact network-policy restart reload deployments schedules instances drain backup restore rollback usage duties db audit "
    "evidence receipt marks schema key keys clients projects budgets subject admin-token secrets providers evaluate quotas"
).split()
HEAVY = {
    *(
        "fastapi starlette httpx pydantic pydantic_core yaml uvicorn orjson structlog asyncio jinja2 jsonschema "
        "numpy rich scipy"
    ).split()
}


TOPICS = "begin change look keys prove providers".split()


def test_first_screen_has_forty_lines_with_every_command_once_and_where_to_begin(gateway: Command) -> None:
    shown = gateway("--help")
    assert (shown.status, shown.err) == (0, "")
    assert len(shown.out.splitlines()) <= 40
    rows = [line[2:32].strip() for line in shown.out.splitlines() if re.match(r"  \w", line)]
    listed = [name for row in rows for name in row.split(", ")]
    assert sorted(listed) == sorted({*COMMANDS} - {"help"})
    assert "gateway demo" in shown.out
    assert gateway("help").out == shown.out


def test_each_topic_shows_its_commands_and_those_below_them(gateway: Command) -> None:
    names = {name for name in commands_below(command_parser()) if name not in ("", "help")}
    shown = [line for topic in TOPICS for line in gateway("help", topic).out.splitlines()]
    listed = [found[1] for line in shown if (found := re.match(r"  (\w[\w-]*(?: [\w-]+)*)  ", line))]
    assert sorted(listed) == sorted(names)
    assert max(map(len, shown)) <= 80


def commands_below(parser: argparse.ArgumentParser, name: str = "") -> Iterator[str]:
    yield name
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from commands_below(below, f"{name} {word}".strip())


def test_help_of_settings_names_every_environment_variable(gateway: Command) -> None:
    shown = gateway("help", "settings").out
    assert set(re.findall(r"GATEWAY_\w+", shown)) == {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}
    assert "Exit status" in shown


def test_help_of_a_command_is_that_of_its_option(gateway: Command) -> None:
    assert gateway("help", "keys", "create").out == gateway("keys", "create", "--help").out
    assert gateway("help", "money").out == gateway("help", "keys").out
    shown = gateway("help", "frobnicate")
    assert (shown.status, "the topics are: begin, change" in shown.err) == (2, True)


def test_help_fits_a_terminal_of_eighty_columns(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ([], *([name] for name in COMMANDS)):
        assert max(map(len, gateway(*arguments, "--help").out.splitlines())) <= 80, arguments


@pytest.mark.parametrize(
    "arguments",
    [*([name] for name in COMMANDS), ["key", "new"], *(["providers", name] for name in ("list", "check", "new"))],
    ids=" ".join,
)
def test_help_of_each_command_has_a_sentence(gateway: Command, arguments: list[str]) -> None:
    shown = gateway(*arguments, "--help")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith(f"usage: gateway {' '.join(arguments)}")
    assert shown.out.split("\n\n")[1].rstrip()[-1] in ".`", "there is no sentence"


@pytest.mark.parametrize("arguments", [[], ["key"]], ids=["nothing", "key"])
def test_incomplete_command_shows_the_help(gateway: Command, arguments: list[str]) -> None:
    shown = gateway(*arguments)
    assert (shown.status, shown.out) == (2, "")
    assert "usage: gateway" in shown.err
    assert "new " in shown.err or "begin:" in shown.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["chek"], "check"), (["keys", "creat"], "create"), (["db", "upgrad"], "upgrade"), (["audit", "verfy"], "verify")],
)
def test_misspelt_command_gets_the_nearest_one(gateway: Command, words: list[str], meant: str) -> None:
    shown = gateway(*words)
    assert shown.status == 2
    assert shown.err.splitlines()[-1].endswith(f"there is no command '{words[-1]}'; did you mean {meant}?")


def test_unknown_argument_gets_the_usage_of_its_command(gateway: Command) -> None:
    shown = gateway("check", "--admin", "http://127.0.0.1:8081")
    assert (shown.status, shown.err.startswith("usage: gateway check ")) == (2, True)
    assert "unknown argument: --admin" in shown.err


def test_unknown_command_lists_the_known_ones(gateway: Command) -> None:
    shown = gateway("frobnicate")
    assert shown.status == 2
    for name in COMMANDS:
        assert f"'{name}'" in shown.err


def test_package_can_be_run_as_a_module() -> None:
    """`python -m gateway` works without an activated environment."""
    shown = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"gateway {release_name()}\n", "")


def test_version_is_printed(gateway: Command) -> None:
    assert gateway("--version").out == f"gateway {release_name()}\n"
    assert release_name().split()[0] == __version__


def test_help_loads_no_large_library() -> None:
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


def test_ctrl_c_prints_no_traceback(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(keys, "new", interrupted)
    shown = gateway("key", "new")
    assert (shown.status, shown.err) == (130, "")


def test_closed_pipe_is_not_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "gateway.cli", "schema"]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_full_disk_prints_one_line() -> None:
    command = [sys.executable, "-m", "gateway.cli", "schema"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    message = "gateway: the disk is full and the output is incomplete; free some space and run the command again\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_output_is_utf_8_with_any_locale() -> None:
    command = [sys.executable, "-m", "gateway.cli", "schema"]
    narrow = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=narrow, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (ROOT / "config" / "gateway.schema.json").read_bytes()


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&-"])
def test_closed_standard_output_is_not_replaced_by_an_opened_file(closed: str) -> None:
    line = f'"{sys.executable}" -m gateway.cli key new --ed25519 "$0" {closed}'
    done = subprocess.run(["/bin/sh", "-c", line, "key.pem"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("key.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert Path("key.pem").read_text().endswith("-----END PRIVATE KEY-----\n")


@pytest.mark.parametrize("name", ["", "/"])
def test_key_pair_needs_a_file_name(gateway: Command, name: str) -> None:
    shown = gateway("key", "new", "--ed25519", name)
    assert (shown.status, shown.out) == (2, "")
    assert "is not a file name" in shown.err
