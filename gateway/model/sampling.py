"""Decide which requests a sample of log lines or receipts keeps. Pure.

Only a successful request may be left out: its first attempt answered it, and nothing else happened. The decision
depends on the request id alone. So every process decides alike, the log and the receipts keep the same requests at
equal shares, a smaller share keeps a part of what a larger one keeps, and an auditor can repeat the decision.
"""

from __future__ import annotations

import hashlib

from gateway.model.record import Record

_BYTES = 8
_NUMBERS = float(256**_BYTES)


def is_sampled(record: Record, share: float) -> bool:
    """Return whether a sample with this share (0 to 1) may leave the request out."""
    return share < 1 and record.is_successful


def is_kept(record: Record, share: float) -> bool:
    """Return whether a sample with this share (0 to 1) keeps the request."""
    return not is_sampled(record, share) or is_id_kept(record.request_id, share)


def is_id_kept(request_id: str, share: float) -> bool:
    """Return whether a sample keeps the successful request with this id.

    It does if the first eight bytes of the SHA-256 of the id, as a number, are below the share of all such numbers.
    """
    return is_number_kept(number_of(request_id), share)


def number_of(request_id: str) -> int:
    """Return the number of a request by which samples decide."""
    digest = hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_BYTES])


def is_number_kept(number: int, share: float) -> bool:
    """Return the same as `is_id_kept` for the number of a request."""
    return number < share * _NUMBERS
