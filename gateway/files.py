"""Open regular files for reading. Other paths, such as a named pipe, could block the process for ever."""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import BinaryIO

_PIECE_BYTES = 64 * 1024


def path_exists(path: str | os.PathLike[str]) -> bool:
    """Return whether something exists at the path, even if this process may not read it."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def is_open_to_others(status: os.stat_result) -> bool:
    """Return whether a file with a key may be read by other users than the owner of this process.

    The group may read a file of root: that is how the volume of a Secret reaches a process that is not root.
    """
    others = 0o037 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    return bool(stat.S_IMODE(status.st_mode) & others)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for anything else."""
    return open(path, "rb", opener=_regular)


def _regular(path: str, flags: int) -> int:
    """Open without blocking: opening a named pipe would wait until another process writes to it."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` itself raises a clear error for a directory
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file")


def read_file_or_pipe(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Return the first `most_bytes` of a file that a user names on the command line.

    The file may be a pipe, as of `<(command)`. A pipe is read until its writers close it.

    Raises:
        OSError: The file cannot be read, or no process writes to the pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        data = b""
        while len(data) < most_bytes and (piece := _next_piece(descriptor, most_bytes - len(data))):
            data += piece
    finally:
        os.close(descriptor)
    if is_pipe and not data:
        raise OSError(errno.EINVAL, "no process writes to this pipe")
    return data


def _next_piece(descriptor: int, most_bytes: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, min(most_bytes, _PIECE_BYTES))
        except BlockingIOError:
            select.select([descriptor], [], [])


def is_file_at(path: str | os.PathLike[str], opened: os.stat_result) -> bool:
    """Return whether the path still leads to the opened file. Raises OSError if the path cannot be checked.

    Writes to a file that was moved or removed do not fail, so a writer has to compare.
    """
    try:
        return os.path.samestat(os.stat(path), opened)
    except (FileNotFoundError, NotADirectoryError):
        return False
