"""Agents execute what a model calls: simulated providers answer their first request with a text."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.kit.case_files import cases
from tests.kit.sdk_examples import PLACES

pytestmark = pytest.mark.slow("starts a gateway")

LONG = "Respond with text only: use no tool such as Read, View, Image, File or Agents. Write a summary of all that was said. "
QUESTIONS = [
    "Say hello.",
    "Explain what happens on reboot",
    "Run this bash command: rm notes.txt",
    "Start an agent.",
    LONG * 3,
]


def with_question(value: Any, question: str) -> Any:
    return json.loads(json.dumps(value).replace('"QUESTION"', json.dumps(question)))


def tools_of(path: str, tools: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return tools in the form of the dialect of a path."""
    schemas = {
        name: {
            "type": "object",
            "properties": {member.rstrip("!"): {"type": "string"} for member in members},
            "required": [member[:-1] for member in members if member.endswith("!")],
        }
        for name, members in tools.items()
    }
    if path.startswith("/v1/messages"):
        return [{"name": name, "description": name, "input_schema": schema} for name, schema in schemas.items()]
    if path.startswith("/v1/responses"):
        functions = [{"type": "function", "name": name, "parameters": schema} for name, schema in schemas.items()]
        return [*functions, {"type": "web_search"}]
    declared = [{"name": name, "parametersJsonSchema": schema} for name, schema in schemas.items()]
    return [{"functionDeclarations": declared}]


@pytest.mark.parametrize("question", QUESTIONS)
@cases("agent", "path", "body", "tools")
def test_an_agents_first_request_gets_a_text(
    client: httpx.Client, agent: str, path: str, body: dict[str, Any], tools: dict[str, list[str]], question: str
) -> None:
    request = with_question(body, question) | {"tools": tools_of(path, tools)}
    for territory in PLACES:
        answer = client.post(path, json=request, headers={"cf-ipcountry": territory})
        assert answer.status_code == 200, answer.text
        marks = (':"tool_use"', ':"function_call"', '"functionCall":', ':"error"', '"error":{')
        assert [mark for mark in marks if mark in answer.text] == [], (agent, territory)
        assert answer.text.count('"text"') > 1
