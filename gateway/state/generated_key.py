"""Keys that the gateway makes for itself at its first start, in files of the state directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.operator_errors import StateError

USER_KEY = "user-key"
"""Makes the pseudonyms of end users in usage rows and budgets, if the configuration has no `secrets.identity`."""

_BYTES = 32


def generated_key(directory: Path, name: str) -> bytes:
    """Return the key of this name. The first call makes it, readable by this user only.

    Raises:
        StateError: The file can't be used, or was changed.
    """
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # Written under another name first, so that a process that starts at the same time reads a whole key.
            part = directory / f".{name}-{os.getpid()}"
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)
            except FileExistsError:
                pass
            finally:
                part.unlink(missing_ok=True)
        key = bytes.fromhex(path.read_text("ascii"))
    except OSError as error:
        raise StateError(f"{path} can't be used: {error.strerror}") from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise StateError(f"{path} is damaged: restore it from a backup, or delete it, and end users get new pseudonyms")
    return key
