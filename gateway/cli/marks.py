"""The command `gateway marks verify`: check a signed mark without a gateway."""

from __future__ import annotations

import argparse
import hashlib
import json
from urllib.parse import urlsplit

from gateway.api.caller.authentication import is_loopback_host
from gateway.cli.admin_client import AdminClient, NotReached
from gateway.features.marks.policy import check_mark, key_of_x
from gateway.files import read_file_or_pipe
from gateway.operator_errors import CommandError
from gateway.signing import KeyUnusable, PublicKey
from providers.sites import parse_origin

_PROVEN, _NOT_PROVEN = 0, 1
_MOST_KEY_BYTES = 64 * 1024
_MOST_TEXT_BYTES = 16 * 1024 * 1024
_LIMIT_S = 30.0
_EXAMPLE = "https://assistant.example.com/.well-known/ai-marks.json"


class _NotChecked(CommandError):
    """The keys, the mark or the text cannot be read, so nothing is proven."""

    status = _NOT_PROVEN


def verify(options: argparse.Namespace) -> int:
    """Print what a mark proves about a text or an audio file. Return 0 if the issuer gave it out."""
    keys = _keys(options.keys)
    mark = _text("--mark", options.mark, _MOST_KEY_BYTES).strip()
    if options.audio is None and options.text is None:
        raise _NotChecked("--text or --audio: name the file that the mark is of")
    if options.audio is not None:
        found = check_mark(mark, None, options.issuer, keys, _hash_of(options.audio))
    else:
        found = check_mark(mark, _text("--text", options.text, _MOST_TEXT_BYTES), options.issuer, keys)
    print(json.dumps(found.document(), indent=2))
    return _PROVEN if found.is_proven else _NOT_PROVEN


def _hash_of(path: str) -> str:
    """Return the SHA-256 of a file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _NotChecked(f"--audio: {path} can't be read ({error.strerror})") from None


def _keys(place: str) -> list[PublicKey]:
    """Return the Ed25519 keys of a JSON Web Key Set in a file or at a URL."""
    document = _fetched(place) if "://" in place else _text("--keys", place, _MOST_KEY_BYTES)
    try:
        listed = json.loads(document)["keys"]
        keys = [key_of_x(key["x"]) for key in listed if key.get("crv") == "Ed25519"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, KeyUnusable):
        raise _NotChecked(f"--keys: {place} is not a set of keys as /.well-known/ai-marks.json has it") from None
    if not keys:
        raise _NotChecked(f"--keys: {place} has no Ed25519 key")
    return keys


def _fetched(url: str) -> str:
    """Return the document at an https URL, or at an http URL of this machine. No proxy and no redirect is followed."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_host(parts.netloc)):
            raise _NotChecked("--keys: the URL must be https, or http to this machine")
        origin = f"{parts.scheme}://{parts.netloc}"
        parse_origin(origin)
    except ValueError:
        raise _NotChecked(f"--keys: the URL must have a host and no user name, such as {_EXAMPLE}") from None
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        return AdminClient(origin, limit_s=_LIMIT_S).get(path)
    except NotReached as error:
        raise _NotChecked(f"--keys: {error}") from None


def _text(option: str, path: str, most_bytes: int) -> str:
    try:
        data = read_file_or_pipe(path, most_bytes + 1)
        if len(data) > most_bytes:
            raise _NotChecked(f"{option}: {path} is larger than {most_bytes // 1024} KB")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise _NotChecked(f"{option}: {path} can't be read ({getattr(error, 'strerror', 'not UTF-8 text')})") from None
