"""One call to one deployment, as it is remembered."""

from __future__ import annotations

from dataclasses import dataclass

from providers.failures import Failure
from providers.values import quick

__all__ = ["Attempt", "Skipped"]


@quick
@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that has ended, or that has become the answer (`failure` None).

    duration_s: until the answer began (a stream's first real event, a whole JSON answer) or until it failed.
    started_at is monotonic. places: where the deployment stores and processes, in words.
    is_hedge: it was made beside a slow one. lost: another one answered first, and this one was cancelled; duration_s is
        until then.
    """

    deployment: str
    provider: str
    model: str
    duration_s: float
    failure: Failure | None = None
    started_at: float = 0.0
    places: tuple[str, str] | None = None
    is_hedge: bool = False
    lost: bool = False

    @property
    def outcome(self) -> str:
        """`ok`, `lost`, or the kind of failure."""
        if self.failure is not None:
            return self.failure.kind
        return "lost" if self.lost else "ok"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step of the plan that was not asked, and why."""

    deployment: str
    reason: str
