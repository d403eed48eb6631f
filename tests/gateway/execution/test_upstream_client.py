"""The one place that opens connections: what an adapter, or anyone, tries in order to choose where bytes go."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution import upstream_request as module
from gateway.execution.transport import allow
from gateway.execution.upstream_request import FenceBreach, RequestHead, upstream_request
from gateway.model.permit import Permit
from providers.transport.errors import NotAllowed
from providers.wire import WireRequest
from tests.kit.case_files import cases
from tests.kit.httpx_transport import HttpxTransport

PERMIT = Permit("https://api.example", "eu", "house", "https://api.example", "m", "t")


def wire(path: str = "/v1/chat", headers: tuple[tuple[str, str], ...] = (), method: str = "POST") -> WireRequest:
    return WireRequest(method, path, headers, b"{}")


def request_head(permit: Permit, wire: WireRequest) -> RequestHead:
    return upstream_request(permit, wire, 1).head


class Recorder:
    """A transport that remembers what reaches it."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, json={})


@cases("path")
def test_a_path_that_could_choose_a_host_is_refused(path: str) -> None:
    with pytest.raises(FenceBreach):
        request_head(PERMIT, wire(path))


@cases("name", "value")
def test_a_header_that_frames_or_routes_is_refused(name: str, value: str) -> None:
    with pytest.raises(FenceBreach):
        request_head(PERMIT, wire(headers=((name, value),)))
    with pytest.raises(FenceBreach):
        upstream_request(PERMIT, wire(), 1, ((name, value),))


@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "GET /evil", "", "POST\r\n"])
def test_invalid_method_is_refused(method: str) -> None:
    with pytest.raises(FenceBreach):
        request_head(PERMIT, wire(method=method))


def test_root_path_is_accepted() -> None:
    request_head(PERMIT, wire("/"))
    with pytest.raises(FenceBreach):
        request_head(PERMIT, wire("//"))


async def test_a_signature_that_is_ever_new_leaves_the_rest_of_a_head_remembered() -> None:
    recorder = Recorder()
    transport = HttpxTransport(httpx.MockTransport(recorder))
    module._request_head.cache_clear()
    for number in range(3):
        reply = await transport.send(
            upstream_request(PERMIT, wire(headers=(("x-a", "b"),)), 1, (("authorization", f"signed {number}"),))
        )
        await reply.close()
    assert [request.headers["authorization"] for request in recorder.requests] == ["signed 0", "signed 1", "signed 2"]
    assert {request.headers["x-a"] for request in recorder.requests} == {"b"}
    assert module._request_head.cache_info().misses == 1
    with pytest.raises(FenceBreach):
        await transport.send(upstream_request(PERMIT, wire(), 1, (("authorization", "a\r\nhost: evil.example"),)))
    assert len(recorder.requests) == 3


def test_representation_of_a_request_shows_no_credential() -> None:
    head = request_head(PERMIT, wire(headers=(("x-key", "sk-secret"),)))
    assert "sk-secret" not in f"{head} {upstream_request(PERMIT, wire(), 1, (('authorization', 'sk-secret'),))}"


@given(path=st.text(alphabet=st.characters(max_codepoint=0x2100), max_size=40).map(lambda text: "/" + text))
def test_any_path_is_sent_to_the_host_of_the_permit(path: str) -> None:
    try:
        head = request_head(PERMIT, wire(path))
    except FenceBreach:
        return
    url = httpx.URL(PERMIT.origin).copy_with(raw_path=path.encode("ascii"))
    assert (url.host, url.scheme, url.port) == ("api.example", "https", None)
    assert url.raw_path == path.encode("ascii") == head.target.encode("ascii")
    assert head.start.startswith(b"POST " + url.raw_path + b" HTTP/1.1\r\nhost: api.example\r\n")


@pytest.mark.parametrize(
    ("origin", "permit"),
    [
        ("https://api.example", None),
        ("https://evil.example", PERMIT),
        ("http://api.example", PERMIT),
        ("https://api.example:8443", PERMIT),
        ("https://api.example.evil.example", PERMIT),
        ("https://api.example", "https://api.example"),
    ],
)
def test_only_a_permit_for_the_exact_origin_is_accepted(origin: str, permit: object) -> None:
    with pytest.raises(NotAllowed):
        allow(origin, permit)
    allow("https://api.example", PERMIT)
