"""Spellings of one server outside the catalogue. `patches/servers.yaml` has the hosts of vendors."""

from __future__ import annotations

import pytest

from gateway.config.endpoints import server_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.2:8000"),
        ("http://127.0.0.1:8000", "https://localhost:8000"),
        ("http://llm.example.com:8000", "https://llm.example.com:8000"),
        ("http://[::1]:8000", "http://0.0.0.0:8000"),
    ],
)
def test_spellings_of_one_server_are_one_server(one: str, other: str) -> None:
    assert server_of(one) == server_of(other)


def test_other_port_is_another_server() -> None:
    assert server_of("http://127.0.0.1:8000") != server_of("http://127.0.0.1:8001")
    assert server_of("http://llm.example.com") != server_of("https://llm.example.com")
