"""A process raises its limit of open files, and logs a warning if the limit stays low."""

import errno
import os
import resource

import pytest
import structlog

from gateway.server.descriptors import DescriptorWatch, raise_file_limit

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


def test_seconds_without_a_descriptor_are_counted_and_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    watch = DescriptorWatch(lambda: now[0])
    problems = [errno.EMFILE] * 3 + [errno.ENOENT, 0, errno.ENFILE]

    def fail(*_: object) -> int:
        if number := problems.pop(0):
            raise OSError(number, os.strerror(number))
        return os.dup(2)

    monkeypatch.setattr(os, "open", fail)
    with structlog.testing.capture_logs() as lines:
        for now[0] in (0, 1, 2, 3, 4, 60):
            watch.look()
    assert watch.seconds_without == 4
    assert [(line["event"], line["seconds"]) for line in lines] == [("no_descriptors", 1), ("no_descriptors", 3)]
