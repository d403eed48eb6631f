"""What a record notes of the time of the user of a chat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from gateway.features.duties.model import UseRule
from gateway.model.record import AttemptRecord, FeatureNote


class UseNote(FeatureNote, msgspec.Struct):
    """What a chat met of the time of its user.

    Attributes:
        use_limit: The limit that refused the chat, or None.
        use: The time of the user and its limits, in seconds, for a header. None: it is not shown.
    """

    use_limit: UseRule | None = None
    use: str | None = None

    def header_lines(self) -> Iterator[bytes]:
        """See `FeatureNote`."""
        if self.use is not None:
            yield f"x-gateway-use: {self.use}".encode()

    def log_fields(self) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"use_limit": self.use_limit}

    def receipt_members(self, _recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"use_limit": self.use_limit}
