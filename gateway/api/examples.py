"""Requests and answers as the OpenAPI document shows them: real ones, which a test sends to a real gateway."""

from __future__ import annotations

from typing import Any

_HELLO: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "Hello! Who are you?"}]}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["name", "inhabitants"],
    "additionalProperties": False,
}
# 8 by 8 pixels of red.
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/wc53yE8AAA"
    "AASUVORK5CYII="
)
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("One answer", _HELLO),
    "stream": ("A stream", {**_HELLO, "stream": True, "stream_options": {"include_usage": True}}),
    "tools": (
        "A tool to call",
        {"model": "assistant", "messages": [{"role": "user", "content": "Weather in Oslo?"}], "tools": [_WEATHER]},
    ),
    "tool_result": (
        "The result of a call",
        {
            "model": "assistant",
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "-3 °C, snow"},
            ],
            "tools": [_WEATHER],
        },
    ),
    "image": (
        "An image",
        {
            "model": "assistant",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What colour is this?"},
                        {"type": "image_url", "image_url": {"url": _PIXEL}},
                    ],
                }
            ],
        },
    ),
    "json_schema": (
        "An answer in a given shape",
        {
            "model": "assistant",
            "messages": [{"role": "user", "content": "Name a city, as JSON."}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": _CITY},
            },
        },
    ),
}
_FRAME = {
    "id": "chatcmpl-1",
    "created": 1795132800,
    "model": "gpt-6-luna",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}
_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def _whole(message: dict[str, Any], finish: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None, **message},
        "logprobs": None,
        "finish_reason": finish,
    }
    return {**_FRAME, "object": "chat.completion", "choices": [choice], "usage": _USAGE}


_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("Text", _whole({"content": "Hello! I am an assistant."}, "stop")),
    "tools": ("A call of a tool", _whole({"tool_calls": [_CALL]}, "tool_calls")),
    "json_schema": ("JSON", _whole({"content": '{"name":"Oslo","inhabitants":717710}'}, "stop")),
}
_CHUNK = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795132800,"model":"gpt-6-luna",'
    '"service_tier":"default","system_fingerprint":"fp_1","choices":['
)
STREAM = "".join(
    f"data: {line}\n\n"
    for line in (
        _CHUNK + '{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}],"usage":null}',
        _CHUNK + '{"index":0,"delta":{"content":"!"},"finish_reason":null}],"usage":null}',
        _CHUNK + '{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}',
        _CHUNK + '],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}',
        "[DONE]",
    )
)
RECEIPT: dict[str, Any] = {
    "receipt": {
        "version": 1,
        "id": "req_5f1c0a3b9d2e4f601",
        "at": "2026-11-20T14:30:05.120+00:00",
        "client": "ios-app",
        "assistant": "assistant",
        "region": "eu",
        "territory": "DE",
        "evidence": "edge_header",
        "boundary": "@EEA, CH",
        "gateway": "DE",
        "table": "033e2052fe64",
        "outcome": "ok",
        "status": 200,
        "code": None,
        "answered_by": "chatgpt-eu",
        "stores": "@EEA, CH",
        "processes": "@EEA, CH",
        "tried": [
            {
                "deployment": "chatgpt-eu",
                "provider": "openai-compatible",
                "model": "gpt-6-luna",
                "stores": "@EEA, CH",
                "processes": "@EEA, CH",
                "outcome": "ok",
            }
        ],
        "shadow": None,
        "passed_over": {},
        "resumed_after": None,
        "dropped": [],
        "labels": ["eu-art50"],
        "profile": None,
    },
    "jws": None,
    "key": None,
}
MODEL_ENTRY = {"id": "assistant", "object": "model", "created": 1795132800, "owned_by": "gateway"}
DISCLOSURE = {
    "object": "disclosure",
    "assistant": "assistant",
    "region": "cn",
    "labels": [{"name": "cn-gb45438", "text": "内容由AI生成", "show": "always"}],
    "data": [
        {
            "deployment": "qwen-cn",
            "model": "qwen3-max",
            "model_name": "通义千问",
            "approvals": [
                {
                    "authority": "CAC",
                    "kind": "model_filing",
                    "number": "ZheJiang-TongYiQianWen-20230901",
                    "model_name": "通义千问",
                    "document": None,
                }
            ],
            "consent": None,
        }
    ],
}
MESSAGES = {
    "invalid_request": ("`messages[0].content` is required", "messages[0].content"),
    "context_length_exceeded": ("the prompt is too long", None),
    "unsupported_capability": (
        "no eligible deployment of 'assistant' in region 'cn' can do what is asked (qwen-cn: can't do vision): see "
        "`messages`",
        "messages",
    ),
    "content_filter": ("the provider's safety system refused this", None),
    "invalid_api_key": (
        "this key is not known here: send one that this gateway's operator gave you, not a provider's",
        None,
    ),
    "permission_denied": ("this gateway has no client keys, so it serves its own machine only", None),
    "consent_required": (
        "this would be sent to OpenAI (stores: US; processes: US), and the person has not agreed to that: ask, and "
        "send it again with what brings the yes in `x-gateway-consent`",
        None,
    ),
    "model_not_found": ("there is no assistant 'asistant' for this key; did you mean 'assistant'?", "model"),
    "method_not_allowed": ("GET is not allowed here; use POST", None),
    "request_timeout": ("the body did not arrive within 60 seconds", None),
    "request_too_large": ("the body is larger than 32 MB (33554432 bytes): send less, or smaller images", None),
    "unsupported_media_type": ("send `content-type: application/json`, not 'text/plain'", None),
    "wrong_cell": ("this cell doesn't serve the region 'cn'; its home is https://cn.assistant.example", None),
    "rate_limited": ("the provider limits the rate of requests", None),
    "headers_too_large": ("the headers are larger than 65536 bytes", None),
    "region_blocked": ("the assistant is not offered in Cuba", None),
    "region_unknown": ("where this request comes from is not known, and this gateway doesn't guess", None),
    "region_conflict": ("the signals of this request's place contradict: api_key says cn, edge_header says eu", None),
    "no_approved_deployment": (
        "no deployment of 'assistant' may answer here: qwen-cn: its approval for region 'cn' ended on 2026-11-01",
        None,
    ),
    "no_eligible_deployment": ("no deployment of 'assistant' may answer here", None),
    "internal_error": ("something went wrong inside the gateway; the request id finds it in the log", None),
    "provider_error": ("the provider failed", None),
    "no_healthy_deployment": (
        "no deployment of 'assistant' in region 'eu' can be asked right now: they fail, or are switched off",
        None,
    ),
    "overloaded": ("this gateway has as many streams open as it can", None),
    "deadline_exceeded": ("the provider did not answer in time", None),
}
"""A message of each code, and its `param`."""
