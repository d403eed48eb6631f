"""The pepper of a state directory: the key of the stored digests of API keys, if the config has none."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from gateway.files import open_file
from gateway.operator_errors import StateError
from providers.auth import Secret

_FILE = "pepper"
_MOST_BYTES = 4096
_LEAST_CHARACTERS = 32


def read_pepper(directory: Path) -> Secret | None:
    """Return the pepper of a state directory, or None if it has none. Raises StateError."""
    path = directory / _FILE
    try:
        with open_file(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise StateError(f"{path} is readable by other users: run `chmod 600 {path}`")
    if len(text) < _LEAST_CHARACTERS or not text.isalnum():
        raise StateError(f"{path} is damaged: restore it from a backup. Without it, no key of this directory works")
    return Secret(text)


def make_pepper(directory: Path) -> Secret:
    """Return the pepper of a state directory. Create it, with mode 0600, if it does not exist. Raises StateError."""
    known = read_pepper(directory)
    if known is not None:
        return known
    path, draft = directory / _FILE, directory / f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{secrets.token_hex(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            # A link fails if another process was faster. Then its pepper is the valid one.
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"{path} can't be written: {error.strerror}") from error
    made = read_pepper(directory)
    if made is None:
        raise StateError(f"{path} was removed while it was created")
    return made
