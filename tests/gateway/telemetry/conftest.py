"""Give each test a log with a reader, and remove the log of the test afterwards."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import structlog

from gateway.telemetry import log


@pytest.fixture(autouse=True)
def readable_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_write_requests", log._write_requests)
    monkeypatch.setattr(log, "_out", log._out)
    log.configure("json", "info", io.StringIO())
    yield
    structlog.reset_defaults()
