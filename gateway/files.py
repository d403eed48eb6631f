"""Opens a file to read, and nothing else: what stands at a path that somebody gave could keep us waiting for ever."""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import BinaryIO

_PIECE_BYTES = 64 * 1024


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether something stands at that path, be it such that we may read it or not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A file to read; raises OSError for anything else."""
    return open(path, "rb", opener=_regular)


def _regular(path: str, flags: int) -> int:
    """A named pipe would keep us for as long as nobody writes to it."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # of a directory, open says so itself
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file")


def read_given(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """What stands in a file that somebody names on the command line, or the first of too much; raises OSError.

    It may be a pipe, as of `<(command)`, and is waited for as long as somebody has it open to write.
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
        raise OSError(errno.EINVAL, "nobody writes to this pipe")
    return data


def _next_piece(descriptor: int, most_bytes: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, min(most_bytes, _PIECE_BYTES))
        except BlockingIOError:
            select.select([descriptor], [], [])


def stands_at(path: str | os.PathLike[str], opened: os.stat_result) -> bool:
    """Whether what was opened is what is found there: a file that was moved or removed takes what is written as
    willingly. Raises OSError where that can't be told."""
    try:
        return os.path.samestat(os.stat(path), opened)
    except (FileNotFoundError, NotADirectoryError):
        return False
