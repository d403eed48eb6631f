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
    started_at is monotonic.
    """

    deployment: str
    provider: str
    model: str
    duration_s: float
    failure: Failure | None = None
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step of the plan that was not asked, and why."""

    deployment: str
    reason: str
