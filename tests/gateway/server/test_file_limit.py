"""A process raises its limit of open files, and logs a warning if the limit stays low."""

from __future__ import annotations

import resource

import pytest
import structlog

from gateway.server.uvicorn_server import raise_file_limit

NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "after", "logged"),
    [
        (1024, 524_288, 65_536, None),
        (1024, NONE, 65_536, None),
        (1024, 20_000, 20_000, None),
        (1024, 4096, 4096, 4096),
        (64, 64, 64, 64),
        (100_000, 524_288, 100_000, None),
        (NONE, NONE, NONE, None),
    ],
)
def test_file_limit_is_raised_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int, logged: int | None
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    with structlog.testing.capture_logs() as lines:
        raise_file_limit()
    assert limits[-1] == (after, hard)
    assert [line["limit"] for line in lines] == ([logged] if logged is not None else [])


def test_system_that_allows_less_than_its_limit_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, limit: tuple[int, int]) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, NONE))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with structlog.testing.capture_logs() as lines:
        raise_file_limit()
    assert [line["limit"] for line in lines] == [256]
