"""Remember for which texts the crisis text of a region was given, to whom.

Only such a text is excepted from moderation, for the same user and in the same role: no user can ask what another one
wrote, and an answer in a history shows nothing, because the client writes it. The gateway keeps an HMAC of the text,
with its role, the client and the user, the region and its rules, and nothing else: for all processes that share the
gate; in this process alone where there is no gate, and of a region whose metadata may not be kept.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateway.execution.exchange import Said
from gateway.execution.failure_observations import Asker
from gateway.features.crisis.model import CrisisRules
from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from gateway.usage.gate import GateUnavailable, UsageGate
from providers.json_values import dumps_text

_KEPT_S = 86_400
_MOST_HERE = 100_000
_DIGEST_BYTES = 16


class GivenTexts:
    """The texts of the users of one process, or of all that share its gate, if there is a state directory.

    The user key makes the digests, if the configuration has no key for pseudonyms.
    """

    def __init__(self, user_key: bytes, gate: UsageGate | None, clock: Callable[[], float] = time.time) -> None:
        self._user_key = user_key
        self._gate = gate
        self._clock = clock
        self._here: OrderedDict[bytes, float] = OrderedDict()

    async def known(self, config: ConfigVersion, location: Location, asker: Asker, texts: Iterable[Said]) -> set[Said]:
        """Return those of an asker's texts for which the crisis text of this region was given in the last 24 hours.

        If the gate cannot be asked, none of them is known, so that the text is given again.
        """
        digests = self._digests(config, location, asker, texts)
        if not digests:
            return set()
        if self._gate is None or not location.may_be_kept:
            now_s = self._clock()
            return {text for text, digest in digests.items() if now_s < self._here.get(digest, 0.0)}
        with suppress(GateUnavailable):
            known = await self._gate.remembers([*digests.values()])
            return {text for text, is_known in zip(digests, known, strict=True) if is_known}
        return set()

    async def add(self, config: ConfigVersion, location: Location, asker: Asker, texts: Iterable[Said]) -> None:
        """Remember that the crisis text of this region is given to an asker for these texts."""
        digests = self._digests(config, location, asker, texts).values()
        if self._gate is not None and location.may_be_kept:
            with suppress(GateUnavailable):
                await self._gate.remember([*digests], _KEPT_S)
            return
        until_s = self._clock() + _KEPT_S
        for digest in digests:
            self._here[digest] = until_s
            self._here.move_to_end(digest)
        while len(self._here) > _MOST_HERE:
            self._here.popitem(last=False)

    def _digests(
        self, config: ConfigVersion, location: Location, asker: Asker, texts: Iterable[Said]
    ) -> dict[Said, bytes]:
        region = location.region
        rules = region.parts.of(CrisisRules) if region is not None else None
        if region is None or rules is None:
            return {}
        secret = config.secrets.oldest_identity
        key = secret.reveal().encode() if secret is not None else self._user_key
        begun = hmac.new(key, b"crisis text 2\0" + rules.digest, "sha256")
        begun.update(dumps_text([region.name, *asker]).encode() + b"\0")
        digests = {}
        for role, text in texts:
            digest = begun.copy()
            digest.update(f"{role.__name__}\0{text}".encode("utf-8", "surrogatepass"))
            digests[role, text] = digest.digest()[:_DIGEST_BYTES]
        return digests
