"""The example requests that `gateway demo` sends to itself."""

import httpx
import pytest
import respx

from gateway.server.demo import ExampleRequestFailed, _answers, _places_of, fault_text  # type: ignore[attr-defined]
from providers.testkit.scenario import Fault, HttpError, Slow
from tests.kit.configs import BASE, table_of
from tests.kit.ports import free_port


@pytest.fixture
def closed_url() -> str:
    """Return the URL of a port on which nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


async def test_gateway_that_is_stopped_during_the_example_requests_gives_no_answers(closed_url: str) -> None:
    assert await _answers(closed_url, "assistant", lambda: True) is None


async def test_gateway_that_cannot_be_reached_while_it_serves_is_an_error(closed_url: str) -> None:
    with pytest.raises(httpx.ConnectError):
        await _answers(closed_url, "assistant", lambda: False)


@pytest.mark.parametrize(
    ("answer", "explanation", "complaint"),
    [
        (
            httpx.Response(500, json={"error": {"code": "internal_error"}}),
            httpx.Response(200, json={"considered": []}),
            "POST /v1/chat/completions returned status 500: the log lines above have the reason",
        ),
        (
            httpx.Response(200, json={"choices": [{"message": {"content": "Hello!"}}]}),
            httpx.Response(500, json={"error": {"code": "internal_error"}}),
            "GET /v1/explain returned status 500: the log lines above have the reason",
        ),
        (
            httpx.Response(200, json={"choices": [{"message": {"content": "Hello!"}}]}),
            httpx.Response(404, text="Not Found"),
            "GET /v1/explain returned status 404: Not Found",
        ),
    ],
)
@respx.mock(base_url="http://gateway.test", assert_all_called=False)
async def test_failed_example_request_is_named(
    respx_mock: respx.MockRouter, answer: httpx.Response, explanation: httpx.Response, complaint: str
) -> None:
    respx_mock.post("/v1/chat/completions").mock(answer)
    respx_mock.get("/v1/explain").mock(explanation)
    with pytest.raises(ExampleRequestFailed, match="an example request of the demo failed: ") as raised:
        await _answers("http://gateway.test", "assistant", lambda: False)
    assert complaint in str(raised.value)


@respx.mock(base_url="http://gateway.test")
async def test_error_that_the_gateway_returns_on_purpose_is_a_row(respx_mock: respx.MockRouter) -> None:
    respx_mock.post("/v1/chat/completions").respond(503, json={"error": {"message": "No deployment is available."}})
    respx_mock.get("/v1/explain").respond(200, json={"considered": []})
    shown = await _answers("http://gateway.test", "assistant", lambda: False)
    assert str(shown).count("No deployment is available.") == 5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (HttpError(503, 7.0), "http error: status 503, retry after 7 s"),
        (HttpError(429), "http error: status 429"),
        (Slow(3), "slow:"),
    ],
)
def test_fault_is_shown_in_words(fault: Fault, words: str) -> None:
    shown = fault_text(fault)
    assert shown.startswith(words)
    assert "(" not in shown
    assert "=" not in shown


@pytest.mark.parametrize(("deployment", "is_noted"), [("real-openai", False), ("gemini", True)])
@respx.mock(base_url="http://gateway.test")
async def test_answer_of_another_deployment_than_the_real_one_is_noted(
    respx_mock: respx.MockRouter, deployment: str, is_noted: bool
) -> None:
    answer = {"choices": [{"message": {"content": "Hello!"}}]}
    respx_mock.post("/v1/chat/completions").respond(200, json=answer, headers={"x-gateway-deployment": deployment})
    respx_mock.get("/v1/explain").respond(200, json={"considered": []})
    places = (("Japan", "JP", "Hello!"),)
    shown = await _answers("http://gateway.test", "assistant", lambda: False, places, "real-openai")
    assert ("real-openai did not answer the last request" in str(shown)) == is_noted


@pytest.mark.parametrize(
    ("listed", "asked"),
    [(["US"], ["CN", "DE", "US", "HK", "CU"]), (["US-CA", "US-WA"], ["US-WA"]), (["JP", "KR"], ["KR"])],
)
def test_places_of_a_demo_are_in_its_regions(listed: list[str], asked: list[str]) -> None:
    config = BASE.merge(
        {"regions": {"us": {"territories": listed, "boundary": ["*"]}, "cn": None, "eu": None, "default": None}},
        {"assistants": {"assistant": {"routes": {"cn": None, "eu": None, "default": None}}}, "clients": None},
    )
    assert [code for _, code, _ in _places_of(table_of(config))] == asked
