"""The hint in a 404 response: the path that was probably meant."""

from __future__ import annotations

import re

from gateway.api.dialects.google_paths import METHODS, parse_path
from gateway.model.served import INPUTS

_CHAT = "POST /v1/chat/completions"
_GEMINI = "POST /v1beta/models/ASSISTANT:generateContent"

OWN_PATHS = (
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/completions",
)
"""The endpoints of chats in other dialects. A path of Gemini's API names its assistant, so it is not in a list."""
INPUT_PATHS = tuple(path for row in INPUTS.values() for path in row.paths)

_PATHS = (
    ("/chat/completions", _CHAT),
    *((path.removeprefix("/v1"), f"POST {path}") for path in (*OWN_PATHS, *INPUT_PATHS)),
    *((f"/{name}", f"GET /v1/{name}") for name in ("models", "capabilities", "explain", "disclosure", "usage")),
    *((path, f"GET {path}") for path in ("/healthz", "/readyz", "/docs")),
)

# The names of these probes in other gateways and in Kubernetes' own servers, which people configure by habit.
_PROBES = {
    **dict.fromkeys("/health/liveliness /health/liveness /health/live /livez /live /ping /status".split(), "/healthz"),
    **dict.fromkeys("/health/readiness /health/ready /ready".split(), "/readyz"),
}

_ADMIN = frozenset({"/metrics", "/reload", "/config/reload", "/rollback"})

_ALL_CHATS = ", ".join((_CHAT, *OWN_PATHS, "/v1beta/models/ASSISTANT:generateContent"))
_ALL_PATHS = (
    f"the paths are {_ALL_CHATS}, POST /v1/embeddings, /v1/moderations, /v1/rerank, /v1/decisions, "
    "/v1/audio/transcriptions, /v1/audio/translations and /v1/audio/speech, and GET /v1/models, "
    "/v1/capabilities, /v1/explain, /v1/disclosure, /v1/receipts, /v1/usage and /docs"
)

# Other endpoints of OpenAI, Anthropic and other gateways.
_OTHER_APIS = frozenset(
    "completions messages files uploads batches assistants threads fine_tuning vector_stores"
    " conversations rerank".split()
)

# APIs that are refused by name, each with the reason.
_NO_TEXT = "the gateway routes, checks and labels text only, so it has no {} API: send text to {}"
_UNSUITABLE_APIS = {
    "images": _NO_TEXT.format("image", f"{_CHAT}, which accepts images as input"),
    "videos": _NO_TEXT.format("video", _CHAT),
    "realtime": (
        "the gateway has no realtime API: it decides about each request, and a realtime session has no requests; send "
        f"text to {_CHAT} with `stream: true`"
    ),
}

# Where exporters of OpenTelemetry send. Telemetry can have prompts in it, and success would hide that it is lost.
_TELEMETRY = ("/v1/metrics", "/v1/logs", "/v1/traces")
_NO_COLLECTOR = "the gateway collects no telemetry of clients: set OTEL_EXPORTER_OTLP_ENDPOINT to your own collector"

# Paths of Ollama's own API.
_OLLAMA = frozenset(f"/api/{name}" for name in "chat generate embed embeddings tags show ps pull version".split())

# Where Gemini and System One have decisions.
_DECISIONS = ("/v1beta/decisions", "/v1/systemone")

_SLASHES = re.compile(r"//+")


def hint_for(path: str) -> str:
    """Return a hint at the path that was probably meant. It does not quote the given path."""
    plain = _SLASHES.sub("/", path.lower()).rstrip("/")
    # Only the part after the last `/v1` counts: clients append their path to a base URL that may have a path itself.
    api = plain.rpartition("/v1/")[2].removeprefix("/").partition("/")[0]
    if plain.endswith(_DECISIONS):
        return "decisions have OpenAI's form here: POST /v1/decisions"
    if plain.startswith("/v1beta") or parse_path(path) is not None:
        asked = parse_path(path)
        offered = f"the gateway has the methods {', '.join(METHODS)} of Gemini's API, such as {_GEMINI}"
        if asked is None:
            return offered
        # The method is text of the client, so it is compared and never quoted.
        near = next((name for name in METHODS if name.lower() == asked.method.lower()), None)
        return f"did you mean :{near}? Names of methods are case-sensitive" if near is not None else offered
    if (reason := _UNSUITABLE_APIS.get(api)) is not None:
        return reason
    if plain.endswith(_TELEMETRY):
        return _NO_COLLECTOR
    if plain in _OLLAMA:
        return (
            "Ollama's own API is not supported, because the gateway answers in the form of OpenAI's API only: "
            f"configure your client for OpenAI's API, with a base URL that ends in /v1, {_CHAT}"
        )
    if (probe := _PROBES.get(plain)) is not None:
        return f"did you mean GET {probe}?"
    if plain in _ADMIN:
        return "metrics, reload and rollback are on the admin listener (GATEWAY_ADMIN_HOST, GATEWAY_ADMIN_PORT)"
    for ending, probable in _PATHS:
        if plain.endswith(ending):
            is_anthropic = probable.startswith("POST /v1/messages")
            base = "Anthropic's clients ends without /v1" if is_anthropic else "OpenAI's clients ends in /v1"
            return f"did you mean {probable}? The base URL for {base}, and paths have no final slash"
    if api == "responses":
        if plain.endswith("/compact"):
            return "the gateway compacts no conversation: shorten it in the client, and send what is left in `input`"
        return (
            "the gateway keeps no answer, so there is none to get, cancel or delete: only POST /v1/responses is there"
        )
    if f"/v1/{api}" in OWN_PATHS:
        return f"the gateway keeps no answers and no batches, so only POST /v1/{api} is there"
    if api in _OTHER_APIS:
        return f"this API is not supported: the gateway has {_ALL_CHATS}, {' and '.join(INPUT_PATHS)}"
    return _ALL_PATHS
