"""A hand-off: what opens the barrier of a route, and what is then sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from gateway.model.section import Listed, PlainSection, key, section
from providers.value import Value


class HandOffCause(StrEnum):
    """Why a barrier opens, in the order in which the causes are looked at."""

    CAPABILITY = "capability"  # no private step can answer such a request
    CONTEXT = "context"  # the prompt is too long for the private steps
    FAILURE = "failure"  # the private steps failed
    ASKED = "asked"  # the private model asked for it


Sharing: TypeAlias = Literal["conversation", "last_turn"]


class HandOff(Value, frozen=True):
    """A barrier that is open for one request. `gateway.policy.hand_off` makes it, for a cause that the barrier lists.

    `share` is the content that is sent: the conversation, or the last message of the user.
    """

    cause: HandOffCause
    share: Sharing

    def fields(self) -> dict[str, object]:
        """Return it as the log line, the receipt and `explain` show it."""
        return {"cause": str(self.cause), "share": self.share}


@section
class BarrierRule(PlainSection):
    """A barrier in a route. The steps before it are the private ones."""

    when: Annotated[tuple[HandOffCause, ...], Listed(least=1)] = key(
        "The causes that open it: no private step can answer such a request (capability), the prompt is too long for "
        "them (context), they failed (failure), or the private model asks for it with a tool (asked)."
    )
    share: Sharing = key(
        "The content that is then sent: the conversation, or only the last message of the user.", default="conversation"
    )
    redact: str | None = key(
        "The redaction of all that is sent after it, also to a deployment with `redact: false`.", default=None
    )

    def __str__(self) -> str:
        redacted = f"; redact {self.redact}" if self.redact is not None else ""
        return f"hand_off ({', '.join(self.when)}; {self.share}{redacted})"
