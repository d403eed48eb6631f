"""The result of a user's preference for a deployment."""

from __future__ import annotations

from enum import StrEnum

from providers.value import Value


class PreferenceReason(StrEnum):
    """Why a preference was not used."""

    UNKNOWN = "unknown"  # the assistant has no such choice
    ROUTE = "route"  # none of its deployments is on this route, or not for this user
    BOUNDARY = "boundary"
    AVAILABILITY = "availability"
    APPROVAL = "approval"
    CONSENT = "consent"
    CAPABILITY = "capability"
    HEALTH = "health"
    HAND_OFF = "hand_off"
    AGE = "age"
    FAILED = "failed"  # it was tried, and another deployment answered


class Preference(Value, frozen=True):
    """A user's preference. It has no choice if the assistant does not have the name, because a client made it up.

    The reason states why none of its deployments is in the plan, or None. `is_reordered`: the plan has another order.
    """

    choice: str | None
    deployments: frozenset[str] = frozenset()
    reason: PreferenceReason | None = None
    is_reordered: bool = False

    def why_not_used(self, deployment: str | None) -> PreferenceReason | None:
        """Return why the preference was not used, or None if this deployment, which answers, belongs to it."""
        if deployment is not None and deployment in self.deployments:
            return None
        return self.reason or PreferenceReason.FAILED

    def fields(self, deployment: str | None) -> dict[str, object]:
        """Return the preference as the log line, the receipt and `explain` show it."""
        reason = self.why_not_used(deployment)
        return {"choice": self.choice, "used": reason is None, "reason": reason}
