"""Compiles a config in a process of its own, so that the one that serves never waits for it.

In a thread, a compile would take the interpreter's lock from running requests over and over, and leave its garbage to
their collector. The child (`compiling`) reads an order from its standard input and writes what came of it to its
standard output.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from gateway.live.compiling import Order, Outcome

__all__ = ["CompileFailed", "Compiler", "Compiling", "compile_apart", "our_environment"]

_LIMIT_S = 60.0


class CompileFailed(Exception):
    """The child gave no outcome; the message says why."""


async def compile_apart(order: Order) -> Outcome:
    """The outcome of a compile in a child process; raises CompileFailed."""
    return await Compiler().compile(order)


class Compiler:
    """Compiles again and again, each time in a child of its own, which may have been started before it is needed: most
    of the time that a compile takes goes into that."""

    def __init__(self) -> None:
        self._waiting: _Child | None = None

    async def compile(self, order: Order) -> Outcome:
        """As `compile_apart`."""
        child, self._waiting = self._waiting or _Child(), None
        try:
            # The loop itself would wait until the child has come up as far as to its own program.
            return await asyncio.to_thread(child.run, order)
        finally:
            child.kill()

    async def prepare(self, *, is_wanted: bool) -> None:
        """Have a child waiting, or none."""
        if not is_wanted:
            child, self._waiting = self._waiting, None
            if child is not None:
                await asyncio.to_thread(child.discard)
        elif self._waiting is None:
            self._waiting = _Child()
            with suppress(CompileFailed):
                await asyncio.to_thread(self._waiting.start)


class Compiling:
    """A compile that goes on in a child while its parent, which isn't serving yet, gets ready."""

    def __init__(self, order: Order) -> None:
        self._child = _Child()
        self._thread = ThreadPoolExecutor(1)
        self._outcome = self._thread.submit(self._child.run, order)

    def outcome(self) -> Outcome:
        """What came of it, waited for; raises CompileFailed."""
        try:
            return self._outcome.result()
        finally:
            self._child.kill()
            self._thread.shutdown()


class _Child:
    """One child, talked to in a thread, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Begin, if it hasn't begun: it gets ready, and waits for its order. Raises CompileFailed."""
        if self._process is not None:
            return self._process
        try:
            self._process = subprocess.Popen(  # our own program, no word of it from outside
                [sys.executable, "-P", "-m", "gateway.live.compiling"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A traceback could hold what is in the config; the exit status has to do.
                stderr=subprocess.DEVNULL,
                env=our_environment(),
            )
        except OSError as error:
            raise CompileFailed(f"no process can be started to compile it ({error.strerror})") from None
        return self._process

    def run(self, order: Order) -> Outcome:
        """To the child's end; raises CompileFailed."""
        with self.start() as process:
            try:
                written, _ = process.communicate(pickle.dumps(order), _LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise CompileFailed(f"it took longer than {_LIMIT_S:g} s to compile") from None
        if process.returncode != 0:
            raise CompileFailed(f"the process that compiles it ended with status {process.returncode}")
        outcome: Outcome = pickle.loads(written)  # noqa: S301  # our own child wrote it, to a pipe without a name
        return outcome

    def kill(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.kill()

    def discard(self) -> None:
        """End one that was given no order, and see it end."""
        with suppress(CompileFailed), self.start() as process:
            process.kill()


def our_environment() -> dict[str, str]:
    """A child imports from where its parent does, and never from the directory that it happens to be in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
