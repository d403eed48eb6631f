"""What to tell who asks for a path that there isn't: the path that was meant, or the API that isn't spoken here."""

from __future__ import annotations

import re

__all__ = ["hint_for"]

_CHAT = "POST /v1/chat/completions"
_PATHS = (
    ("/chat/completions", _CHAT),
    ("/models", "GET /v1/models"),
    ("/explain", "GET /v1/explain"),
    ("/disclosure", "GET /v1/disclosure"),
    ("/healthz", "GET /healthz"),
    ("/readyz", "GET /readyz"),
    ("/docs", "GET /docs"),
)
# What other gateways and Kubernetes' own servers call these, and people put into the probes of a deployment.
_PROBES = {
    "/health/liveliness": "GET /healthz",
    "/health/liveness": "GET /healthz",
    "/health/live": "GET /healthz",
    "/livez": "GET /healthz",
    "/live": "GET /healthz",
    "/ping": "GET /healthz",
    "/status": "GET /healthz",
    "/health/readiness": "GET /readyz",
    "/health/ready": "GET /readyz",
    "/ready": "GET /readyz",
}
_ADMIN = frozenset({"/metrics", "/reload", "/config/reload", "/rollback"})
_THERE_ARE = f"there are {_CHAT}, GET /v1/models, /v1/explain, /v1/disclosure, /v1/receipts and /docs"
# OpenAI's further endpoints, Anthropic's, and those that other gateways have.
_OTHER_APIS = frozenset(
    "completions embeddings messages audio images videos files uploads batches moderations assistants threads"
    " fine_tuning vector_stores realtime conversations rerank".split()
)
_SLASHES = re.compile(r"//+")


def hint_for(path: str) -> str:
    """What there is instead of the path; nothing of it is quoted back."""
    plain = _SLASHES.sub("/", path.lower()).rstrip("/")
    # Behind the last `/v1`: people put such a path behind one of another gateway's, or behind ours.
    called = plain.rpartition("/v1/")[2].removeprefix("/").partition("/")[0]
    if called == "responses":
        return f"OpenAI's Responses API is not spoken here: let your client use chat completions, {_CHAT}"
    if (probe := _PROBES.get(plain)) is not None:
        return f"did you mean {probe}?"
    if plain in _ADMIN:
        return "metrics, reload and rollback are on the admin listener (GATEWAY_ADMIN_HOST, GATEWAY_ADMIN_PORT)"
    for ending, meant in _PATHS:
        if plain.endswith(ending):
            return f"did you mean {meant}? The base URL of OpenAI's clients ends in /v1, without a slash behind a path"
    if called in _OTHER_APIS:
        return f"this API is not spoken here: the gateway answers chats only, {_CHAT}"
    return _THERE_ARE
