"""`gateway key new`: a client's key with its hash, or a pair that signs."""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
from pathlib import Path

from gateway.terminal import CommandError

__all__ = ["new"]

_OK = 0


def new(options: argparse.Namespace) -> int:
    """Make a client key, or a pair that signs."""
    if options.ed25519 is not None:
        return _new_pair(options.ed25519)
    key = f"gk-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    print(f"key   {key}\n      for the client app; it is shown only now\n")
    print(f"hash  sha256:{digest}\n      for the config, under clients.NAME.keys")
    return _OK


def _new_pair(path: Path) -> int:
    """Write a private key to the file, and the public one beside it."""
    from gateway.signing import new_key

    if not path.name:
        raise CommandError(f"--ed25519: {path} is no name of a file")
    pem, public = new_key()
    beside = path.with_name(f"{path.name}.pub")
    written: list[Path] = []
    try:
        for file, data, mode in ((path, pem, 0o600), (beside, f"{public.text}\n".encode(), 0o644)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(file)
            with open(descriptor, "wb") as opened:
                opened.write(data)
    except OSError as error:
        for file in written:
            # Half a pair is of no use, and would stand in the way of the next.
            file.unlink(missing_ok=True)
        raise CommandError(f"{error.filename} can't be written ({error.strerror}); nothing is overwritten") from None
    print(f"private key  {path}\n             for who signs alone: GATEWAY_RECEIPT_KEY, or gateway plan --sign\n")
    print(f"public key   {public.text}\n             in {beside} too; for `admin_keys`, or whoever verifies a receipt")
    return _OK
