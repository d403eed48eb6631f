"""The child process that compiles a config (`compiling`): begun before its order, or with it, and always ended.

It imports next to nothing, so that the first thing that a starting gateway does can be to begin one.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.changes.compile_job import CompileJob, Outcome


_LIMIT_S = 60.0


class CompileFailed(Exception):
    """The child gave no outcome; the message says why."""


class Child:
    """One, talked to in a thread, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = True

    def prepare(self) -> None:
        """Begin ahead of the order, if that can be."""
        with suppress(CompileFailed):
            self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Begin, if it hasn't begun: it gets ready, and waits for its order. Raises CompileFailed."""
        if self._process is None:
            self._process = _started()
        if not self._is_wanted:  # whoever said so may have found no process yet
            self._process.kill()
        return self._process

    def run(self, order: CompileJob) -> Outcome:
        """To the child's end; raises CompileFailed."""
        with self.start() as process:
            try:
                written, _ = process.communicate(pickle.dumps(order), _LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise CompileFailed(f"it took longer than {_LIMIT_S:g} s to compile") from None
            except BaseException:
                process.kill()  # or who was told to end would wait for what nobody needs any more
                raise
        if process.returncode != 0:
            raise CompileFailed(f"the process that compiles it ended with status {process.returncode}")
        outcome: Outcome = pickle.loads(written)  # noqa: S301  # our own child wrote it, to a pipe without a name
        return outcome

    def kill(self) -> None:
        """End it, now or as soon as it begins; `run` sees it end."""
        self._is_wanted = False
        if self._process is not None:
            self._process.kill()

    def discard(self) -> None:
        """End it, if it runs, and see it end."""
        if self._process is not None:
            with self._process as process:
                process.kill()


def _started() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # our own program, no word of it from outside
            [sys.executable, "-P", "-m", "gateway.changes.compile_job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A traceback could hold what is in the config; the exit status has to do.
            stderr=subprocess.DEVNULL,
            env=our_environment(),
        )
    except OSError as error:
        raise CompileFailed(f"no process can be started to compile it ({error.strerror})") from None


def our_environment() -> dict[str, str]:
    """A child imports from where its parent does, and never from the directory that it happens to be in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
