"""The OpenAPI document is valid, lists every error code, and its examples work unchanged."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from gateway.api.openapi import EXAMPLES
from gateway.model.location_rules import LocationRules
from gateway.model.refusal_reason import STATUS
from gateway.policy.location import SIGNALS
from tests.kit.chat_http import CHAT, events_of

_ELSEWHERE = {"not_found", "not_implemented", "websocket_not_offered", "stream_interrupted"}


@pytest.fixture
def document(client: httpx.Client) -> Any:
    return client.get("/openapi.json").json()


def test_document_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert "$ref" not in json.dumps(document)
    tags = [tag["name"] for tag in document["tags"]]
    identities = set()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["tags"][0] in tags
            assert operation["summary"]
            identities.add(operation["operationId"])
            assert "200" in operation["responses"]
            assert all(response["description"] for response in operation["responses"].values())
            assert (operation.get("security") == [{"key": []}]) == path.startswith("/v1")
            for parameter in operation.get("parameters", ()):
                Draft202012Validator.check_schema(parameter["schema"])
                # The country header is in the document only in the demo.
                assert parameter["name"] != "cf-ipcountry"
    assert len(identities) == len(document["paths"])
    assert set(document["components"]["securitySchemes"]) == {"key"}


@pytest.mark.parametrize("name", [name for name, signal in SIGNALS.items() if not signal.reads_edges])
def test_each_header_that_clients_send_for_a_signal_is_a_parameter(document: Any, name: str) -> None:
    parameters = {parameter["name"] for parameter in document["paths"][CHAT]["post"]["parameters"]}
    assert {*SIGNALS[name].headers(LocationRules())} <= parameters


def _media(document: Any) -> list[Any]:
    found = []
    for operations in document["paths"].values():
        for operation in operations.values():
            contents = [operation.get("requestBody", {}), *operation["responses"].values()]
            found += [media for content in contents for media in content.get("content", {}).values()]
    return found


def test_every_example_matches_its_schema(document: Any) -> None:
    media = _media(document)
    assert len(media) > 20
    for one in media:
        schema = one.get("schema", {"type": "string"})
        Draft202012Validator.check_schema(schema)
        examples = [example["value"] for example in one.get("examples", {}).values()]
        if "example" in one:
            examples.append(one["example"])
        for value in examples:
            assert not list(Draft202012Validator(schema).iter_errors(value)), value


def test_each_error_code_has_an_example_under_its_status(document: Any) -> None:
    statuses = {
        code: int(status)
        for path in (CHAT, "/v1/embeddings")
        for status, response in document["paths"][path]["post"]["responses"].items()
        if status != "200"
        for code, example in response["content"]["application/json"]["examples"].items()
        if example["value"]["error"]["code"] == code
    }
    assert statuses == {code: status for code, status in STATUS.items() if code not in _ELSEWHERE}


@pytest.mark.parametrize("name", EXAMPLES["requests"])
def test_example_request_works(client: httpx.Client, name: str) -> None:
    request = EXAMPLES["requests"][name]["value"]
    response = client.post(CHAT, json=request, headers={"cf-ipcountry": "US"})
    assert response.status_code == 200, response.text
    if name == "stream":
        events = events_of(response)
        assert (events[-1], events[-2]["choices"]) == ("[DONE]", [])
    elif name in EXAMPLES["answers"]:
        shown = EXAMPLES["answers"][name]["value"]
        assert _shape(response.json()) == _shape(shown)


def _shape(value: Any) -> Any:
    """Return the names and types in a value, without its content."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return type(value)


def test_example_stream_is_a_valid_stream() -> None:
    lines = [event.removeprefix("data: ") for event in EXAMPLES["stream"]]
    assert lines[-1] == "[DONE]"
    assert json.loads(lines[-2])["usage"]["total_tokens"] == 11
    assert all(json.loads(line)["object"] == "chat.completion.chunk" for line in lines[:-1])
