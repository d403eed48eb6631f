"""Parts of requests that several formats share: the nearest reasoning effort, the end-user field, Azure's paths."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

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


_AZURE_VERSION = "2024-10-21"


def azure_path(target: Target, call: str = "/chat/completions") -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return path and query for Azure's two APIs: below `/openai`, the deployment's name is part of the path."""
    base = target.base_path
    if base.endswith("/openai"):
        if target.model in ("", ".", ".."):
            raise UnsupportedFeature("model", f"the Azure deployment's name {target.model!r} cannot be part of a path")
        base = f"{base}/deployments/{quote(target.model, safe='')}"
    return f"{base}{call}", (("api-version", _AZURE_VERSION),) if "/openai/deployments/" in base else ()
