"""The parts that features hang on values of the configuration. A part is found by its type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from providers.value import Value

_T = TypeVar("_T")


class Part:
    """Base of a part."""

    __slots__ = ()
    plan_name: ClassVar[str] = ""
    """Its name in a plan. Empty if a plan does not compare it."""


class Marker(Part, Value, frozen=True):
    """Base of a part that states one fact by being there."""


class RegionPart(Part):
    """Base of a part of a region. A part overrides the methods that concern it."""

    __slots__ = ()
    is_door: ClassVar[bool] = False
    """It may refuse a chat. See `gateway.policy.doors.RegionDoor`."""
    helps_first: ClassVar[bool] = False
    """A user may get help in place of a refusal, so that refusals wait until its judges have looked."""

    def report(self, region: Any) -> Iterable[tuple[str, str]]:
        """Return the lines of `check` about the `Region` on which it hangs: a heading, and the text."""
        return ()

    def explained(self, location: Any) -> Iterable[tuple[str, object, str]]:
        """Return what `explain` shows for a `Location` of the region: the member, its value, and the text."""
        return ()

    def without_own_texts(self, messages: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a history of `Message` without the texts that the gateway has put into its answers for this part."""
        return messages

    def zone_of_days(self) -> str:
        """Return the time zone of the days of the region, or an empty text if the part names none."""
        return ""

    def kept_by(self) -> str:
        """Return the key of the region by which something is kept in the state directory, or an empty text."""
        return ""

    def judging(self) -> tuple[str, tuple[str, ...]]:
        """Return the key of the region that names further judges of chats, with the names of these deployments."""
        return "", ()

    def forbidden_claims(self) -> frozenset[str]:
        """Return the categories of a verdict that flag an answer, whatever else the verdict states."""
        return frozenset()


class LabelProof(Part):
    """Base of the part of a label whose data prove each text of an answer. A region has at most one."""

    __slots__ = ()
    label: str
    section: ClassVar[str]
    """The key of the section with which it works, which is the plan name of its part."""
    word: ClassVar[str]
    """Its word in a plan."""
    noun: ClassVar[str]
    """The name of the proof, as `explain` shows it."""

    def report(self) -> tuple[str, str]:
        """Return its line of `check` about the region: a heading, and the text."""
        raise NotImplementedError

    def signer(self, config: Any, clock: Callable[[], float]) -> Any:
        """Return the `TextSigner` of a `ConfigVersion`, or None. `clock` is Unix time."""
        raise NotImplementedError


class Parts(Value, frozen=True):
    """The parts of one value, at most one of each type. They count in comparisons of the value, but not in its hash."""

    every: tuple[Any, ...] = ()

    def of(self, kind: type[_T]) -> _T | None:
        """Return the part of this type, or None."""
        for part in self.every:
            if isinstance(part, kind):
                return part
        return None

    def having(self, part: object) -> Parts:
        """Return these parts and another one. None adds nothing."""
        return self if part is None else Parts((*self.every, part))


NO_PARTS = Parts()
