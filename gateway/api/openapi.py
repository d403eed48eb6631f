"""The endpoints as they stand in the OpenAPI document: their shapes, and examples that work as they are.

The page at `/docs` is made of this.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, get_args

from gateway.api.errors import STATUS, ApiError, encode_error
from gateway.model.approval import ApprovalKind
from gateway.model.region_text import Show

EXAMPLES: dict[str, Any] = json.loads(resources.files(__package__).joinpath("openapi_examples.json").read_text("utf-8"))
"""Requests and answers that a test sends to a real gateway, and a message for each error code."""

_STREAM = "".join(f"{event}\n\n" for event in EXAMPLES["stream"])
_MODEL_ENTRY = EXAMPLES["model_entry"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, where, and how to mend it."},
                "type": {"type": "string", "description": "One of OpenAI's."},
                "param": {"type": ["string", "null"], "description": "The place in the request, if there is one."},
                "code": {"type": "string", "description": "Decide by this.", "enum": sorted(STATUS)},
                "consent": {"type": "object", "description": "With `consent_required`: what to ask the person."},
                "home": {"type": "string", "description": "With `wrong_cell`: the URL of the one that serves you."},
                "attempts": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "With 502, 503 and 504, and a provider's 429: who was asked, and what came of it.",
                },
            },
        }
    },
}
_WHEN = {
    400: "The request is wrong, or nobody can do what it asks.",
    401: "No key, or an unknown one.",
    403: "This caller may not ask, or the person must be asked first: `error.consent` says what.",
    404: "No such assistant for this key.",
    405: "Not with this method.",
    408: "The request did not arrive in time.",
    413: "More than 32 MB.",
    415: "Not JSON, or compressed.",
    421: "Another installation serves this region; `location` names it.",
    429: "Too much at once; `retry-after` says when to come back.",
    431: "More than 64 KB of headers.",
    451: "Law or policy: a blocked or unknown place, or nobody who may answer there.",
    500: "A fault of the gateway's own.",
    502: "The providers failed; `error.attempts` lists what was tried.",
    503: "Nobody can be asked right now; `retry-after` says when to come back.",
    504: "Nobody answered in time.",
}


def _failures(*statuses: int) -> dict[str, dict[str, Any]]:
    """The error responses, each with an example of each of its codes."""
    return {str(status): _failure(status) for status in statuses}


def _failure(status: int) -> dict[str, Any]:
    errors = {code: error for code, error in EXAMPLES["errors"].items() if STATUS[code] == status}
    examples = {
        code: {"summary": code, "value": encode_error(ApiError(code, error["message"], error["param"]))}
        for code, error in errors.items()
    }
    return {"description": _WHEN[status], "content": {"application/json": {"schema": _ERROR, "examples": examples}}}


DEMO_PLACE = {
    "name": "cf-ipcountry",
    "in": "header",
    "required": False,
    "description": "In the demo: where you are, as an edge would say it. DE, US, CN, JP, HK, CU, …",
    "schema": {"type": "string", "default": "DE"},
}
"""What makes the examples work on the page of a demo, which takes anybody for its edge."""

_MILLISECONDS = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_HEADERS = {
    "x-gateway-territory": "The person's territory, such as DE: from a backend whose key may assert it.",
    "x-gateway-user": "Who the person is to you, in any word that stays: from a backend whose key may assert it.",
    "x-gateway-claim": "A signed token about the person, where the operator has named an issuer.",
    "x-gateway-consent": "The token of a `consent_required`, once the person has agreed; or `granted`, from a backend.",
    "x-gateway-timeout-ms": "Shortens the time that this request may take.",
    "x-request-id": "Comes back, and stands in the log.",
    "traceparent": "Your trace (W3C): the gateway's spans go on with it. No provider sees it.",
}


def _header(name: str, told: str) -> dict[str, Any]:
    schema = _MILLISECONDS if name.endswith("-ms") else {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": told, "schema": schema}


_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_WHOLE = {"type": "integer"}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {"type": "string", "description": "The name of an assistant, or one of its aliases."},
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2048,
            "description": "The conversation so far, as at OpenAI.",
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
                    "content": {
                        "description": "Text, or parts: text, image_url, input_audio, file.",
                        "oneOf": [_TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}],
                    },
                },
            },
        },
        "stream": {"type": "boolean", "default": False},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "max_completion_tokens": {**_WHOLE, "minimum": 1, "description": "Reasoning included; also `max_tokens`."},
        "temperature": {**_NUMBER, "minimum": 0, "maximum": 2},
        "top_p": {**_NUMBER, "minimum": 0, "maximum": 1},
        "presence_penalty": {**_NUMBER, "minimum": -2, "maximum": 2},
        "frequency_penalty": {**_NUMBER, "minimum": -2, "maximum": 2},
        "seed": _WHOLE,
        "stop": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 4}]},
        "n": {**_WHOLE, "minimum": 1, "maximum": 128},
        "logprobs": {"type": "boolean"},
        "top_logprobs": {**_WHOLE, "minimum": 0, "maximum": 20},
        "tools": {"type": "array", "items": {"type": "object"}, "description": "Functions that may be called."},
        "tool_choice": {
            "description": "`auto`, `none`, `required`, one function, or allowed tools.",
            "oneOf": [{"type": "string", "enum": ["auto", "none", "required"]}, {"type": "object"}],
        },
        "parallel_tool_calls": {"type": "boolean"},
        "response_format": {"type": "object", "description": "`text`, `json_object` or `json_schema`."},
        "reasoning_effort": {
            "type": "string",
            "enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
        },
        "user": _TEXT,
    },
    "additionalProperties": True,
}

COMPONENTS = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "The client's key."}}}
SECURITY: list[dict[str, list[str]]] = [{"key": []}]

CHAT_OPERATION: dict[str, Any] = {
    "tags": ["chat"],
    "summary": "Ask an assistant",
    "description": (
        "OpenAI's chat completions. `model` is the name of an assistant; who answers depends on where the caller is, "
        "and is told in the `x-gateway-*` response headers. A parameter that the provider doesn't have is left out and "
        "named in `x-gateway-dropped`."
    ),
    "operationId": "chat_completions",
    "parameters": [_header(name, told) for name, told in _HEADERS.items()],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _REQUEST, "examples": EXAMPLES["requests"]}},
    },
    "responses": {
        "200": {
            "description": "The answer, whole or as a stream of events.",
            "content": {
                "application/json": {"schema": {"type": "object"}, "examples": EXAMPLES["answers"]},
                # Without a schema: of 3.1, tools disagree whether one is of the stream or of each event.
                "text/event-stream": {
                    "examples": {
                        "stream": {
                            "summary": "A stream with usage",
                            "value": _STREAM,
                        }
                    },
                },
            },
        },
        **_failures(*_WHEN),
    },
}

_WORD_SCHEMA = {"additionalProperties": _TEXT, "type": "object", "title": "Response Healthz Healthz Get"}
HEALTH_OPERATIONS: dict[str, Any] = {
    "/healthz": {
        "get": {
            "tags": ["health"],
            "summary": "Is the process alive?",
            "operationId": "healthz_healthz_get",
            "responses": {
                "200": {
                    "description": "Successful Response",
                    "content": {"application/json": {"schema": _WORD_SCHEMA}},
                }
            },
        }
    },
    "/readyz": {
        "get": {
            "tags": ["health"],
            "summary": "Can it serve?",
            "operationId": "readyz_readyz_get",
            "responses": {
                "200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}},
                "503": {"description": "It is about to end."},
            },
        }
    },
}


def _found(value: dict[str, Any], schema: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    content = {"schema": schema or {"type": "object"}, "example": value}
    found = {"description": "Found.", "content": {"application/json": content}}
    failures = _failures(401, 403, 404, 421, 429, 451)
    return {"200": found, **failures}


_MODELS = _found({"object": "list", "data": [_MODEL_ENTRY, {**_MODEL_ENTRY, "id": "gpt-4o"}]})
_NULLABLE = {"type": ["string", "null"]}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_APPROVAL = _object(
    authority={**_TEXT, "description": "Who gave it."},
    kind={"type": "string", "enum": sorted(get_args(ApprovalKind))},
    number={**_TEXT, "description": "As the authority writes it."},
    model_name={**_TEXT, "description": "The public name that it stands for."},
    document={**_NULLABLE, "description": "An https URL where it can be read."},
)
_DISCLOSED = _object(
    deployment={**_TEXT, "description": "As in `x-gateway-deployment`."},
    model={**_NULLABLE, "description": "As `model` in an answer; null where the operator hides it."},
    model_name={**_NULLABLE, "description": "The public name; null where no approval is on record."},
    approvals=_list_of(_APPROVAL),
    consent={"type": ["object", "null"], "description": "What the person must have agreed to first, if anything."},
)
_LABEL = _object(
    name=_TEXT,
    text={**_TEXT, "description": "The words, in the language that fits `accept-language`."},
    show={"type": "string", "enum": sorted(get_args(Show)), "description": "On which answers they stand in the text."},
)
_DISCLOSURE_SCHEMA = _object(
    object={"type": "string", "enum": ["disclosure"]},
    assistant=_TEXT,
    region=_TEXT,
    labels={**_list_of(_LABEL), "description": "What is said on answers here."},
    data={**_list_of(_DISCLOSED), "description": "Who may answer a plain request now, in order."},
)
_DISCLOSURE = {**_found(EXAMPLES["disclosure"], _DISCLOSURE_SCHEMA), **_failures(400, 429, 503)}
_EXPLAINED = {key: told for key, told in _found(_MODEL_ENTRY).items() if key != "200"} | _failures(400, 429, 503)
_RECEIPT_SCHEMA = _object(
    receipt={"type": "object", "description": "What became of the request, without a word of it."},
    jws={**_NULLABLE, "description": "The receipt, signed (a compact JWS, EdDSA); null where the gateway has no key."},
    key={**_NULLABLE, "description": "The public key that verifies it."},
)
_RECEIPT = {"200": _found(EXAMPLES["receipt"], _RECEIPT_SCHEMA)["200"], **_failures(401, 403, 404, 429)}
RESPONSES = {
    "/v1/explain": _EXPLAINED,
    "/v1/models": _MODELS,
    "/v1/models/{name}": _found(_MODEL_ENTRY),
    "/v1/disclosure": _DISCLOSURE,
    "/v1/receipts/{id}": _RECEIPT,
}
"""By path. FastAPI would leave every null out of these examples, and our errors have a `param` that may be null."""
