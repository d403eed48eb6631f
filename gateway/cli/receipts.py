"""The commands `gateway receipt list`, with the places to which prompts went, and `gateway receipt verify`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from gateway.cli.terminal import expect_days, json_text, settings_of, state_directory, tell
from gateway.config.problems import visible
from gateway.files import path_exists, read_file_or_pipe
from gateway.operator_errors import CommandError
from providers.json_values import unique_members

_OK, _REFUSED = 0, 1
_MAX_FILE_BYTES = 64 * 1024
_NONE = "-"
_SECONDS = len("2026-11-27T10:00:00")
_WIDTHS = {"time": 20, "territory": 9, "region": 8, "outcome": 11, "client": 12, "request": 36}
"""The columns with their usual widths. The list is printed while it is read, so the widest cell is not known."""


def list_receipts(options: argparse.Namespace) -> int:
    """Print the receipts of some days as a table or as lines of JSON. Return 1 if some were changed."""
    from gateway.state.receipts import oldest_receipt_s, receipts_between
    from providers.territories import Places

    first, last = options.first, options.last
    expect_days(first, last, datetime.now(UTC).date())
    directory = state_directory(settings_of(options))
    if not path_exists(directory / "receipts.db"):
        raise CommandError(
            f"there are no receipts in {directory}: a gateway that serves with this state directory keeps them"
        )
    oldest_s = oldest_receipt_s(directory)
    since_s = -math.inf if first is None else _start_s(first)
    if oldest_s is not None and -math.inf < since_s < oldest_s:
        oldest = datetime.fromtimestamp(oldest_s, UTC).isoformat(timespec="seconds")
        problem = f"--from is before the oldest receipt that is kept, of {oldest}"
        reason = "earlier ones were deleted (`receipts.keep`), or none was written"
        tell(f"{problem}: {reason}; `gateway usage --by territory,processes` reads the ledger")
    until_s = math.inf if last is None else _start_s(last + timedelta(days=1))
    places = None if options.territory is None else Places(frozenset({options.territory}))
    shown, changed, first_changed = 0, 0, ""
    for request, receipt in receipts_between(directory, since_s, until_s):
        if receipt is None:
            first_changed = first_changed or str(request)
            changed += 1
        elif places is None or ((territory := receipt.get("territory")) and places.contains(str(territory))):
            if options.json:
                print(json.dumps(receipt, separators=(",", ":"), ensure_ascii=False))
            else:
                if not shown:
                    print(_line([*_WIDTHS], "sent to"))
                named = (str(receipt.get(name) or _NONE) for name in ("territory", "region", "outcome", "client", "id"))
                cells = [f"{str(receipt.get('at'))[:_SECONDS]}Z", *named]
                print(_line(cells, "; ".join(dict.fromkeys(_recipients(receipt))) or _NONE))
            shown += 1
    if not options.json:
        count = f"\n{shown:,} receipt{'s' if shown != 1 else ''}"
        print(count if shown else "there are no receipts of such requests")
    if not changed:
        return _OK
    problem = f"{changed:,} receipts of these days were changed after they were stored, and are not shown"
    tell(f"{problem}; the first is of the request {visible(first_changed)}")
    return _REFUSED


def _start_s(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _line(cells: list[str], last: str) -> str:
    padded = [visible(cell).ljust(width) for cell, width in zip(cells, _WIDTHS.values(), strict=True)]
    return "  ".join([*padded, visible(last)])


def _recipients(receipt: Mapping[str, Any]) -> Iterator[str]:
    """Yield each deployment that was sent the prompt or a text of the request, with its places."""
    for entry in receipt.get("tried") or ():
        yield _recipient(entry)
    for entry in receipt.get("judges") or ():
        yield f"{_recipient(entry)} (verdict)"
    if entry := receipt.get("shadow"):
        yield f"{_recipient(entry)} (shadow)"


def _recipient(entry: Mapping[str, Any]) -> str:
    stores, processes = entry.get("stores"), entry.get("processes")
    stored = "" if stores == processes else f", stored in {stores}"
    proxy = f", through a proxy in {entry['proxy'].get('territory')}" if entry.get("proxy") else ""
    return f"{entry.get('deployment')} in {processes}{stored}{proxy}"


def verify(options: argparse.Namespace) -> int:
    """Verify the signature of the receipt in a file (`gateway receipt verify`)."""
    from gateway.signing import RECEIPT_KIND, BadSignature, KeyUnusable, PublicKey
    from gateway.signing import verify as verify_jws

    try:
        key = PublicKey.parse(_key(options.key))
    except KeyUnusable as error:
        raise CommandError(f"--key: {error}") from None
    jws, shown, shown_key = _read(options.file)
    try:
        if jws is None:
            raise BadSignature("it has no signature: the gateway had no GATEWAY_RECEIPT_KEY")
        receipt, signer = verify_jws(jws, RECEIPT_KIND, [key])
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
