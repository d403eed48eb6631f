"""The closed set of reasons for which a request is not answered, and the error codes with their reason and HTTP status.

An error code names the exact cause and belongs to the API. A reason is coarser: it decides the sentence that a user
reads, in every language and in every dialect. Each code has exactly one reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from gateway.public_names import ERRORS


class RefusalReason(StrEnum):
    """Why a request is not answered. A client must treat a reason that it does not know as `outage`."""

    TERRITORY = "territory"  # the user's location, or the places where the prompt may go
    LANGUAGE = "language"  # reserved: the assistant does not offer the user's language here
    AGE = "age"  # a rule for minors, or an unknown age where one is required
    APPROVAL = "approval"  # an authority must approve the model first
    CONSENT = "consent"  # the user must agree first
    CAPABILITY = "capability"  # no model that may answer supports the request, or has room for it
    CAPACITY = "capacity"  # a rate limit, or a limit of concurrent requests
    BUDGET = "budget"  # a budget of tokens or money is used up, or cannot be checked
    OUTAGE = "outage"  # no deployment answered, or none is available
    MODERATION = "moderation"  # the content was refused
    ACCESS = "access"  # the key, the claim or the origin is not accepted
    REQUEST = "request"  # the request is wrong: its form, its size, its path, or an unknown assistant
    INTERNAL = "internal"  # the gateway has a defect, or its data was changed


RESERVED = frozenset({RefusalReason.LANGUAGE})
"""The reasons that no code has yet. They belong to later versions and are named now, so that the set stays closed."""


class ErrorCode(NamedTuple):
    """An error code of the API. Where it arises, the region of the request may be known."""

    status: int
    reason: RefusalReason
    has_region: bool = True


ERROR_CODES: Mapping[str, ErrorCode] = {
    code: ErrorCode(row["status"], RefusalReason(row["reason"]), row.get("has_region", True))
    for code, row in ERRORS.items()
}
STATUS = {code: it.status for code, it in ERROR_CODES.items()}
REASON_BY_CODE = {code: it.reason for code, it in ERROR_CODES.items()}
CODES_WITHOUT_A_REGION = frozenset(code for code, it in ERROR_CODES.items() if not it.has_region)
