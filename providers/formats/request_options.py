"""Request options that several wire formats share: the nearest supported reasoning effort, and the end-user field."""

from __future__ import annotations

from collections.abc import Sequence

from providers.adapter import Target
from providers.chat import ChatRequest
from providers.failures import UnsupportedFeature
from providers.value import replace

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
SAFETY_IDENTIFIER = "safety_identifier"


def nearest_effort(wanted: str, known: Sequence[str], budget: int | None = None) -> str:
    """Return the strongest effort of the model that is not above `wanted`, or else the model's weakest.

    The `known` efforts are the weakest first. With a `budget` of the client, the weakest is the weakest that reasons.
    Raises UnsupportedFeature if `wanted` is not an effort.
    """
    if budget is not None:
        known = [effort for effort in known if effort != "none"] or known
    if wanted not in EFFORTS:
        raise UnsupportedFeature("reasoning_effort", f"`reasoning_effort` must be one of {', '.join(EFFORTS)}")
    weaker = [effort for effort in known if EFFORTS.index(effort) <= EFFORTS.index(wanted)]
    return weaker[-1] if weaker else known[0]


def with_end_user_in_user(request: ChatRequest, target: Target) -> ChatRequest:
    """Return the request with `safety_identifier` moved to `user`, unless the operator lists it in `passthrough`."""
    identifier = request.extra.get(SAFETY_IDENTIFIER)
    if not isinstance(identifier, str) or SAFETY_IDENTIFIER in target.passthrough:
        return request
    extra = {name: value for name, value in request.extra.items() if name != SAFETY_IDENTIFIER}
    return replace(request, user=identifier or request.user, extra=extra)
