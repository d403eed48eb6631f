"""Verify the claims of one issuer, and remember those that were valid."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from gateway.execution.service_client import ServiceClient
from gateway.model.location import ClaimRefused, ClaimReport
from gateway.occasional_count import OccasionalCount
from gateway.policy.location.claim import ClaimQuestion, ClaimRules
from gateway.policy.location.claim_verification import KeySet, Verified, verify
from gateway.service.issuer_keys import IssuerKeys

_MAX_VERIFIED = 4096
_LONG_S = 86_400.0
_TELL_S = 3600.0


class Issuer:
    """Checks claims by the rules of one config, with the keys from its source. Ticks are monotonic seconds.

    The keys of the `former` config are kept if they have the same source.
    """

    def __init__(
        self,
        rules: ClaimRules,
        former: Issuer | None,
        services: ServiceClient,
        note: Callable[[str], None],
        clock: Callable[[], float],
        ticks: Callable[[], float],
    ) -> None:
        self.rules = rules
        keys: IssuerKeys | None = former.keys if former is not None else None
        if keys is None or keys.source != rules.keys:
            keys = IssuerKeys(rules.keys, services, note, ticks)
        self.keys: IssuerKeys = keys
        self.kept = self.keys.kept
        self._clock = clock
        self._note = note
        self._long_lived = OccasionalCount(_TELL_S, ticks)
        self._verified: OrderedDict[bytes, tuple[KeySet, Verified]] = OrderedDict()

    async def answer(self, question: ClaimQuestion) -> ClaimReport:
        """Return the content of the claim, or the problem because of which it is rejected."""
        token = question.token
        digest = hashlib.sha256(token.encode("latin-1")).digest()
        known = self._verified.get(digest)
        if known is not None and known[0] is self.kept.now() and self._clock() < known[1].until:
            self._verified.move_to_end(digest)
            return known[1].report
        try:
            verified, keys = await self.keys.verified(lambda keys: verify(self.rules, keys, token, self._clock()))
        except ClaimRefused as refused:
            return ClaimReport(problem=refused.problem)
        return self._remember(digest, keys, verified)

    def _remember(self, digest: bytes, keys: KeySet, verified: Verified) -> ClaimReport:
        self._verified[digest] = (keys, verified)
        is_long = self.rules.longest_s is None and verified.lifetime_s > _LONG_S
        if is_long and (count := self._long_lived.add()):
            words = "claims were accepted that are" if count > 1 else "claim was accepted that is"
            self._note(f"{count} {words} valid for more than 24 hours: set `longest` of location.claim")
        if len(self._verified) > _MAX_VERIFIED:
            self._verified.popitem(last=False)
        return verified.report
