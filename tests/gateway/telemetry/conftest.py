"""Give each test a log with a reader."""

import io

import pytest

from gateway.telemetry import log


@pytest.fixture(autouse=True)
def readable_log() -> None:
    log.configure("json", "info", io.StringIO())
