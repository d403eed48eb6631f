"""The part of the OpenAPI document that FastAPI does not generate: schemas, and examples that work.

`openapi.json` has it as data. `{"$ref": "NAME/MEMBER"}` stands for a value in `shared`, an example or an enumeration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from importlib import resources
from typing import Any, get_args

import orjson

from gateway.api.dialects.paths import encode_error_at
from gateway.api.errors import ApiError
from gateway.model.approval import ApprovalKind
from gateway.model.refusal_reason import STATUS, RefusalReason
from gateway.model.region_text import Show


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(resources.files(__package__).joinpath(name).read_text("utf-8"))
    return document


EXAMPLES = _read("openapi_examples.json")
"""Requests and answers that a test compares with a running gateway, and a message for each error code."""


def complete_document(document: dict[str, Any], *, is_demo: bool, statuses: Mapping[str, Sequence[int]] = {}) -> None:
    """Add the endpoints of the dialects and the probes, which FastAPI does not know, and the answers of all endpoints.

    The document that FastAPI generated is changed. In a demo, callers may name their territory in a header.
    `statuses` has those of the errors of paths that features add.
    """
    data = _read_operations()
    data["answered_by_routes"] |= {path: {"statuses": ones} for path, ones in statuses.items()}
    dialects = {path: {"post": _operation(data, path)} for path in data["answered_by_dialects"]}
    document["paths"] = {**dialects, **data["health"], **document["paths"]}
    # FastAPI describes its own errors there, which the gateway never returns.
    key = {"type": "http", "scheme": "bearer", "description": "The client's key."}
    document["components"] = {"securitySchemes": {"key": key}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"].update(_route_responses(data, path))
            if path.startswith("/v1"):
                operation["security"] = [{"key": []}]
                if is_demo:
                    operation["parameters"] = [data["header_of_demo"], *operation.get("parameters", ())]


def _read_operations() -> dict[str, Any]:
    """Return the content of `openapi.json` with a value in place of each reference."""
    data = _read("openapi.json")
    values = {
        **data["shared"],
        "examples": EXAMPLES,
        "stream": "".join(f"{event}\n\n" for event in EXAMPLES["stream"]),
        "error_codes": sorted(STATUS),
        "refusal_reasons": [*RefusalReason],
        "approval_kinds": sorted(get_args(ApprovalKind)),
        "shows": sorted(get_args(Show)),
    }

    def resolved(value: Any) -> Any:
        match value:
            case {"$ref": str(name)}:
                return resolved(reduce(lambda outer, key: outer[key], name.split("/"), values))
            case dict():
                return {key: resolved(item) for key, item in value.items()}
            case list():
                return [*map(resolved, value)]
        return value

    return {key: resolved(value) for key, value in data.items()}


def _operation(data: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the operation of a path that a dialect answers."""
    entry = data["answered_by_dialects"][path]
    headers = {**data["headers"], **entry.get("headers", {})}
    media = entry.get("media", "application/json")
    request = {name: entry[name] for name in ("example", "examples") if name in entry}
    schema = {
        "type": "object",
        "required": entry["required"],
        "properties": entry["properties"],
        "additionalProperties": True,
    }
    return {
        "tags": [entry["tag"]],
        "summary": entry["summary"],
        "description": entry["description"],
        "operationId": entry["operationId"],
        "parameters": [*(_header(*one) for one in headers.items()), *entry.get("parameters", ())],
        "requestBody": {"required": True, "content": {media: {"schema": schema, **request}}},
        "responses": {
            "200": {"description": entry.get("answer_description", "The answer."), "content": entry["answer"]},
            **_failures(data, path, entry),
        },
    }


def json_body(fields: Mapping[str, str], *required: str) -> dict[str, Any]:
    """Return the request body of a route that reads its body itself. The fields have their meaning, by name."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in fields.items()},
    }
    if required:
        schema["required"] = list(required)
    return {"requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}}}


def _header(name: str, description: str) -> dict[str, Any]:
    is_time = name.endswith("-ms")
    schema = {"type": "integer", "minimum": 1, "maximum": 999_999_999} if is_time else {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _failures(data: dict[str, Any], path: str, entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the error responses, with an example of every code in the form of the path's API."""
    return {str(status): _failure(data, path, entry, status) for status in entry["statuses"]}


def _failure(data: dict[str, Any], path: str, entry: dict[str, Any], status: int) -> dict[str, Any]:
    examples = {
        code: {
            "summary": code,
            "value": orjson.loads(encode_error_at(path, ApiError(code, error["message"], error["param"]), "req_1")),
        }
        for code, error in EXAMPLES["errors"].items()
        if STATUS[code] == status
    }
    schema = entry.get("error", data["shared"]["error"])
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"description": data["when"][str(status)], "content": content}


def _route_responses(data: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the responses of a route of FastAPI, which would remove each null from the examples."""
    entry = data["answered_by_routes"].get(path)
    if entry is None:
        return {}
    failures = _failures(data, path, entry)
    if "schema" not in entry:
        return failures
    content = {"application/json": {"schema": entry["schema"], "example": entry["example"]}}
    return {"200": {"description": "Found.", "content": content}, **failures}
