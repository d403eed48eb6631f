"""The client for one adapter over httpx: one call is one attempt, and every outcome is reported once."""

import json
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import respx

from providers import client as module
from providers.adapter import Adapter
from providers.auth import Secret
from providers.chat import ChatRequest, ChoiceFinish, Failed, Finished, Opened, StreamEvent, TextDelta, UserMessage
from providers.client import Client
from providers.failures import FailureKind, ProviderFailed, UnsupportedFeature
from providers.reading.folding import expand
from providers.sites import OriginError
from providers.vendors.gemini.adapter import ADAPTER as GEMINI
from providers.vendors.openai.adapter import ADAPTER as OPENAI
from providers.vendors.openai.adapter import COMPATIBLE
from tests.kit.case_files import cases

MakeClient = Callable[..., Client]
KEY = "sk-very-secret"
NOW = 1_795_156_170.0
US = "https://us.api.openai.com/v1/chat/completions"
HI = ChatRequest("asked", (UserMessage("hi"),))
WHOLE = {"id": "a", "model": "m-1", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
PIECES = (
    b'data: {"id":"a","model":"m-1","choices":[{"index":0,"delta":{"content":"h"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
STREAM = {"content-type": "text/event-stream"}


class Body(httpx.AsyncByteStream):
    """A body that arrives in pieces and may break off. It records whether it was closed."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.given = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.given += 1
            yield piece
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def ask(http: httpx.AsyncClient) -> MakeClient:
    """Return a client for OpenAI's site in the US, or for the given settings."""

    def make(adapter: Adapter = OPENAI, **fields: Any) -> Client:
        where = {} if fields.keys() & {"site", "url"} else {"site": "us"}
        return Client(adapter, http, **{"model": "m", "secret": Secret(KEY), "clock": lambda: NOW, **where, **fields})

    return make


async def events_of(client: Client, request: ChatRequest = HI) -> list[StreamEvent]:
    return list(expand([event async for event in client.stream(request)]))


async def failure_of(client: Client) -> FailureKind:
    """Return the failure of `chat`, after a check that `stream` fails in the same way."""
    with pytest.raises(ProviderFailed) as caught:
        await client.chat(HI)
    terminal = (await events_of(client))[-1]
    assert isinstance(terminal, Failed)
    assert terminal.failure.kind is caught.value.failure.kind
    for text in (str(caught.value), repr(terminal), "".join(traceback.format_exception(caught.value))):
        assert KEY not in text
    return terminal.failure.kind


# --- requests -------------------------------------------------------------------------------------


async def test_a_call_is_one_signed_request_to_the_site(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    route = respx_mock.post(US).respond(json=WHOLE)
    completion = await ask(model="gpt-6-luna").chat(HI)
    assert (completion.id, completion.model, completion.created) == ("a", "m-1", int(NOW))
    assert completion.choices[0].message.content == "hi"
    (call,) = route.calls
    assert call.request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(call.request.content) == {
        "model": "gpt-6-luna",
        "messages": [{"role": "user", "content": "hi"}],
        "store": False,
    }


async def test_chat_requests_json_and_stream_requests_a_stream_for_any_request(
    ask: MakeClient, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(US).respond(json=WHOLE)
    await ask().chat(ChatRequest("asked", (UserMessage("hi"),), stream=True))
    await events_of(ask())
    first, second = (json.loads(call.request.content) for call in route.calls)
    assert "stream" not in first
    assert second["stream"] is True


async def test_gemini_request_has_its_query_and_key_header(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    route = respx_mock.post(url__startswith="https://generativelanguage.googleapis.com/v1beta/models/gemini-3.8-flash:")
    route.respond(json={"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]})
    gemini = ask(GEMINI, site="global", model="gemini-3.8-flash")
    assert (await gemini.chat(HI)).choices[0].message.content == "hi"
    assert isinstance((await events_of(gemini))[-1], Finished)
    plain, stream = (call.request for call in route.calls)
    assert plain.headers["x-goog-api-key"] == stream.headers["x-goog-api-key"] == KEY
    assert (plain.url.path, plain.url.query) == ("/v1beta/models/gemini-3.8-flash:generateContent", b"")
    assert (plain.headers["accept"], stream.headers["accept"]) == ("application/json", "text/event-stream")
    assert (stream.url.path, stream.url.query) == ("/v1beta/models/gemini-3.8-flash:streamGenerateContent", b"alt=sse")


@cases("url", "target")
async def test_custom_url_is_used(ask: MakeClient, respx_mock: respx.MockRouter, url: str, target: str) -> None:
    route = respx_mock.post(target).respond(json=WHOLE)
    await ask(COMPATIBLE, url=url, secret=None).chat(HI)
    (call,) = route.calls
    assert str(call.request.url) == target
    assert "authorization" not in call.request.headers
    assert "store" not in json.loads(call.request.content)


@pytest.mark.parametrize("where", [{"site": None}, {"site": "us", "url": "https://llm.example"}])
async def test_client_site_is_given_only_once(ask: MakeClient, where: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give either a site of the catalogue or a URL"):
        ask(**where)


async def test_invalid_client_site_is_refused(ask: MakeClient) -> None:
    with pytest.raises(KeyError):
        ask(site="mars")
    for url in ("", "llm.example", "https://user:password@llm.example", "https://llm.example/v1?key=1"):
        with pytest.raises(OriginError):
            ask(COMPATIBLE, url=url)


async def test_request_with_an_unsupported_feature_is_not_sent(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    class Refusing:
        """OpenAI's adapter, with one feature that it cannot express."""

        def __getattr__(self, name: str) -> object:
            return getattr(OPENAI, name)

        def build_request(self, *_: object) -> None:
            raise UnsupportedFeature("audio", "no sound here")

    refusing = ask(Refusing())
    with pytest.raises(UnsupportedFeature, match="no sound here"):
        await refusing.chat(HI)
    with pytest.raises(UnsupportedFeature, match="no sound here"):
        await events_of(refusing)
    assert not respx_mock.calls


# --- answers --------------------------------------------------------------------------------------


async def test_a_stream_comes_in_pieces_and_is_closed(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    body = Body(*PIECES)
    respx_mock.post(US).mock(return_value=httpx.Response(200, headers=STREAM, stream=body))
    seen: list[tuple[StreamEvent, int]] = []
    async for event in ask().stream(HI):
        seen += [(one, body.given) for one in expand([event])]
    assert seen == [
        (Opened("a", "m-1", int(NOW)), 1),
        (TextDelta("h"), 1),
        (TextDelta("i"), 2),
        (ChoiceFinish("stop"), 3),
        (Finished(), 3),
    ]
    assert body.closed


async def test_reader_that_stops_early_closes_the_response(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    body = Body(*PIECES)
    respx_mock.post(US).mock(return_value=httpx.Response(200, headers=STREAM, stream=body))
    stream = ask().stream(HI)
    assert isinstance(await anext(stream), Opened)
    await stream.aclose()  # type: ignore[attr-defined]
    assert body.closed
    assert body.given == 1


@pytest.mark.parametrize(
    "error", [httpx.ReadError("gone"), httpx.ReadTimeout("late"), httpx.RemoteProtocolError("cut")]
)
async def test_broken_connection_is_reported_as_interrupted(
    ask: MakeClient, respx_mock: respx.MockRouter, error: httpx.HTTPError
) -> None:
    bodies: list[Body] = []

    def broken(_: httpx.Request) -> httpx.Response:
        bodies.append(Body(PIECES[0], error=error))
        return httpx.Response(200, headers=STREAM, stream=bodies[-1])

    respx_mock.post(US).mock(side_effect=broken)
    assert await failure_of(ask()) is FailureKind.INTERRUPTED
    assert TextDelta("h") in await events_of(ask())
    assert all(body.closed for body in bodies)


async def test_a_connection_that_breaks_after_the_end_does_not_end_it_twice(
    ask: MakeClient, respx_mock: respx.MockRouter
) -> None:
    body = Body(*PIECES, error=httpx.ReadError("gone"))
    respx_mock.post(US).mock(return_value=httpx.Response(200, headers=STREAM, stream=body))
    found = await events_of(ask())
    assert [event for event in found if isinstance(event, Finished | Failed)] == [Finished()]
    assert body.closed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), FailureKind.CONNECT),
        (httpx.ConnectTimeout("late"), FailureKind.CONNECT),
        (httpx.PoolTimeout("busy"), FailureKind.CONNECT),
        (httpx.RemoteProtocolError("nonsense"), FailureKind.CONNECT),
        (httpx.ReadTimeout("silent"), FailureKind.SILENT),
        (httpx.LocalProtocolError(f"Illegal header value b'Bearer {KEY}'"), FailureKind.CONNECT),
    ],
)
async def test_request_without_a_response_fails_with_its_kind(
    ask: MakeClient, respx_mock: respx.MockRouter, error: httpx.HTTPError, kind: FailureKind
) -> None:
    route = respx_mock.post(US).mock(side_effect=error)
    assert await failure_of(ask()) is kind
    assert len(route.calls) == 2


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (httpx.Response(503, text="busy"), FailureKind.UNAVAILABLE),
        (httpx.Response(307, headers={"location": "https://evil.example/"}), FailureKind.MALFORMED),
        (httpx.Response(200, headers=STREAM, content=PIECES[0]), FailureKind.INTERRUPTED),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_invalid_answer_is_a_failure(
    http: httpx.AsyncClient, respx_mock: respx.MockRouter, response: httpx.Response, kind: FailureKind
) -> None:
    http.follow_redirects = True
    route = respx_mock.post(US).mock(return_value=response)
    client = Client(OPENAI, http, model="m", site="us", secret=Secret(KEY), clock=lambda: NOW)
    assert await failure_of(client) is kind
    assert len(route.calls) == len(respx_mock.calls) == 2


async def test_a_body_that_can_not_be_decompressed(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    respx_mock.post(US).mock(side_effect=lambda _: httpx.Response(200, headers=headers, stream=Body(b"no gzip")))
    assert await failure_of(ask()) is FailureKind.MALFORMED


async def test_a_body_beyond_the_bound(
    ask: MakeClient, respx_mock: respx.MockRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 100)
    body = Body(b" " * 60, b" " * 60, b" " * 60)
    respx_mock.post(US).mock(return_value=httpx.Response(200, stream=body))
    with pytest.raises(ProviderFailed) as caught:
        await ask().chat(HI)
    assert caught.value.failure.kind is FailureKind.TOO_LARGE
    assert body.given == 2
    assert body.closed


async def test_the_time_of_an_answer_is_that_of_its_head(ask: MakeClient, respx_mock: respx.MockRouter) -> None:
    now = iter([1.0, 20.0, 300.0])
    respx_mock.post(US).respond(json=WHOLE)
    assert (await ask(clock=lambda: next(now)).chat(HI)).created == 20
