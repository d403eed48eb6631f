"""`gateway receipt verify`: whether a gateway signed what a receipt says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.files import read_given
from gateway.terminal import CommandError

__all__ = ["verify"]

_OK, _REFUSED = 0, 1
_MOST_BYTES = 64 * 1024


def verify(options: argparse.Namespace) -> int:
    """Say whether the receipt in a file was signed by that key, and is what was signed."""
    from gateway.receipt_desk import KIND
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
        return read_given(word, _MOST_BYTES).decode("ascii").strip()
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
        text = read_given(path, _MOST_BYTES).decode("utf-8", "replace").strip()
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
