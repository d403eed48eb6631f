"""The endpoints in the OpenAPI document, from which the page `/docs` is made: schemas, and examples that work."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, get_args

from gateway.api.errors import STATUS, ApiError, encode_error
from gateway.model.approval import ApprovalKind
from gateway.model.refusal_reason import RefusalReason
from gateway.model.region_text import Show

EXAMPLES: dict[str, Any] = json.loads(resources.files(__package__).joinpath("openapi_examples.json").read_text("utf-8"))
"""Requests and answers that a test compares with a running gateway, and a message for each error code."""

_STREAM = "".join(f"{event}\n\n" for event in EXAMPLES["stream"])
_MODEL_ENTRY = EXAMPLES["model_entry"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "reason"],
            "properties": {
                "message": {
                    "type": "string",
                    "description": "The problem, its place, and how to fix it.",
                },
                "type": {"type": "string", "description": "One of OpenAI's error types."},
                "param": {"type": ["string", "null"], "description": "The field of the request, if one is wrong."},
                "code": {"type": "string", "description": "Make decisions by this code.", "enum": sorted(STATUS)},
                "reason": {
                    "type": "string",
                    "description": "The kind of sentence for a user. A code has one reason, a reason several codes.",
                    "enum": [*RefusalReason],
                },
                "user_message": {"type": "string", "description": "A sentence for the user, in the user's language."},
                "user_message_language": {"type": "string", "description": "Its language tag, such as zh-Hant."},
                "consent": {
                    "type": "object",
                    "description": "With `consent_required`: the consent that is needed.",
                },
                "home": {"type": "string", "description": "With `wrong_cell`: the URL of the cell for this region."},
                "attempts": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "With 502, 503 and 504, and a provider's 429: the attempts and what followed each.",
                },
            },
        }
    },
}
ELSEWHERE = frozenset({409, 501})
"""Statuses that no chat returns."""
WHEN = {
    400: "The request is invalid, or no deployment supports it.",
    401: "The key is missing or unknown.",
    403: "The caller is not allowed, a rule for minors refuses it, or consent is missing: see `error.consent`.",
    404: "The assistant does not exist for this key.",
    405: "The path does not have this method.",
    408: "The request did not arrive in time.",
    409: "The vectors here are of another space than `x-gateway-embedding-space` requires.",
    413: "The body is larger than 32 MB.",
    415: "The body is not JSON, or is compressed.",
    421: "Another installation serves this region; its URL is in `location`.",
    429: "A rate limit is reached; `retry-after` has the time to wait.",
    431: "The headers are larger than 64 KB.",
    451: "Law or policy: the location is blocked or unknown, or no deployment may answer there.",
    500: "An internal error of the gateway.",
    501: "The gateway does not have this method of another API.",
    502: "The providers failed; `error.attempts` lists the attempts.",
    503: "No deployment is available now; `retry-after` has the time to wait.",
    504: "No provider answered in time.",
}
"""The description of each status."""


def _failures(*statuses: int) -> dict[str, dict[str, Any]]:
    """Return the error responses of these statuses, each with an example of every code."""
    return {str(status): _failure(status) for status in statuses}


def _failure(status: int) -> dict[str, Any]:
    errors = {code: error for code, error in EXAMPLES["errors"].items() if STATUS[code] == status}
    examples = {
        code: {"summary": code, "value": encode_error(ApiError(code, error["message"], error["param"]))}
        for code, error in errors.items()
    }
    return {"description": WHEN[status], "content": {"application/json": {"schema": _ERROR, "examples": examples}}}


DEMO_LOCATION = {
    "name": "cf-ipcountry",
    "in": "header",
    "required": False,
    "description": "In the demo: your territory, as an edge would send it, such as DE, US, CN, JP, HK or CU. The "
    "default is that of `gateway demo --territory`.",
    "schema": {"type": "string", "default": "DE"},
}
"""The header that locates the caller in a demo, where every client is trusted as the edge."""

_MILLISECONDS = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_HEADERS = {
    "x-gateway-territory": "The user's territory, such as DE. For backends whose key may assert it.",
    "x-gateway-user": "A stable identifier of the user. For backends whose key may assert it.",
    "x-gateway-claim": "A signed token about the user, if the operator has configured an issuer.",
    "x-gateway-consent": "The token of a `consent_required`, after the user has agreed; or `granted`, from a backend.",
    "x-gateway-timeout-ms": "Shortens the deadline of this request.",
    "x-request-id": "Returned in the response and written to the log.",
    "traceparent": "Your trace (W3C), which the gateway's spans continue. It is not sent to providers.",
}


def _header(name: str, description: str) -> dict[str, Any]:
    schema = _MILLISECONDS if name.endswith("-ms") else {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


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
        "max_completion_tokens": {**_WHOLE, "minimum": 1, "description": "Includes reasoning. `max_tokens` works too."},
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
        "OpenAI's chat completions. `model` is the name of an assistant. The caller's location decides which "
        "deployment answers; the `x-gateway-*` response headers name it. Parameters that the provider does not support "
        "are left out and listed in `x-gateway-dropped`."
    ),
    "operationId": "chat_completions",
    "parameters": [_header(name, description) for name, description in _HEADERS.items()],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _REQUEST, "examples": EXAMPLES["requests"]}},
    },
    "responses": {
        "200": {
            "description": "The answer, whole or as a stream of events.",
            "content": {
                "application/json": {"schema": {"type": "object"}, "examples": EXAMPLES["answers"]},
                # No schema: for OpenAPI 3.1, tools disagree whether it describes the stream or each event.
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
        **_failures(*(status for status in WHEN if status not in ELSEWHERE)),
    },
}

_SPACE = "The space that the vectors must have, `model@length`, as an earlier answer named it. Else 409."


def _input_operation(
    use: str, summary: str, description: str, properties: dict[str, Any], statuses: tuple[int, ...], **headers: str
) -> dict[str, Any]:
    required = ["input"] if use == "moderations" else ["model", "input"]
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": True}
    named = {**_HEADERS, **{name.replace("_", "-"): about for name, about in headers.items()}}
    answer = {"schema": {"type": "object"}, "example": EXAMPLES["inputs"][use]["answer"]}
    return {
        "tags": [use],
        "summary": summary,
        "description": description,
        "operationId": use,
        "parameters": [_header(name, about) for name, about in named.items()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": EXAMPLES["inputs"][use]["request"]}},
        },
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": answer}},
            **_failures(*statuses),
        },
    }


_ASSISTANT = {"type": "string", "description": "The name of an assistant, or one of its aliases."}
INPUT_OPERATIONS: dict[str, Any] = {
    "/v1/embeddings": {
        "post": _input_operation(
            "embeddings",
            "Compute vectors of texts",
            "OpenAI's embeddings. The response header `x-gateway-embedding-space` names the model and the length of "
            "the vectors. Vectors of two spaces cannot be compared.",
            {
                "model": _ASSISTANT,
                "input": {
                    "description": "A text, a list of texts, or tokens where the model takes them.",
                    "oneOf": [_TEXT, {"type": "array", "minItems": 1, "maxItems": 2048}],
                },
                "dimensions": {**_WHOLE, "minimum": 1},
                "encoding_format": {"type": "string", "enum": ["float", "base64"], "default": "float"},
                "user": _TEXT,
            },
            tuple(status for status in WHEN if status != 501),
            x_gateway_embedding_space=_SPACE,
        )
    },
    "/v1/moderations": {
        "post": _input_operation(
            "moderations",
            "Classify content",
            "OpenAI's moderations. Without `model`, the only assistant of the key that has moderations answers.",
            {
                "model": _ASSISTANT,
                "input": {
                    "description": "A text, a list of texts, or parts (text, image_url) that get one verdict together.",
                    "oneOf": [_TEXT, {"type": "array", "minItems": 1, "maxItems": 2048}],
                },
            },
            tuple(status for status in WHEN if status not in ELSEWHERE),
        )
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
                "503": {"description": "The process is draining."},
            },
        }
    },
}


def _found(value: dict[str, Any], schema: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    content = {"schema": schema or {"type": "object"}, "example": value}
    success = {"description": "Found.", "content": {"application/json": content}}
    failures = _failures(401, 403, 404, 421, 429, 451)
    return {"200": success, **failures}


_MODELS = _found({"object": "list", "data": [_MODEL_ENTRY, {**_MODEL_ENTRY, "id": "gpt-4o"}]})
_NULLABLE = {"type": ["string", "null"]}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_APPROVAL = _object(
    authority={**_TEXT, "description": "The authority that gave the approval."},
    kind={"type": "string", "enum": sorted(get_args(ApprovalKind))},
    number={**_TEXT, "description": "The number, as the authority writes it."},
    model_name={**_TEXT, "description": "The public name of the approved model."},
    document={**_NULLABLE, "description": "An https URL of the document."},
)
_DISCLOSED = _object(
    deployment={**_TEXT, "description": "As in `x-gateway-deployment`."},
    model={**_NULLABLE, "description": "As `model` in an answer; null if the operator hides it."},
    model_name={**_NULLABLE, "description": "The public name; null without an approval."},
    approvals=_list_of(_APPROVAL),
    consent={"type": ["object", "null"], "description": "The consent that the user must give first, if any."},
)
_LABEL = _object(
    name=_TEXT,
    text={**_TEXT, "description": "The text, in the language that fits `accept-language`."},
    show={"type": "string", "enum": sorted(get_args(Show)), "description": "The answers that contain the text."},
)
_DISCLOSURE_SCHEMA = _object(
    object={"type": "string", "enum": ["disclosure"]},
    assistant=_TEXT,
    region=_TEXT,
    labels={**_list_of(_LABEL), "description": "The labels of answers in this region."},
    data={**_list_of(_DISCLOSED), "description": "The deployments that may answer a plain request now, in order."},
)
_DISCLOSURE = {**_found(EXAMPLES["disclosure"], _DISCLOSURE_SCHEMA), **_failures(400, 429, 503)}
_NUMBER_OR_NULL = {"type": ["integer", "null"]}
_RECIPIENT = {
    "recipient": _NULLABLE,
    "stores": _NULLABLE,
    "processes": _NULLABLE,
    "consent": {"type": ["object", "null"]},
}
_CAPABILITIES_SCHEMA = _object(
    object={"type": "string", "enum": ["capabilities"]},
    assistant=_TEXT,
    region=_TEXT,
    supported={**_list_of(_TEXT), "description": "The features that at least one deployment has."},
    by_all={**_list_of(_TEXT), "description": "The features that every deployment has."},
    context_tokens=_NUMBER_OR_NULL,
    max_output_tokens=_NUMBER_OR_NULL,
    labels=_list_of(_TEXT),
    locales=_list_of(_TEXT),
    moderation=_object(input={"type": "boolean"}, output={"type": "boolean"}),
    consent={**_list_of(_object(**_RECIPIENT)), "description": "The recipients that need the user's consent."},
    intents=_list_of(_TEXT),
    choices=_list_of(
        _object(id=_TEXT, title=_TEXT, available={"type": "boolean"}, reason=_NULLABLE, **_RECIPIENT),
    ),
)
_CAPABILITIES = {**_found(EXAMPLES["capabilities"], _CAPABILITIES_SCHEMA), **_failures(400, 429, 503)}
_EXPLAINED = {status: response for status, response in _found(_MODEL_ENTRY).items() if status != "200"}
_EXPLAINED |= _failures(400, 429, 503)
_RECEIPT_SCHEMA = _object(
    receipt={"type": "object", "description": "The routing of the request, without its content."},
    jws={**_NULLABLE, "description": "The signed receipt (a compact JWS, EdDSA); null if the gateway has no key."},
    key={**_NULLABLE, "description": "The public key that verifies it."},
)
_RECEIPT = {"200": _found(EXAMPLES["receipt"], _RECEIPT_SCHEMA)["200"], **_failures(401, 403, 404, 429)}
_SUMS = {
    **{f"{kind}_tokens": 0 for kind in ("cached", "cache_write", "reasoning")},
    **{"calls": 1, "input_tokens": 12, "output_tokens": 30, "total_tokens": 42},
    **{"amount": "0.000123456", "currency": "EUR", "vendor": {"USD": "0.000134192"}},
}
_NO_SUMS = {name: 0 if isinstance(value, int) else value for name, value in _SUMS.items()}
_NO_SUMS |= {"amount": "0.00", "vendor": {}}
_USAGE_TOTAL = {**_SUMS, "estimated": _NO_SUMS}
_USAGE_SCHEMA = _object(
    groups=_list_of({"type": "object"}),
    total={
        "type": "object",
        "description": "The sums of all groups. `estimated` is the part that was estimated. Members about the cost are "
        "left out if the client may not see it.",
    },
)
_USAGE_EXAMPLE = {"groups": [{"day": "2026-11-23", **_USAGE_TOTAL}], "total": _USAGE_TOTAL}
_USAGE = {"200": _found(_USAGE_EXAMPLE, _USAGE_SCHEMA)["200"], **_failures(400, 401, 403, 404, 429)}
RESPONSES = {
    "/v1/explain": _EXPLAINED,
    "/v1/models": _MODELS,
    "/v1/models/{name}": _found(_MODEL_ENTRY),
    "/v1/capabilities": _CAPABILITIES,
    "/v1/disclosure": _DISCLOSURE,
    "/v1/receipts/{id}": _RECEIPT,
    "/v1/usage": _USAGE,
}
"""The responses by path. FastAPI would remove each null from these examples, but `param` of an error may be null."""
