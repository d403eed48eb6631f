"""The closed set of reasons for which a request is not answered, and the reason of each error code.

An error code names the exact cause and belongs to the API. A reason is coarser: it decides the sentence that a user
reads, in every language and in every dialect. Each code has exactly one reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

CODES_WITHOUT_A_REGION = frozenset(
    {
        "invalid_api_key",
        "key_of_another_cell",
        "keys_unavailable",
        "headers_too_large",
        "not_found",
        "method_not_allowed",
        "websocket_not_offered",
        "not_implemented",
        "receipt_damaged",
        "region_unknown",
        "region_conflict",
    }
)
"""The codes of errors that arise where the region of the request is not known."""


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


REASON_BY_CODE: Mapping[str, RefusalReason] = {
    "invalid_request": RefusalReason.REQUEST,
    "context_length_exceeded": RefusalReason.CAPABILITY,
    "unsupported_capability": RefusalReason.CAPABILITY,
    "content_filter": RefusalReason.MODERATION,
    "invalid_api_key": RefusalReason.ACCESS,
    "key_of_another_cell": RefusalReason.ACCESS,
    "permission_denied": RefusalReason.ACCESS,
    "consent_required": RefusalReason.CONSENT,
    "age_restricted": RefusalReason.AGE,
    "model_not_found": RefusalReason.REQUEST,
    "not_found": RefusalReason.REQUEST,
    "method_not_allowed": RefusalReason.REQUEST,
    "websocket_not_offered": RefusalReason.REQUEST,
    "not_implemented": RefusalReason.REQUEST,
    "request_timeout": RefusalReason.REQUEST,
    "request_too_large": RefusalReason.REQUEST,
    "unsupported_media_type": RefusalReason.REQUEST,
    "other_embedding_space": RefusalReason.REQUEST,
    "wrong_cell": RefusalReason.TERRITORY,
    "rate_limited": RefusalReason.CAPACITY,
    "headers_too_large": RefusalReason.REQUEST,
    "region_blocked": RefusalReason.TERRITORY,
    "region_unknown": RefusalReason.TERRITORY,
    "region_conflict": RefusalReason.TERRITORY,
    "no_approved_deployment": RefusalReason.APPROVAL,
    "no_eligible_deployment": RefusalReason.TERRITORY,
    "internal_error": RefusalReason.INTERNAL,
    "receipt_damaged": RefusalReason.INTERNAL,
    "provider_error": RefusalReason.OUTAGE,
    "no_healthy_deployment": RefusalReason.OUTAGE,
    "overloaded": RefusalReason.CAPACITY,
    "keys_unavailable": RefusalReason.OUTAGE,
    "moderation_unavailable": RefusalReason.OUTAGE,
    "deadline_exceeded": RefusalReason.OUTAGE,
    "stream_interrupted": RefusalReason.OUTAGE,
    "insufficient_quota": RefusalReason.BUDGET,
    "price_unknown": RefusalReason.BUDGET,
    "request_too_expensive": RefusalReason.BUDGET,
    "user_required": RefusalReason.REQUEST,
    "gate_unavailable": RefusalReason.BUDGET,
}
