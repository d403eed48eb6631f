"""Compiles a config in a process of its own, so that the one that serves never waits for it.

In a thread, a compile would take the interpreter's lock from running requests over and over, and leave its garbage to
their collector. The child (`compiling`) reads an order from its standard input and writes what came of it to its
standard output.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.changes.compile_job import CompileJob, Outcome
from gateway.changes.compile_process import Child


class Compiler:
    """Compiles again and again, each time in a child of its own, which may have been started before it is needed: most
    of the time that a compile takes goes into that."""

    def __init__(self) -> None:
        self._waiting: Child | None = None

    async def compile(self, order: CompileJob) -> Outcome:
        """The outcome of a compile in a child process; raises CompileFailed."""
        child, self._waiting = self._waiting or Child(), None
        # In a thread: the loop itself would wait until the child has come up as far as to its own program.
        run = asyncio.get_running_loop().run_in_executor(None, child.run, order)
        try:
            # Where nobody waits any more the thread still runs, if it hadn't begun too: it sees the child end.
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            child.kill()
            run.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise

    async def prepare(self, *, is_wanted: bool) -> None:
        """Have a child waiting, or none."""
        if not is_wanted:
            child, self._waiting = self._waiting, None
            if child is not None:
                await asyncio.to_thread(child.discard)
        elif self._waiting is None:
            self._waiting = Child()
            await asyncio.to_thread(self._waiting.prepare)


class Compiling:
    """A compile that goes on in a child while its parent, which isn't serving yet, gets ready.

    child: one that has been begun already.
    """

    def __init__(self, order: CompileJob, child: Child | None = None) -> None:
        self._child = child or Child()
        self._thread = ThreadPoolExecutor(1)
        self._outcome = self._thread.submit(self._child.run, order)

    def outcome(self) -> Outcome:
        """What came of it, waited for; raises CompileFailed."""
        try:
            return self._outcome.result()
        finally:
            self._child.kill()
            self._thread.shutdown()
