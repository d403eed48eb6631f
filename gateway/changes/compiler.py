"""Compile a configuration in a child process, so that serving is not delayed.

A compile in a thread would compete with requests for the interpreter lock and leave garbage for their collector. The
child (`gateway.changes.compile_job`) reads a job from its standard input and writes the outcome to its standard output.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.changes.compile_job import CompileJob, Outcome
from gateway.changes.compile_process import Child


class Compiler:
    """Compiles configurations, each in a new child process, which can be started before it is needed.

    A child that waits has 40 MB of its own, of which no request and no other compile uses a byte.
    """

    def __init__(self) -> None:
        self._waiting: Child | None = None

    async def compile(self, job: CompileJob) -> Outcome:
        """Compile in a child process and return the outcome. Raises CompileFailed."""
        waiting, self._waiting = self._waiting, None
        child = waiting if waiting is not None and waiting.is_alive else Child()
        # Run in a thread: starting a process would block the event loop.
        run = asyncio.get_running_loop().run_in_executor(None, child.run, job)
        try:
            # If the caller is cancelled, the thread still runs and waits for the end of the child.
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            child.kill()
            run.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise

    async def prepare(self, *, is_wanted: bool) -> None:
        """Start a child in advance, or end the one that was started."""
        if not is_wanted:
            child, self._waiting = self._waiting, None
            if child is not None:
                await asyncio.to_thread(child.discard)
        elif self._waiting is None:
            self._waiting = Child()
            await asyncio.to_thread(self._waiting.prepare)


class Compiling:
    """A compile in a child process, which may run already, while its parent, which does not serve yet, gets ready."""

    def __init__(self, job: CompileJob, child: Child | None = None) -> None:
        self._child = child or Child()
        self._thread = ThreadPoolExecutor(1)
        self._outcome = self._thread.submit(self._child.run, job)

    def outcome(self) -> Outcome:
        """Wait for the outcome and return it. Raises CompileFailed."""
        try:
            return self._outcome.result()
        finally:
            self._child.kill()
            self._thread.shutdown()
