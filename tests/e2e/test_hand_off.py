"""The SDKs of OpenAI, Anthropic and Google show the question of a hand-off, and the answer after the user agrees."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest

from tests.kit.barriers import Providers, failing, served_by

pytestmark = pytest.mark.slow("imports the SDKs of three vendors")

Ask = Callable[[Any, dict[str, str]], Awaitable[tuple[Any, str]]]
"""Asks an application through an SDK. Returns the question to the user, or None, and the text of the answer."""


async def by_openai(app: Any, headers: dict[str, str]) -> tuple[Any, str]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
    sdk = openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="gk-1", http_client=client, max_retries=0)
    try:
        answer = await sdk.chat.completions.create(
            model="assistant", messages=[{"role": "user", "content": "Hello"}], extra_headers=headers
        )
    except openai.PermissionDeniedError as error:
        body: Any = error.body
        return body["consent"], ""
    return None, answer.choices[0].message.content or ""


async def by_anthropic(app: Any, headers: dict[str, str]) -> tuple[Any, str]:
    import anthropic
    import httpx2

    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app))
    sdk = anthropic.AsyncAnthropic(base_url="http://gateway", api_key="gk-1", http_client=client, max_retries=0)
    try:
        answer = await sdk.messages.create(
            model="assistant", max_tokens=9, messages=[{"role": "user", "content": "Hello"}], extra_headers=headers
        )
    except anthropic.PermissionDeniedError as error:
        body: Any = error.body
        return body["error"]["consent"], ""
    (block,) = answer.content
    return None, block.text if block.type == "text" else ""


async def by_google(app: Any, headers: dict[str, str]) -> tuple[Any, str]:
    from google import genai
    from google.genai import errors, types

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
    options = types.HttpOptions(base_url="http://gateway", httpx_async_client=client, headers=headers)
    sdk = genai.Client(api_key="gk-1", http_options=options)
    try:
        answer = await sdk.aio.models.generate_content(model="assistant", contents="Hello")
    except errors.ClientError as error:
        details: Any = error.details
        return next(
            it["value"]["consent"] for it in details["error"]["details"] if "consent" in it.get("value", {})
        ), ""
    return None, answer.text or ""


CLIENTS: dict[str, Ask] = {"openai": by_openai, "anthropic": by_anthropic, "google.genai": by_google}


@pytest.mark.parametrize("name", CLIENTS)
async def test_sdk_shows_the_question_and_then_the_answer(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name}: not run (it is not installed: make install-sdks)")
    providers = Providers({"house": failing(500)})
    app = served_by(providers).gateway
    consent, _ = await CLIENTS[name](app, {})
    assert (consent["recipient"], consent["hand_off"], providers.names) == ("Cloud", "failure", ["house"])
    question, text = await CLIENTS[name](app, {"x-gateway-consent": consent["token"]})
    assert (question, text, providers.names[-1]) == (None, "cloud", "cloud")
