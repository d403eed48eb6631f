"""Request options that several wire formats share: the nearest reasoning effort, and one end-user field."""

from __future__ import annotations

from collections.abc import Sequence

from providers.adapter import Target
from providers.chat import ChatRequest, change_request
from providers.failures import UnsupportedFeature

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def nearest_effort(wanted: str, known: Sequence[str]) -> str:
    """The strongest effort of the model that isn't above what is wanted, else its weakest; `known` is weakest first."""
    if wanted not in EFFORTS:
        raise UnsupportedFeature("reasoning_effort", f"`reasoning_effort` must be one of {', '.join(EFFORTS)}")
    weaker = [effort for effort in known if EFFORTS.index(effort) <= EFFORTS.index(wanted)]
    return weaker[-1] if weaker else known[0]


SAFETY_IDENTIFIER = "safety_identifier"


def with_one_name(request: ChatRequest, target: Target) -> ChatRequest:
    """The request with its newer word for who asks in `user`, unless the operator lets it through as it is."""
    said = request.extra.get(SAFETY_IDENTIFIER)
    if not isinstance(said, str) or SAFETY_IDENTIFIER in target.passthrough:
        return request
    extra = {name: value for name, value in request.extra.items() if name != SAFETY_IDENTIFIER}
    return change_request(request, user=said or request.user, extra=extra)
