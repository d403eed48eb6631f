"""The fixtures of the tests of the service."""

from collections.abc import Sequence

import pytest

from gateway.assembly import application
from gateway.model.record import Record
from gateway.telemetry.batching import Ended


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Return the list of the records of finished requests, in place of the log."""
    kept: list[Record] = []

    def keep(ended: Sequence[Ended], share: float = 1.0) -> None:
        kept.extend(record for record, _ in ended)

    monkeypatch.setattr(application, "log_requests", keep)
    return kept
