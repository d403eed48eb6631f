"""The door of a region that refuses chats at night, and the note of its refusal."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from gateway.model.decision import Refusal, RefusalCode
from gateway.model.hours import Hours
from gateway.model.location import Location
from gateway.model.record import AttemptRecord, FeatureNote, Record
from gateway.model.region_text import Sentences
from gateway.model.units import at_second
from gateway.policy.doors import RegionDoor
from providers.value import Value


class QuietNote(FeatureNote, Value, frozen=True):
    """A chat was refused at night."""

    allowed_at: str
    reason: ClassVar[str] = "quiet"
    duty: ClassVar[str] = "quiet"

    def log_fields(self) -> Mapping[str, object]:
        return {"quiet_until": self.allowed_at}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        return {"quiet": self.allowed_at}

    def counts(self, record: Record) -> Iterator[tuple[str, tuple[str, ...]]]:
        location = record.decided.location
        if record.shown.code is not None and location is not None and location.region is not None:
            yield "gateway_quiet_refusals_total", (location.region.name,)


class QuietHours(RegionDoor, Value, frozen=True):
    """The hours in which a region answers chats, and the sentence for users at other times."""

    plan_name: ClassVar[str] = "quiet"

    hours: Hours
    sentences: Sentences

    def __str__(self) -> str:
        return f"chats are answered {self.hours}"

    def report(self, region: Any) -> Iterator[tuple[str, str]]:
        """See `RegionPart`."""
        yield "quiet", str(self)

    def explained(self, location: Any) -> Iterator[tuple[str, object, str]]:
        """See `RegionPart`."""
        yield "quiet", str(self.hours), str(self)

    def before_body(self, location: Location, now_s: float) -> Refusal | None:
        """See `RegionDoor`."""
        if not (wait_s := self.hours.wait_s(now_s)):
            return None
        at = at_second(round(now_s + wait_s))
        message = f"this region answers chats {self.hours}: send the request at {at}"
        words = self.sentences
        return Refusal(RefusalCode.REGION_BLOCKED, message, retry_after_s=wait_s, sentences=words, note=QuietNote(at))
