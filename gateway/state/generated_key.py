"""Keys that the gateway makes for itself at its first start, in files of the state directory."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from gateway.operator_errors import StateError

USER_KEY = "user-key"
"""Makes the pseudonyms of end users in usage rows and budgets, if the configuration has no `secrets.identity`."""

PEPPER = "pepper"
"""Makes the stored digests of API keys, if the configuration has no `secrets.pepper`."""

CACHE_KEY = "cache-key"
"""Makes the pseudonyms of the keys of providers' prompt caches, if the configuration has no `secrets.identity`."""

RECEIPT_KEY = "receipt-key"
"""Makes the seals of stored receipts."""

_LOST = {
    RECEIPT_KEY: "the receipts that are stored can't be read any more",
    CACHE_KEY: "conversations leave the caches of providers once",
    USER_KEY: "end users get new pseudonyms",
    PEPPER: "no API key of this directory works any more",
}
_BYTES = 32


def generated_key(directory: Path, name: str) -> bytes:
    """Return the key of this name. The first call makes it, readable by this user only.

    Raises StateError if the file can't be used, or was changed.
    """
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # Written under another name first, so that no process reads a part of a key.
            draft = directory / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(f"{secrets.token_hex(_BYTES)}\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink(missing_ok=True)
        key = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise StateError(f"{path} can't be used: {error.strerror}") from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise StateError(f"{path} is damaged: restore it from a backup, or delete it, and {_LOST[name]}")
    return key
