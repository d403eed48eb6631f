"""The parts that features hang on values of the configuration. A part is found by its type."""

from __future__ import annotations

from typing import Any, TypeVar

from providers.value import Value

_T = TypeVar("_T")


class Marker(Value, frozen=True):
    """Base of a part that states one fact by being there."""


class RegionPart:
    """Base of a part of a region that says more of it than its own values."""

    __slots__ = ()

    def zone_of_days(self) -> str:
        """Return the time zone of the days of the region, or an empty text if the part names none."""
        return ""

    def kept_by(self) -> str:
        """Return the key of the region by which something is kept in the state directory, or an empty text."""
        return ""

    def judging(self) -> tuple[str, tuple[str, ...]]:
        """Return the key of the region that names further judges of chats, with the names of these deployments."""
        return "", ()


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
        """Return these parts and another one. None is no part."""
        return self if part is None else Parts((*self.every, part))


NO_PARTS = Parts()
