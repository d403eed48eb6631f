"""Errors in LiteLLM's SDK and LangChain, which recognize some of them by words of the message.

Without one of the packages, its tests are skipped with that reason. LangChain is in the extra `sdks`. LiteLLM is not, because
it needs an older `openai` than the tests: `pip install litellm` into a copy of the environment. `test_node.py` runs LangChain.js.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from gateway.api.errors import ApiError
from gateway.api.openapi import EXAMPLES
from gateway.api.raw_responses import error_response
from gateway.model.refusal_reason import STATUS
from providers.failures import FailureKind
from providers.reading.errors import MESSAGES
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.gateway_process import APP_KEY, GatewayProcess
from tests.kit.recipients import Recipient, receiving

QUESTION: Any = [{"role": "user", "content": "Hello!"}]
CONTEXT, FILTER = FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_FILTER
CODES = sorted(set(STATUS) - {"stream_interrupted"})
"""The codes of all errors that have a status of their own."""

LITELLM = {
    "context_length_exceeded": "ContextWindowExceededError",
    "content_filter": "ContentPolicyViolationError",
    "invalid_api_key": "AuthenticationError",
    "model_not_found": "NotFoundError",
    "rate_limited": "RateLimitError",
    "internal_error": "InternalServerError",
    "provider_error": "BadGatewayError",
    "no_healthy_deployment": "ServiceUnavailableError",
    "overloaded": "ServiceUnavailableError",
    "deadline_exceeded": "Timeout",
}
"""LiteLLM's exception for each code. Others are `APIError` for a missing permission, and `BadRequestError` else."""


def needs(package: str) -> Any:
    """Return a mark that skips a test without this package."""
    reason = f"frameworks: not run ({package} is not installed)"
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=reason)


@pytest.mark.parametrize("kind", MESSAGES)
def test_message_has_the_words_by_which_frameworks_recognize_it(kind: FailureKind) -> None:
    message = MESSAGES[kind].lower()
    litellm_context = "this model's maximum context length is" in message
    langchain_context = "exceeds the context window" in message
    litellm_filter = "request was rejected as a result of the safety system" in message
    litellm_rate_limit = re.search(r"rate[\s_\-]*limit|\b429\b", message) is not None
    assert (litellm_context, langchain_context) == (kind is CONTEXT, kind is CONTEXT)
    assert litellm_filter == (kind is FILTER)
    assert not litellm_rate_limit


@pytest.mark.parametrize(("kind", "code"), [(CONTEXT, "context_length_exceeded"), (FILTER, "content_filter")])
def test_client_gets_the_message_that_frameworks_recognize(
    client: httpx.Client, providers: SimulatorThread, kind: FailureKind, code: str
) -> None:
    _refuse(providers, kind)
    answer = client.post(
        "/v1/chat/completions", json={"model": "assistant", "messages": QUESTION}, headers={"cf-ipcountry": "DE"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (400, code, MESSAGES[kind])
    assert EXAMPLES["errors"][code]["message"] == MESSAGES[kind]


class _AnyError(Recipient):
    """Answers with the gateway's error of the code that is the first part of the path."""

    def do_POST(self) -> None:
        self.body()
        code = self.path.split("/")[1]
        example = EXAMPLES["errors"].get(code, {"message": "an error", "param": None})
        error = ApiError(code, example["message"], example["param"])
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        answer = error_response(scope, error)
        self.answer(answer.status, answer.body, answer.kind, **answer.headers)


@pytest.fixture
def errors(any_error: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of the server of errors. LiteLLM reads its own table of prices, not the one of the internet."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return any_error


@pytest.fixture(scope="module")
def any_error() -> Iterator[str]:
    """Return the URL of a server that answers below /CODE/v1 with the gateway's error of that code."""
    with receiving(_AnyError) as (origin, _):
        yield origin


# --- LiteLLM --------------------------------------------------------------------------------------


def _ask_litellm(base_url: str, *, stream: bool = False) -> Exception:
    """Return the exception that LiteLLM raises."""
    import litellm

    with openai.OpenAI(
        base_url=base_url,
        api_key=APP_KEY,
        max_retries=0,
        default_headers={"cf-ipcountry": "DE"},
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as sdk:
        try:
            litellm.completion("openai/assistant", QUESTION, client=sdk, num_retries=0, stream=stream)
        except Exception as error:
            return error
    pytest.fail("LiteLLM raised nothing")


@pytest.mark.slow
@needs("litellm")
@pytest.mark.parametrize("code", CODES)
def test_litellm_raises_its_exception_of_each_error(errors: str, code: str) -> None:
    import litellm

    expected = LITELLM.get(code)
    if expected is None:
        is_permission = STATUS[code] in (403, 451)
        expected = "APIError" if is_permission else "BadRequestError"
    raised = _ask_litellm(f"{errors}/{code}/v1")
    if code == "not_found" and isinstance(raised, litellm.NotFoundError):
        return  # from LiteLLM 1.109 on
    assert type(raised) is getattr(litellm, expected), repr(raised)


@pytest.mark.slow
@needs("litellm")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [CONTEXT, FILTER])
def test_litellm_recognizes_the_error_of_a_provider(
    gateway: GatewayProcess, client: httpx.Client, providers: SimulatorThread, kind: FailureKind, stream: bool
) -> None:
    import litellm

    _refuse(providers, kind)
    expected = litellm.ContextWindowExceededError if kind is CONTEXT else litellm.ContentPolicyViolationError
    assert isinstance(_ask_litellm(f"{gateway.url}/v1", stream=stream), expected)


# --- LangChain ------------------------------------------------------------------------------------


def _ask_langchain(base_url: str, *, stream: bool = False) -> Exception:
    """Return the exception that LangChain raises."""
    from langchain_openai import ChatOpenAI

    with openai.DefaultHttpxClient(trust_env=False) as http_client:
        model = ChatOpenAI(
            http_client=http_client,
            model="assistant",
            base_url=base_url,
            api_key=APP_KEY,  # type: ignore[arg-type]  # it accepts a text
            default_headers={"cf-ipcountry": "DE"},
            max_retries=0,
            use_responses_api=False,
        )
        try:
            if stream:
                list(model.stream("Hello!"))
            else:
                model.invoke("Hello!")
        except Exception as error:
            return error
    pytest.fail("LangChain raised nothing")


@pytest.mark.slow
@needs("langchain_openai")
@pytest.mark.parametrize("code", CODES)
def test_langchain_raises_its_exception_of_each_error(errors: str, code: str) -> None:
    from langchain_core.exceptions import ContextOverflowError

    raised = _ask_langchain(f"{errors}/{code}/v1")
    classes: dict[int, type[Exception]] = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        429: openai.RateLimitError,
    }
    status = STATUS[code]
    default = openai.InternalServerError if status >= 500 else openai.APIStatusError
    assert isinstance(raised, classes.get(status, default)), repr(raised)
    assert isinstance(raised, ContextOverflowError) == (code == "context_length_exceeded"), repr(raised)


@pytest.mark.slow
@needs("langchain_openai")
@pytest.mark.parametrize("stream", [False, True])
def test_langchain_recognizes_a_context_overflow(
    gateway: GatewayProcess, client: httpx.Client, providers: SimulatorThread, stream: bool
) -> None:
    from langchain_core.exceptions import ContextOverflowError

    _refuse(providers, CONTEXT)
    assert isinstance(_ask_langchain(f"{gateway.url}/v1", stream=stream), ContextOverflowError)


def _refuse(providers: SimulatorThread, kind: FailureKind) -> None:
    """Let both deployments of the region refuse with this kind."""
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((HttpError(400, kind=kind), 1.0),))
