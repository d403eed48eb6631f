"""Lock a state directory for one gateway, and show a second one the process that holds the lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.operator_errors import StateError

_FILE = "gateway.lock"
_MOST_BYTES = 4096
_LOOK_S = 0.02
STOP_AND_START = "the running gateway could not read it at the same time: stop and start"


class _Upgrades:
    """The upgrades of files by this process."""

    are_refused = False


def refuse_upgrades() -> None:
    """Refuse to change the layout of existing files from now on: a running gateway still uses them."""
    _Upgrades.are_refused = True


def are_upgrades_refused() -> bool:
    """Return whether `refuse_upgrades` was called."""
    return _Upgrades.are_refused


class InUse(StateError):
    """Another gateway uses the directory. `told` is what it wrote into the lock file."""

    def __init__(self, directory: Path, details: Mapping[str, object]) -> None:
        super().__init__(f"{directory} is used by another gateway (process {details.get('pid', 'unknown')})")


class Lock:
    """Locks the directory for this process, until `release` or the end of the process.

    Child processes that inherit the descriptor hold the lock too.

    Attributes:
        config: The absolute path of the config that the previous gateway served. Empty if unknown.
        descriptor: The open file.

    `wait_s` is how long to wait for another process to release the lock. `inherited` is the descriptor of the locked
    file, if the running gateway hands its lock over.
    """

    def __init__(self, directory: Path, wait_s: float = 0.0, inherited: int | None = None) -> None:
        path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600) if inherited is None else inherited
        except FileExistsError as error:
            raise StateError(f"the state directory {directory} is a file; name a directory") from error
        except OSError as error:
            raise StateError(
                f"{error.filename or path} can't be used: {error.strerror}; name another state directory"
            ) from error
        until_s = time.monotonic() + wait_s
        while not (is_ours := take(self.descriptor)) and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        if not is_ours:
            details = _read(self.descriptor)
            os.close(self.descriptor)
            raise InUse(directory, details)
        self._path = path
        self.config = str(_read(self.descriptor).get("config") or "")
        try:
            self.write_info({})
        except StateError:
            self.release()
            raise

    def write_info(self, details: Mapping[str, object]) -> None:
        """Write this information for processes that find the directory locked. Raises StateError."""
        known = {"config": self.config} if self.config else {}
        data = json.dumps({"pid": os.getpid(), **known, **details}).encode()
        try:
            # One write of a fixed length: a reader never finds the file empty, or with the rest of a longer text.
            os.pwrite(self.descriptor, data.ljust(_MOST_BYTES), 0)
        except OSError as error:
            raise StateError(f"{self._path} can't be written: {error.strerror}") from error

    def release(self) -> None:
        """Release the lock, unless it is released. Another process that has inherited it keeps it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def holder_of(directory: Path) -> Mapping[str, object] | None:
    """Return the information of the gateway that runs with this directory, or None if none runs."""
    with suppress(OSError), _opened(directory) as descriptor:
        return None if take(descriptor) else _read(descriptor)
    return None


def last_config(directory: Path) -> str:
    """Return the path of the config that a gateway with this directory serves or served last. Empty if unknown."""
    with suppress(OSError), _opened(directory) as descriptor:
        return str(_read(descriptor).get("config") or "")
    return ""


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """Open the lock file for reading only: there may be no permission to write, or the disk may be read-only."""
    descriptor = os.open(directory / _FILE, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Lock the file until it is closed. Return False if another process has locked it."""
    try:
        import fcntl
    except ImportError:  # on systems without flock, the operator must run only one process
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> Mapping[str, object]:
    try:
        details = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except (OSError, ValueError):
        return {}
    return details if isinstance(details, dict) else {}
