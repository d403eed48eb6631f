"""`gateway key new` and `gateway receipt verify`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.files import read_file_or_pipe
from gateway.operator_errors import CommandError


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


_OK, _REFUSED = 0, 1


_MOST_BYTES = 64 * 1024


def verify(options: argparse.Namespace) -> int:
    """Say whether the receipt in a file was signed by that key, and is what was signed."""
    from gateway.assembly.receipts import KIND
    from gateway.signing import BadSignature, KeyUnusable, PublicKey
    from gateway.signing import verify as verified

    try:
        key = PublicKey.parse(_key(options.key))
    except KeyUnusable as error:
        raise CommandError(f"--key: {error}") from None
    jws, shown, shown_key = _read(options.file)
    try:
        if jws is None:
            raise BadSignature("it is not signed: the gateway had no GATEWAY_RECEIPT_KEY")
        receipt, signer = verified(jws, KIND, [key])
        if shown is not None and (_exactly(shown) != _exactly(receipt) or shown_key not in (None, key.text)):
            raise BadSignature("what it shows is not what was signed")
    except BadSignature as error:
        print(f"gateway: this receipt doesn't count: {error}", file=sys.stderr)
        return _REFUSED
    print(json.dumps(receipt, indent=2, ensure_ascii=False))
    print(f"gateway: signed by the key {signer.id}", file=sys.stderr)
    return _OK


def _key(word: str) -> str:
    """The key itself, or what a file holds."""
    if word.startswith("ed25519:"):
        return word
    try:
        return read_file_or_pipe(word, _MOST_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise CommandError(f"--key: {word} can't be read ({getattr(error, 'strerror', 'no text')})") from None


def _exactly(receipt: Mapping[str, object]) -> str:
    """As text, because 1, 1.0 and true are equal as values."""
    return json.dumps(receipt, sort_keys=True)


def _each_once(members: Sequence[tuple[str, object]]) -> dict[str, object]:
    """An object whose names are each there once: of two, a person reads the one and a program the other."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a name is there twice")
    return found


def _read(path: Path) -> tuple[str | None, Mapping[str, object] | None, object]:
    """The signature in the file, and what is shown beside it, a key too: an answer of `GET /v1/receipts/{id}`, or a
    bare JWS."""
    try:
        text = read_file_or_pipe(path, _MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise CommandError(f"{path} can't be read ({error.strerror})") from None
    if not text.startswith("{"):
        return text, None, None
    try:
        answer = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise CommandError(f"{path} is no JSON whose names are each there once") from None
    jws, receipt = answer.get("jws"), answer.get("receipt")
    if not isinstance(receipt, dict):
        raise CommandError(f"{path} holds no receipt")
    return jws if isinstance(jws, str) else None, receipt, answer.get("key")
