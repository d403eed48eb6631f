"""What a record notes of a chat in a region with `crisis`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway.features.crisis.model import Crisis, CrisisOutcome
from gateway.model.record import AttemptRecord, FeatureNote
from providers.value import Value


class CrisisNote(FeatureNote, Value, frozen=True):
    """The outcome for a chat in a region with `crisis`. The log and the receipt get no category and no text."""

    outcome: CrisisOutcome
    crisis: Crisis | None = None

    @property
    def help(self) -> Crisis | None:
        """See `FeatureNote`."""
        return self.crisis

    def header_lines(self) -> Iterator[bytes]:
        """See `FeatureNote`."""
        if self.crisis is not None:
            yield b"x-gateway-crisis: " + self.crisis.then.encode()
        elif self.outcome == "unjudged":
            yield b"x-gateway-crisis: unjudged"

    def log_fields(self) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"crisis": self.outcome}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"crisis": self.outcome}
