"""The commands `gateway key new`, `gateway receipt verify`, `gateway secrets new` and `gateway secrets rotate`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from gateway.cli.terminal import json_text, tell
from gateway.files import read_file_or_pipe
from gateway.operator_errors import CommandError
from providers.json_values import unique_members

_OK, _REFUSED = 0, 1
_MAX_FILE_BYTES = 64 * 1024


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


def verify(options: argparse.Namespace) -> int:
    """Verify the signature of the receipt in a file (`gateway receipt verify`)."""
    from gateway.assembly.receipts import KIND
    from gateway.signing import BadSignature, KeyUnusable, PublicKey
    from gateway.signing import verify as verify_jws

    try:
        key = PublicKey.parse(_key(options.key))
    except KeyUnusable as error:
        raise CommandError(f"--key: {error}") from None
    jws, shown, shown_key = _read(options.file)
    try:
        if jws is None:
            raise BadSignature("it has no signature: the gateway had no GATEWAY_RECEIPT_KEY")
        receipt, signer = verify_jws(jws, KIND, [key])
        if shown is not None and (_exactly(shown) != _exactly(receipt) or shown_key not in (None, key.text)):
            raise BadSignature("it was changed after it was signed")
    except BadSignature as error:
        tell(f"the receipt is not valid: {error}")
        return _REFUSED
    print(json_text(receipt))
    tell(f"signed by the key {signer.id}")
    return _OK


def _key(word: str) -> str:
    """Return the given key, or the content of the given file."""
    if word.startswith("ed25519:"):
        return word
    try:
        return read_file_or_pipe(word, _MAX_FILE_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise CommandError(f"--key: {word} can't be read ({getattr(error, 'strerror', 'not ASCII text')})") from None


def _exactly(receipt: Mapping[str, object]) -> str:
    """Return the receipt as text. In Python, 1, 1.0 and True are equal as values."""
    return json.dumps(receipt, sort_keys=True)


def _read(path: Path) -> tuple[str | None, Mapping[str, object] | None, object]:
    """Return the JWS, the receipt and the public key of a file: `GET /v1/receipts/{id}`, or only its JWS."""
    try:
        text = read_file_or_pipe(path, _MAX_FILE_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise CommandError(f"{path} can't be read ({error.strerror})") from None
    if not text.startswith("{"):
        return text, None, None
    try:
        answer = json.loads(text, object_pairs_hook=unique_members)
    except (ValueError, RecursionError):
        raise CommandError(f"{path} is not valid JSON, or has a duplicate key") from None
    jws, receipt = answer.get("jws"), answer.get("receipt")
    if not isinstance(receipt, dict):
        raise CommandError(f"{path} has no receipt")
    return jws if isinstance(jws, str) else None, receipt, answer.get("key")


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
