"""Who asks, for vendors that have one field for it where OpenAI has two: `safety_identifier`, and before it `user`."""

from __future__ import annotations

from providers.adapter import Target
from providers.chat import ChatRequest, change_request

__all__ = ["SAFETY_IDENTIFIER", "with_one_name"]

SAFETY_IDENTIFIER = "safety_identifier"


def with_one_name(request: ChatRequest, target: Target) -> ChatRequest:
    """The request with its newer word for who asks in `user`, unless the operator lets it through as it is."""
    said = request.extra.get(SAFETY_IDENTIFIER)
    if not isinstance(said, str) or SAFETY_IDENTIFIER in target.passthrough:
        return request
    extra = {name: value for name, value in request.extra.items() if name != SAFETY_IDENTIFIER}
    return change_request(request, user=said or request.user, extra=extra)
