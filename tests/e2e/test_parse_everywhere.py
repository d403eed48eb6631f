"""Structured output by the official clients and by frameworks, unchanged, from every region of the demo: JSON and streams."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.kit.node_clients import installed_node, installed_packages
from tests.kit.sdk_examples import City

TERRITORIES = ["CN", "DE", "US", "JP", "HK"]
QUESTION = "Name a city, as JSON."

pytestmark = pytest.mark.slow("imports SDKs, and asks in every region")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the address of a demo."""
    command = [sys.executable, "-m", "gateway.cli", "demo", "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        found = ""
        for line in demo.stdout:
            found = found or "".join(re.findall(r"http://127\.0\.0\.1:\d+(?=/v1)", line)[:1])
            if "Ctrl-C" in line:
                break
        yield found
        demo.terminate()


def openai_parse(url: str, headers: dict[str, str]) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", default_headers=headers, max_retries=0) as client:
        asked: Any = {
            "model": "assistant",
            "messages": [{"role": "user", "content": QUESTION}],
            "response_format": City,
        }
        yield client.chat.completions.parse(**asked).choices[0].message.parsed
        with client.chat.completions.stream(**asked) as stream:
            yield stream.get_final_completion().choices[0].message.parsed


def openai_responses_parse(url: str, headers: dict[str, str]) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", default_headers=headers, max_retries=0) as client:
        yield client.responses.parse(model="assistant", input=QUESTION, text_format=City).output_parsed
        with client.responses.stream(model="assistant", input=QUESTION, text_format=City) as stream:
            yield stream.get_final_response().output_parsed


def anthropic_parse(url: str, headers: dict[str, str]) -> Iterator[Any]:
    from anthropic import Anthropic

    with Anthropic(base_url=url, api_key="any", default_headers=headers, max_retries=0) as client:
        asked: Any = {"model": "assistant", "max_tokens": 500, "messages": [{"role": "user", "content": QUESTION}]}
        yield client.messages.parse(**asked, output_format=City).parsed_output
        with client.messages.stream(**asked, output_format=City) as stream:
            yield stream.get_final_message().parsed_output


def google_response_schema(url: str, headers: dict[str, str]) -> Iterator[Any]:
    from google import genai

    settings: Any = {"response_mime_type": "application/json", "response_schema": City}
    asked: Any = {"model": "assistant", "contents": QUESTION, "config": settings}
    with genai.Client(api_key="any", http_options={"base_url": url, "headers": headers}) as client:
        yield client.models.generate_content(**asked).parsed
        yield City.model_validate_json(
            "".join(piece.text or "" for piece in client.models.generate_content_stream(**asked))
        )


def langchain_structured_output(url: str, headers: dict[str, str]) -> Iterator[Any]:
    from langchain_openai import ChatOpenAI

    with openai.DefaultHttpxClient() as http_client:
        model: Any = ChatOpenAI(
            model="assistant",
            base_url=f"{url}/v1",
            api_key="any",
            default_headers=headers,
            max_retries=0,
            http_client=http_client,
        )
        structured = model.with_structured_output(City)
        yield structured.invoke(QUESTION)
        yield list(structured.stream(QUESTION))[-1]


def pydantic_ai_output(url: str, headers: dict[str, str]) -> Iterator[Any]:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="any", default_headers=headers, max_retries=0
        ) as client:
            model = OpenAIChatModel("assistant", provider=OpenAIProvider(openai_client=client))
            agent = Agent(model, output_type=NativeOutput(City))
            whole = (await agent.run(QUESTION)).output
            async with agent.run_stream(QUESTION) as stream:
                return [whole, await stream.get_output()]

    yield from asyncio.run(ask())


CLIENTS: dict[str, Callable[[str, dict[str, str]], Iterator[Any]]] = {
    "openai": openai_parse,
    "openai responses": openai_responses_parse,
    "anthropic": anthropic_parse,
    "google.genai": google_response_schema,
    "langchain_openai": langchain_structured_output,
    "pydantic_ai": pydantic_ai_output,
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain's own, for parsed answers
@pytest.mark.parametrize("name", CLIENTS)
def test_client_parses_in_every_region(url: str, name: str) -> None:
    if importlib.util.find_spec(name.split()[0]) is None:
        pytest.skip(f"{name}: not run (it is not installed: make install-sdks)")
    for territory in TERRITORIES:
        answers = list(CLIENTS[name](url, {"cf-ipcountry": territory}))
        assert [type(answer) for answer in answers] == [City, City], (territory, answers)


def test_vercel_ai_sdk_gets_objects_in_every_region(url: str) -> None:
    node = installed_node()
    environ = {"PATH": os.environ["PATH"], "GATEWAY_URL": url, "TERRITORIES": ",".join(TERRITORIES)}
    command = [str(node), "--test", "--test-reporter=tap", "structured.mjs"]
    done = subprocess.run(
        command, cwd=installed_packages(node), env=environ, capture_output=True, text=True, timeout=240
    )
    assert re.search(rf"^# pass {len(TERRITORIES)}$", done.stdout, re.MULTILINE), done.stdout


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER_TOOL = {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
NEEDS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL]},
    "tool_choice_required": {"tools": [TOOL, OTHER_TOOL], "tool_choice": "required"},
    "vision": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "audio": {"messages": [{"role": "user", "content": [AUDIO]}]},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    "n": {"n": 2},
    "logprobs": {"logprobs": True},
}


@pytest.mark.parametrize("territory", TERRITORIES)
def test_capabilities_name_which_requests_are_answered(url: str, territory: str) -> None:
    with httpx.Client(base_url=url, headers={"cf-ipcountry": territory}, trust_env=False, timeout=60) as client:
        supported = client.get("/v1/capabilities").json()["supported"]
        for feature, fields in NEEDS.items():
            asked = {"model": "assistant", "messages": [{"role": "user", "content": "JSON, please."}], **fields}
            status = client.post("/v1/chat/completions", json=asked).status_code
            assert (status == 200) == (feature in supported), (feature, status)
