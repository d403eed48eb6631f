"""Named pipes as arguments: a pipe without a writer blocks no command, and a pipe with a writer is read.

The shell makes such pipes for `<(command)`."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.signing import RECEIPT_KIND, Signer, new_key
from gateway.state.audit import Audit
from gateway.state.history import BEGINNING, open_history
from tests.cli.conftest import ROOT, Command
from tests.kit.configs import Config

DEMO = ROOT / "config" / "gateway.yaml"
LIMIT_S = 120


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """A process that waits for a pipe can only be killed."""

    def waits(*_: object) -> NoReturn:
        raise AssertionError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe() -> Path:
    os.mkfifo("pipe")
    return Path("pipe")


@pytest.fixture
def key() -> str:
    """Write a key pair to key.pem and key.pem.pub. Return the public key."""
    pem, public = new_key()
    Path("key.pem").write_bytes(pem)
    Path("key.pem").chmod(0o600)
    Path("key.pem.pub").write_text(public.text)
    return public.text


@pytest.fixture
def state() -> Path:
    """Create a state directory with an empty history."""
    history = open_history(Path("state"))
    history.close()
    Audit(Path("state"), BEGINNING).close()
    return Path("state")


GIVEN = [
    ("check", "pipe"),
    ("plan", "pipe"),
    ("plan", DEMO, "--from", "pipe", "--no-secrets"),
    ("diff", "pipe", DEMO),
    ("explain", "--config", "pipe"),
    ("receipt", "verify", "pipe", "--key", "key.pem.pub"),
    ("receipt", "verify", "receipt", "--key", "pipe"),
    ("rollback", "--state", "state", "--signature", "pipe"),
    ("plan", "two.yaml", "--from", DEMO, "--no-secrets", "--sign", "pipe"),
    ("evaluate", "--compare", "pipe", "pipe"),
    ("evaluate", "--config", "pipe", "--region", "cn", "--candidates", "qwen-cn", "--out", "out", "--dry-run"),
    (
        *("evaluate", "--config", DEMO, "--region", "cn", "--candidates", "qwen-cn", "--out", "out", "--dry-run"),
        *("--suite", "pipe"),
    ),
]


@pytest.mark.parametrize("words", GIVEN, ids=lambda words: " ".join(map(str, words[:3])))
def test_no_command_waits_for_a_pipe_without_a_writer(
    gateway: Command, pipe: Path, key: str, state: Path, words: tuple[str | Path, ...]
) -> None:
    Config.parse(DEMO.read_text("utf-8")).merge("receipts: {keep: 2h}").write(Path(), "two.yaml")
    Path("receipt").write_text("a.b.c")
    shown = gateway(*words)
    assert shown.status in (1, 2)
    assert "pipe" in shown.err + shown.out
    assert "no process writes to this pipe" in shown.err + shown.out or "it is not a regular file" in shown.err


@pytest.mark.parametrize("name", ["audit.jsonl", "history.db"])
@pytest.mark.parametrize("words", [("audit", "verify"), ("history",), ("rollback",), ("plan", DEMO, "--no-secrets")])
def test_no_command_waits_for_a_pipe_in_the_state_directory(
    gateway: Command, state: Path, name: str, words: tuple[str | Path, ...]
) -> None:
    (state / name).unlink()
    os.mkfifo(state / name)
    shown = gateway(*words, "--state", state)
    if (name, words[0]) in (("history.db", words[0]), ("audit.jsonl", "audit"), ("audit.jsonl", "rollback")):
        assert (shown.status, f"state/{name} can't be" in shown.err) == (2, True)


def test_pipe_with_a_writer_is_read(gateway: Command, key: str) -> None:
    """The pipe is like that of `gateway receipt verify <(curl …) --key …`."""
    jws = Signer.read(Path("key.pem")).sign(RECEIPT_KIND, {"id": "req_1"})
    answer = json.dumps({"receipt": {"id": "req_1"}, "jws": jws}).encode()
    for data, words in (
        (answer, ("receipt", "verify", "PIPE", "--key", key)),
        (DEMO.read_bytes(), ("check", "--no-secrets", "PIPE")),
        (DEMO.read_bytes(), ("diff", "PIPE", DEMO)),
    ):
        reader, writer = os.pipe()

        def write(writer: int = writer, data: bytes = data) -> None:
            with open(writer, "wb", buffering=0) as file:
                for at in range(0, len(data), 1024):
                    file.write(data[at : at + 1024])

        thread = threading.Thread(target=write)
        thread.start()
        shown = gateway(*(f"/dev/fd/{reader}" if word == "PIPE" else word for word in words))
        thread.join()
        os.close(reader)
        assert shown.status == 0, shown.err
