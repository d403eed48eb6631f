"""Run Python code in a process of its own, and kill it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        assert process.stdout is not None
        process.stdout.close()
