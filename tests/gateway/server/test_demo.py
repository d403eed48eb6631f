"""The example requests that `gateway demo` sends to itself."""

from __future__ import annotations

import socket

import httpx
import pytest

from gateway.server.demo import _answers


@pytest.fixture
def closed_url() -> str:
    """Return the URL of a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_gateway_that_is_stopped_during_the_example_requests_gives_no_answers(closed_url: str) -> None:
    assert await _answers(closed_url, "assistant", lambda: True) is None


async def test_gateway_that_cannot_be_reached_while_it_serves_is_an_error(closed_url: str) -> None:
    with pytest.raises(httpx.ConnectError):
        await _answers(closed_url, "assistant", lambda: False)
