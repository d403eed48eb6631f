"""Hand over to the next gateway, without a refused connection (`gateway restart`, SIGUSR2).

Theory of operation:

1. The running gateway ends the change that is under way and begins no other: it writes neither the record of changes
   nor the ledger. It serves as before.
2. It starts `gateway serve` as its child, with the same options and environment, and gives it its listening sockets,
   the lock of the state directory and the memory with the requests of clients (`takeover`).
3. The child starts as always, and reports that it accepts connections.
4. The running gateway stops accepting, closes its descriptor of the lock, and ends when its connections have ended.

If the child fails before the fourth step, it is ended, and the running gateway goes on as if nothing had happened.
Meanwhile both count in the same places: budgets, holds and usage rows in the journal, requests of clients in the shared
memory. There is always one process that moves rows into the ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gateway.child_process import child_command
from gateway.operator_errors import StateError
from gateway.server.keepers import Keepers
from gateway.server.service_manager import ServiceManager
from gateway.server.takeover import PROTOCOL, VARIABLE, Takeover
from gateway.server.uvicorn_server import url_of
from gateway.state.lock import take
from gateway.telemetry.log import logger
from gateway.undo import undone_on_failure
from providers.value import Value

READY_S = 60.0
"""The time in which the next gateway must be ready."""

_END_S = 5.0
_MOST_SHOWN = 2000
_FILE = "restart.json"
_MOST_BYTES = 65_536
_POLL_S = 0.1


class HandoverFailed(Exception):
    """The next gateway does not serve, and nothing has changed. The message gives the reason."""


class Given(Value, frozen=True):
    """The things that the next gateway gets. The listeners have the names that systemd would give them."""

    sockets: Mapping[str, socket.socket]
    consent_key: bytes
    service: ServiceManager


@dataclass(eq=False, repr=False)
class Handover:
    """Takes over from an earlier gateway if there is one, and hands over at SIGUSR2. It succeeds once.

    `gateway restart` asks through the state directory; without it, there is only the signal. The next gateway must be
    ready in `ready_s`.
    """

    _given: Given
    _keepers: Keepers
    _directory: Path | None
    _takeover: Takeover | None = None
    ready_s: float = READY_S
    _is_serving: asyncio.Event = field(default_factory=asyncio.Event)

    def note_serving(self) -> None:
        """Note that all processes of this gateway accept connections."""
        self._is_serving.set()

    async def is_done_before(self, serving: asyncio.Task[Any]) -> bool:
        """Wait until the next gateway serves, and return true, or until this one has ended."""
        handing = asyncio.create_task(self.run())
        try:
            await asyncio.wait({handing, serving}, return_when=asyncio.FIRST_COMPLETED)
            return handing.done() and handing.result() is None and not serving.done()
        finally:
            handing.cancel()
            await asyncio.gather(handing, return_exceptions=True)

    async def run(self) -> None:
        """Hand over when a signal asks for it. Return when the next gateway serves."""
        requested = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, requested.set)
        await self._is_serving.wait()
        version = self._keepers.live.config.version
        if self._takeover is not None:
            await self._takeover.report_ready(version)
        self._given.service.note_ready(version)
        await self._hand_over_when(requested)

    async def _hand_over_when(self, requested: asyncio.Event) -> None:
        self._describe()
        while True:
            await requested.wait()
            requested.clear()
            request = _Request.of_directory(self._directory)
            try:
                pid, release = await self._hand_over(request.python)
            except HandoverFailed as error:
                logger().error("restart_failed", detail=f"{error}; this process goes on", pid=os.getpid())
                request.answer({"error": str(error)})
            else:
                asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)
                signal.signal(signal.SIGUSR2, signal.SIG_IGN)
                logger().info("handed_over", to=pid, pid=os.getpid(), release=release)
                request.answer({"pid": pid, "release": release})
                return

    def _describe(self) -> None:
        """Write into the lock file that this process can hand over."""
        try:
            self._keepers.live.describe({"admin": url_of(self._given.sockets["admin"]), "restarts": True})
        except StateError as error:
            logger().error("restart_failed", detail=f"{error}; `gateway restart` does not find this process")

    async def _hand_over(self, python: str | None) -> tuple[int, str]:
        """Return the process id and the release of the next gateway. Raises HandoverFailed."""
        if os.getpid() == 1:
            raise HandoverFailed("this is process 1 of its container, which ends with it: start another container")
        try:
            await self._keepers.pause()
        except StateError as error:
            raise HandoverFailed(str(error)) from None
        child = None
        try:
            child = await _Child.start(self._given, self._keepers.live.lock_descriptor, python)
            release = await child.release(self.ready_s)
            await self._keepers.live.leave()
            self._given.service.hand_over(child.pid)
            return child.pid, release
        except BaseException as error:  # whatever happened, this process must go on with its own state directory
            if child is not None:
                await child.end()
            await self._keepers.resume()
            self._describe()
            if isinstance(error, OSError):
                raise HandoverFailed(f"{python or sys.executable} can't be started: {error.strerror}") from error
            raise
        finally:
            if child is not None:
                child.close()


class _Child:
    """The next gateway, as a child of this process."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        errors: IO[bytes],
        channel: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.pid = process.pid
        # Not a process of asyncio, which would be killed at the end of the event loop.
        self._process = process
        self._errors = errors
        self._reader, self._writer = channel

    @classmethod
    async def start(cls, given: Given, lock: int | None, python: str | None) -> _Child:
        """Start it. Raises OSError."""
        own_stderr = os.dup(2)
        listeners = {name: listener.fileno() for name, listener in given.sockets.items()}
        files = {**listeners, "stderr": own_stderr}
        files |= {"lock": lock} if lock is not None else {}
        first = {
            "files": files,
            "listeners": [*listeners],
            "protocol": PROTOCOL,
            "consent_key": given.consent_key.hex(),
            "service": given.service.environment,
        }
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        try:
            with undone_on_failure(ours.close), undone_on_failure(errors.close), theirs:
                ours.sendall(json.dumps(first).encode() + b"\n")
                process = await asyncio.to_thread(
                    subprocess.Popen,
                    _command(python),
                    stdin=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=(theirs.fileno(), *files.values()),
                    env={**os.environ, VARIABLE: str(theirs.fileno())},
                )
        finally:
            os.close(own_stderr)
        return cls(process, errors, await asyncio.open_unix_connection(sock=ours))

    async def release(self, ready_s: float) -> str:
        """Return its release once it serves. Raises HandoverFailed."""
        answer: Any = None
        try:
            async with asyncio.timeout(ready_s):
                with suppress(OSError, ValueError):  # it has ended
                    answer = json.loads(await self._reader.readline())
        except TimeoutError:
            raise HandoverFailed(f"the next gateway was not ready within {ready_s:g} s") from None
        match answer:
            case {"failed": str(reason)}:
                raise HandoverFailed(reason)
            case {"ready": str(), "release": str(release)}:
                return release
        raise HandoverFailed(await self.ended())

    async def ended(self) -> str:
        """Return how it ended, with the last lines that it wrote before it took over."""
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _END_S)
        await self.end()
        self._errors.seek(0)
        words = self._errors.read().decode("utf-8", "replace").strip()[-_MOST_SHOWN:]
        return f"the next gateway ended with status {self._process.returncode}" + (f":\n{words}" if words else "")

    async def end(self) -> None:
        """End it if it runs, and wait for its end."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for stop in (self._process.terminate, self._process.kill):
            if self._process.poll() is None:
                stop()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_S)

    def close(self) -> None:
        """Close the connection to it."""
        self._writer.close()
        self._errors.close()


def _command(python: str | None) -> list[str]:
    """Return the command of this process, with another interpreter if one is named."""
    own, *options = child_command("gateway", *sys.argv[1:])
    return [python or own, *options]


# --- requests of `gateway restart` ----------------------------------------------------------------


class RestartBusy(Exception):
    """Another command is asking for a restart."""


class _Request:
    """A request in the state directory, or a bare signal. It may name the interpreter of the next gateway."""

    def __init__(self, descriptor: int | None, identity: str = "", python: str | None = None) -> None:
        self._descriptor = descriptor
        self._identity = identity
        self.python = python

    @classmethod
    def of_directory(cls, directory: Path | None) -> _Request:
        """Return the request that waits in the directory."""
        if directory is None:
            return cls(None)
        try:
            descriptor = os.open(directory / _FILE, os.O_RDWR)
        except OSError:
            return cls(None)
        # A command that waits has locked the file. Otherwise the content is from a killed command.
        match None if take(descriptor) else _read(descriptor):
            case {"id": str(identity), "python": python} if python is None or isinstance(python, str):
                return cls(descriptor, identity, python)
        os.close(descriptor)
        return cls(None)

    def answer(self, result: Mapping[str, object]) -> None:
        """Write the result for the command that asked."""
        if self._descriptor is not None:
            with suppress(OSError):
                _write(self._descriptor, {"answers": self._identity, **result})
            os.close(self._descriptor)


def _read(descriptor: int) -> Any:
    try:
        return json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except ValueError:
        return None


def _write(descriptor: int, content: Mapping[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(), 0)


def ask_for_restart(directory: Path, pid: int, python: str | None, limit_s: float = READY_S + 3 * _END_S) -> Any:
    """Ask a gateway to hand over: `pid` and `release`, or `error`. Raises RestartBusy, OSError and TimeoutError."""
    descriptor = os.open(directory / _FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.geteuid() == 0:  # the gateway may be another user
            owner = os.stat(directory)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        if not take(descriptor):
            raise RestartBusy
        identity = secrets.token_hex(8)
        _write(descriptor, {"id": identity, "python": python})
        os.kill(pid, signal.SIGUSR2)
        until_s = time.monotonic() + limit_s
        while time.monotonic() < until_s:
            match _read(descriptor):
                case {"answers": answered, **result} if answered == identity:
                    os.ftruncate(descriptor, 0)
                    return result
            os.kill(pid, 0)
            time.sleep(_POLL_S)
        raise TimeoutError
    finally:
        os.close(descriptor)
