"""The closed set of reasons for which a request is not answered, and the error codes with their reason and HTTP status.

An error code names the exact cause and belongs to the API. A reason is coarser: it decides the sentence that a user
reads, in every language and in every dialect. Each code has exactly one reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


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
    "invalid_request": ErrorCode(400, RefusalReason.REQUEST),
    "previous_response_not_found": ErrorCode(400, RefusalReason.REQUEST),
    "context_length_exceeded": ErrorCode(400, RefusalReason.CAPABILITY),
    "websocket_connection_limit_reached": ErrorCode(400, RefusalReason.REQUEST),
    "websocket_stream_limit_reached": ErrorCode(400, RefusalReason.REQUEST),
    "invalid_stream_id": ErrorCode(400, RefusalReason.REQUEST),
    "request_cancelled": ErrorCode(400, RefusalReason.REQUEST),
    "unsupported_capability": ErrorCode(400, RefusalReason.CAPABILITY),
    "content_filter": ErrorCode(400, RefusalReason.MODERATION),
    "invalid_api_key": ErrorCode(401, RefusalReason.ACCESS, has_region=False),
    "key_of_another_cell": ErrorCode(401, RefusalReason.ACCESS, has_region=False),
    "permission_denied": ErrorCode(403, RefusalReason.ACCESS),
    "consent_required": ErrorCode(403, RefusalReason.CONSENT),
    "age_restricted": ErrorCode(403, RefusalReason.AGE),
    "model_not_found": ErrorCode(404, RefusalReason.REQUEST),
    "not_found": ErrorCode(404, RefusalReason.REQUEST, has_region=False),
    "method_not_allowed": ErrorCode(405, RefusalReason.REQUEST, has_region=False),
    "websocket_not_offered": ErrorCode(426, RefusalReason.REQUEST, has_region=False),
    "not_implemented": ErrorCode(501, RefusalReason.REQUEST, has_region=False),
    "request_timeout": ErrorCode(408, RefusalReason.REQUEST),
    "request_too_large": ErrorCode(413, RefusalReason.REQUEST),
    "unsupported_media_type": ErrorCode(415, RefusalReason.REQUEST),
    "other_embedding_space": ErrorCode(409, RefusalReason.REQUEST),
    "wrong_cell": ErrorCode(421, RefusalReason.TERRITORY),
    "rate_limited": ErrorCode(429, RefusalReason.CAPACITY),
    "headers_too_large": ErrorCode(431, RefusalReason.REQUEST, has_region=False),
    "region_blocked": ErrorCode(451, RefusalReason.TERRITORY),
    "region_unknown": ErrorCode(451, RefusalReason.TERRITORY, has_region=False),
    "region_conflict": ErrorCode(451, RefusalReason.TERRITORY, has_region=False),
    "no_approved_deployment": ErrorCode(451, RefusalReason.APPROVAL),
    "no_eligible_deployment": ErrorCode(451, RefusalReason.TERRITORY),
    "internal_error": ErrorCode(500, RefusalReason.INTERNAL),
    "receipt_damaged": ErrorCode(500, RefusalReason.INTERNAL, has_region=False),
    "provider_error": ErrorCode(502, RefusalReason.OUTAGE),
    "no_healthy_deployment": ErrorCode(503, RefusalReason.OUTAGE),
    "overloaded": ErrorCode(503, RefusalReason.CAPACITY),
    "keys_unavailable": ErrorCode(503, RefusalReason.OUTAGE, has_region=False),
    "moderation_unavailable": ErrorCode(503, RefusalReason.OUTAGE),
    "deadline_exceeded": ErrorCode(504, RefusalReason.OUTAGE),
    "stream_interrupted": ErrorCode(502, RefusalReason.OUTAGE),
    "insufficient_quota": ErrorCode(429, RefusalReason.BUDGET),
    "price_unknown": ErrorCode(400, RefusalReason.BUDGET),
    "request_too_expensive": ErrorCode(400, RefusalReason.BUDGET),
    "user_required": ErrorCode(400, RefusalReason.REQUEST),
    "gate_unavailable": ErrorCode(503, RefusalReason.BUDGET),
}
STATUS = {code: it.status for code, it in ERROR_CODES.items()}
REASON_BY_CODE = {code: it.reason for code, it in ERROR_CODES.items()}
CODES_WITHOUT_A_REGION = frozenset(code for code, it in ERROR_CODES.items() if not it.has_region)
