"""Start, use and end the child process that compiles a configuration (`gateway.changes.compile_job`).

This module imports almost nothing, so that a starting gateway can begin the child process first.
"""

from __future__ import annotations

import pickle
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.child_process import child_command, child_environment
from gateway.undo import undone_on_failure

if TYPE_CHECKING:
    from gateway.changes.compile_job import CompileJob, Outcome


_LIMIT_S = 60.0


class CompileFailed(Exception):
    """The child process returned no outcome. The message gives the reason."""


class Child:
    """One child process. Its methods block and are called from one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = True

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. The system may have killed one that waits, to make room."""
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Start the process before its job is known. A failure is reported by `run`."""
        with suppress(CompileFailed):
            self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process if it is not running. It imports its modules and waits for a job. Raises CompileFailed."""
        if self._process is None:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # a fixed command without any input
                    child_command("gateway.changes.compile_job"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # A traceback could quote the config, so only the exit status is reported.
                    stderr=subprocess.DEVNULL,
                    env=child_environment(),
                )
            except OSError as error:
                raise CompileFailed(f"no process can be started to compile it ({error.strerror})") from None
        if not self._is_wanted:  # `kill` may have been called before there was a process
            self._process.kill()
        return self._process

    def run(self, job: CompileJob) -> Outcome:
        """Send the job and wait for the outcome. Raises CompileFailed."""
        with self.start() as process:
            try:
                # Otherwise the end of this process would wait for an outcome that is not needed.
                with undone_on_failure(process.kill):
                    output, _ = process.communicate(pickle.dumps(job), _LIMIT_S)
            except subprocess.TimeoutExpired:
                raise CompileFailed(f"it took longer than {_LIMIT_S:g} s to compile") from None
        if process.returncode != 0:
            raise CompileFailed(f"the process that compiles it ended with status {process.returncode}")
        outcome: Outcome = pickle.loads(output)  # noqa: S301  # output by our child process to an unnamed pipe
        return outcome

    def kill(self) -> None:
        """Kill the process, now or as soon as it starts. `run` then raises."""
        self._is_wanted = False
        if self._process is not None:
            self._process.kill()

    def discard(self) -> None:
        """Kill the process if it runs, and wait for its end."""
        if self._process is not None:
            with self._process as process:
                process.kill()
