"""One gateway at a time writes to a state directory; whoever comes second is told where the first one answers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from gateway.operator_errors import StateError

_FILE = "gateway.lock"
_MOST_BYTES = 4096


class InUse(StateError):
    """Another process has the directory, which has told this of itself."""

    def __init__(self, directory: Path, told: Mapping[str, object]) -> None:
        super().__init__(f"{directory} is used by another gateway (process {told.get('pid', 'unknown')})")


class Lock:
    """The directory is this process's own, until it is released or the process ends, however that ends.

    config: the file that the last gateway here served, as an absolute path; "" where that isn't known.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileExistsError as error:
            raise StateError(f"the state directory {directory} is a file; name a directory") from error
        except OSError as error:
            raise StateError(
                f"{error.filename or path} can't be used: {error.strerror}; name another state directory"
            ) from error
        if not take(self._descriptor):
            told = _read(self._descriptor)
            os.close(self._descriptor)
            raise InUse(directory, told)
        self._path = path
        self.config = str(_read(self._descriptor).get("config") or "")
        try:
            self.tell({})
        except StateError:
            self.release()
            raise

    def tell(self, told: Mapping[str, object]) -> None:
        """Say this to who finds the directory taken, or left; raises StateError."""
        kept = {"config": self.config} if self.config else {}
        data = json.dumps({"pid": os.getpid(), **kept, **told}).encode()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
        except OSError as error:
            raise StateError(f"{self._path} can't be written: {error.strerror}") from error

    def release(self) -> None:
        """It may be another's."""
        os.close(self._descriptor)


def holder_of(directory: Path) -> Mapping[str, object] | None:
    """What the gateway says that runs with this directory; None where none does."""
    try:
        # To read alone: who asks may not be allowed more, or the disk not.
        descriptor = os.open(directory / _FILE, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return None if take(descriptor) else _read(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Have the file to ourselves until it is closed, if nobody else has it."""
    try:
        import fcntl
    except ImportError:  # a system without it has one process, and its operator sees to it that there is one
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> Mapping[str, object]:
    try:
        told = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
