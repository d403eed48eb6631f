"""The signal `claim`: the territory of a signed claim. `claim_verification.py` verifies the claim with PyJWT."""

from __future__ import annotations

from collections.abc import Hashable

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import (
    CLAIM_PROBLEMS,
    ClaimProblem,
    ClaimQuestion,
    ClaimReport,
    Evidence,
    LocationProblem,
    Reports,
)
from gateway.model.location_rules import LocationRules, SignalName
from gateway.policy.location.signals import Reading, Signal, SignalInput, read_territory

_HEADER = "x-gateway-claim"


class Claim(Signal):
    """A token about the user that an issuer has signed. A claim that is rejected ends the decision."""

    name: SignalName = "claim"
    section = "claim"
    reads_edges = False
    client_right = None
    needs_lookup = True

    def can_locate(self, config: ConfigVersion) -> bool:
        """Return whether an issuer is configured."""
        return config.location.rules.claim is not None

    def headers(self, rules: LocationRules) -> tuple[str, ...]:
        """Read `x-gateway-claim`."""
        return (_HEADER,)

    def report(self, rules: LocationRules, given: SignalInput) -> ClaimQuestion | ClaimReport | None:
        """Ask for the verification of the claim. Several claims are rejected without one."""
        tokens = given.values(_HEADER)
        if len(tokens) > 1:
            return ClaimReport(problem=ClaimProblem.REPEATED)
        return ClaimQuestion(tokens[0]) if tokens else None

    def read(self, config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
        """Read the territory of a verified claim."""
        claim = claim_of(reports)
        if claim is None:
            return None
        if claim.problem is not None:
            is_unchecked = claim.problem is ClaimProblem.UNCHECKED
            return Reading(
                Evidence(self.name, "", note=f"not accepted: {CLAIM_PROBLEMS[claim.problem]}"),
                problem=LocationProblem.CLAIM_UNCHECKED if is_unchecked else LocationProblem.CLAIM,
            )
        if claim.territory is None:
            return Reading(Evidence(self.name, "", note="silent: it names no territory"))
        return read_territory(config, self.name, (claim.territory,))

    def suppose(self, territory: str) -> None:
        """Assume nothing: a claim has to be signed."""
        return None

    def identity(self, rules: LocationRules) -> Hashable:
        """The issuer and the members that are read, without the keys and the preferences."""
        claim = rules.claim
        if claim is None:
            return None
        return claim.issuer, claim.audience, claim.algorithms, claim.territory, claim.consents, claim.age_band


def claim_of(reports: Reports) -> ClaimReport | None:
    """Return the report of a request's claim, or None.

    Raises:
        TypeError: The claim has not been verified yet.
    """
    report = reports.get(Claim.name)
    if report is None or isinstance(report, ClaimReport):
        return report
    raise TypeError("the claim has not been verified yet")
