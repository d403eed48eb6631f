"""The commands `gateway key new`, `gateway secrets new` and `gateway secrets rotate`."""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
from pathlib import Path

from gateway.operator_errors import CommandError

_OK = 0


def new(options: argparse.Namespace) -> int:
    """Make a client key or a signing key pair (`gateway key new`)."""
    if options.ed25519 is not None:
        return _new_pair(options.ed25519)
    key = f"gk-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    print(f"Key: {key}\n  Give it to the client application. It is not stored, so it can't be shown again.\n")
    print(f"Hash: sha256:{digest}\n  Add it to the config, in the list `clients.NAME.keys`.")
    return _OK


def _new_pair(path: Path) -> int:
    """Write a private key to the file, and the public key to the same name with `.pub`."""
    from gateway.signing import new_key

    if not path.name:
        raise CommandError(f"--ed25519: {path} is not a file name")
    pem, public = new_key()
    public_path = path.with_name(f"{path.name}.pub")
    written: list[Path] = []
    try:
        for file, data, mode in ((path, pem, 0o600), (public_path, f"{public.text}\n".encode(), 0o644)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(file)
            with open(descriptor, "wb") as opened:
                opened.write(data)
    except OSError as error:
        for file in written:
            # One key of a pair is of no use, and its file would block the next try.
            file.unlink(missing_ok=True)
        raise CommandError(f"{error.filename} can't be written ({error.strerror}); no file was overwritten") from None
    signs = "GATEWAY_RECEIPT_KEY, `marks.key`, or gateway plan --sign"
    print(f"private key  {path}\n             for the signer only: {signs}\n")
    print(f"public key   {public.text}\n             also in {public_path}; for `admin_keys`, or to verify receipts")
    return _OK


def new_secrets(options: argparse.Namespace) -> int:
    """Write a file with the keys of a cell (`gateway secrets new`)."""
    from gateway.config.secrets_file import write_new_secrets

    write_new_secrets(options.file)
    print(f"wrote {options.file}, which only its owner can read")
    print(f"add this line to the config:\nsecrets: {{file: {options.file}}}")
    return _OK


def rotate_secret(options: argparse.Namespace) -> int:
    """Add a new version of one key of a cell (`gateway secrets rotate`)."""
    from gateway.config import secrets_file

    secrets_file.rotate_secret(options.file, options.name)
    print(f"`{options.name}` has a new version; the previous one stays valid until the next rotation")
    return _OK
