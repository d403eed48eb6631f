"""Run Python code in a process of its own, and kill it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITER = """
import sys
from datetime import UTC
from pathlib import Path
from gateway.usage.ledger_writer import LedgerRules, LedgerWriter

writer = LedgerWriter(Path(sys.argv[1]), lambda: LedgerRules(UTC), print)
print("begins", flush=True)
while True:
    writer.move()
"""
"""A process that moves the rows of a state directory into its ledger, again and again."""


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str]) -> None:
    """Let a process go on that waits for a line."""
    process.stdin.write("\n")
    process.stdin.flush()


@contextmanager
def killed_at_the_end(code: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process, and kill it when the block ends."""
    # A small pipe: the worker soon waits until its answers are read.
    command = [sys.executable, "-c", code, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pipesize=4096)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
