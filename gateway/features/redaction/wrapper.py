"""The redaction of one recipient, as a wrapper."""

from __future__ import annotations

from gateway.features.redaction.model import RedactionRules, union
from gateway.features.redaction.policy.finding import finder_of
from gateway.features.redaction.policy.placeholders import may_begin
from gateway.features.redaction.policy.requests import Redacted, redact
from gateway.model.served import ServedRequest
from gateway.model.wrapper import Wrapper


class Redaction(Wrapper, frozen=True):
    """See `Wrapper`."""

    rules: RedactionRules

    def __str__(self) -> str:
        return str(self.rules)

    @property
    def names(self) -> tuple[str, ...]:
        return self.rules.names

    @property
    def shown_kinds(self) -> tuple[str, ...]:
        return self.rules.shown_kinds

    @property
    def refuses_media(self) -> bool:
        return self.rules.media == "refuse"

    @property
    def key(self) -> bytes:
        return self.rules.digest + f"{self.rules.media} {self.rules.arguments}".encode()

    @property
    def most_at_once(self) -> int:
        return finder_of(self.rules).most_at_once

    def joined(self, other: Wrapper) -> Redaction:
        if not isinstance(other, Redaction):
            raise TypeError("a redaction is joined with redactions only")
        return Redaction(union(self.rules, other.rules))

    def covers(self, other: Wrapper) -> bool:
        return isinstance(other, Redaction) and self.rules.covers(other.rules)

    def wrap(self, request: ServedRequest) -> Redacted:
        return redact(request, self.rules)

    def may_begin(self, text: str) -> bool:
        return may_begin(text)
