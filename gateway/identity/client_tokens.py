"""Verify the tokens of clients with their issuers' keys, and remember those that were valid."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway.execution.service_client import ServiceClient
from gateway.model.client_token import TokenIssuer
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import ClaimProblem, ClaimRefused
from gateway.model.signed_token import KeySource, TokenGivesNothing, token_key
from providers.value import replace

if TYPE_CHECKING:
    from gateway.policy.location.claim_verification import KeySet, SignedMembers
    from gateway.service.issuer_keys import IssuerKeys

_MOST_VERIFIED = 10_000
_COMPARED_EACH_S = 1.0


class CheckedToken(msgspec.Struct, frozen=True):
    """A token that its issuer signed, that is valid now and that is not denied, with all its members and its end.

    `user` is the user that it names, in the member `user` of the issuer.
    """

    issuer: TokenIssuer
    user: str
    signed: SignedMembers


class _Verified(msgspec.Struct, frozen=True):
    """A verified token: the rules and the keys by which it was verified, the client of its rule, and the caller.

    `config` is the version whose rules and client these are, and `until` when the token expires.
    """

    issuer: TokenIssuer
    keys: KeySet
    client: Client
    caller: Client
    config: ConfigVersion
    until: float


class ClientTokens:
    """Verifies the tokens of clients, and keeps the keys of their issuers. It belongs to one event loop.

    The clock is Unix time, and ticks are monotonic, both in seconds.
    """

    def __init__(
        self,
        services: ServiceClient,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services, self._note, self.clock, self._ticks = services, note, clock, ticks
        self._keys: dict[KeySource, IssuerKeys] = {}
        self._verified: OrderedDict[str, _Verified] = OrderedDict()
        self._compared_at = 0.0
        self._current: dict[str, KeySet | None] = {}

    def prepare(self, issuers: Mapping[str, TokenIssuer]) -> None:
        """Begin to load the keys of these issuers, and forget those of others."""
        for source in self._keys.keys() - {issuer.keys for issuer in issuers.values()}:
            del self._keys[source]
        if not issuers:
            self._verified.clear()
        for issuer in issuers.values():
            self._keys_of(issuer).kept.now()

    def renew(self) -> None:
        """Ask the issuers for their keys again: one that was withdrawn signs nothing any more, nor did it before."""
        for keys in self._keys.values():
            keys.kept.renew()
        self._compared_at = 0.0

    def known(self, config: ConfigVersion, digest: str) -> Client | None:
        """Return the client of a token that was verified before by the rules of this version, or None.

        The token must still be valid, and the issuer's keys and the client must be the same as then.
        """
        entry = self._verified.get(digest)
        if entry is None:
            return None
        # The common case makes no further call. Key sets are compared once a second.
        if (
            entry.config is config
            and (now_s := self.clock()) < entry.until
            and 0 <= now_s - self._compared_at < _COMPARED_EACH_S
        ):
            return entry.caller
        return self._still_known(config, digest, entry)

    def _still_known(self, config: ConfigVersion, digest: str, entry: _Verified) -> Client | None:
        """See `known`. Drop every token whose issuer has other keys."""
        now_s = self.clock()
        issuer = config.token_issuers.get(entry.issuer.name)
        if issuer is None or issuer != entry.issuer or now_s >= entry.until:
            return None
        if not 0 <= now_s - self._compared_at < _COMPARED_EACH_S:  # also if the clock was set back
            self._compared_at = now_s
            current = {name: self._keys_of(it).kept.now() for name, it in config.token_issuers.items()}
            # A stale set is None each time: its tokens wait for the next one, which may lack their key.
            if current != self._current or None in current.values():
                self._current = current
                for key in [key for key, it in self._verified.items() if current.get(it.issuer.name) is not it.keys]:
                    del self._verified[key]
        client = config.clients.get(token_key(entry.client.name))
        if client is None or digest not in self._verified:
            return None
        caller = entry.caller
        if client is not entry.client:
            caller = replace(client, key_hash=digest, token=caller.token)
        self._verified[digest] = _Verified(issuer, entry.keys, client, caller, config, entry.until)
        self._verified.move_to_end(digest)
        return caller

    async def check(
        self, issuers: Mapping[str, TokenIssuer], text: str, now_s: float | None = None
    ) -> tuple[CheckedToken, KeySet]:
        """Verify a token by the issuer that it names, of these, and return it with the keys.

        It may wait for the issuer.

        Raises ClaimRefused, also if it is denied or there are no keys, and TokenGivesNothing if an issuer left out a
        member by which tokens are denied.
        """
        # Imported late, because most gateways have no issuers.
        from gateway.identity.token_rules import check_denied, issuer_of, user_in
        from gateway.policy.location.claim_verification import read_unverified, verify_client_token

        token = read_unverified(text)
        issuer = issuer_of(issuers, token)
        signed, keys = await self._keys_of(issuer).verified(
            lambda keys: verify_client_token(issuer, keys, token, self.clock() if now_s is None else now_s)
        )
        check_denied(issuer, signed.members)
        return CheckedToken(issuer, user_in(issuer, signed.members), signed), keys

    async def verify(self, config: ConfigVersion, text: str, digest: str, now_s: float | None = None) -> Client:
        """Verify a token, remember it, and return its client. See `check`.

        Raises ClaimRefused, also if it is denied or there are no keys, and TokenGivesNothing if no rule gives it a
        client.
        """
        from gateway.identity.token_rules import holder_of

        checked, keys = await self.check(config.token_issuers, text, now_s)
        issuer = checked.issuer
        name, holder = holder_of(issuer, checked.signed)
        client = config.clients.get(token_key(name))
        if client is None and config.keys_stale and config.clients_source == "database":
            # The client may be there: the database cannot be read now.
            raise ClaimRefused(ClaimProblem.UNCHECKED)
        if client is None:
            raise TokenGivesNothing("client", issuer.name)
        caller = replace(client, key_hash=digest, token=holder)
        self._verified[digest] = _Verified(issuer, keys, client, caller, config, holder.until)
        if len(self._verified) > _MOST_VERIFIED:
            self._verified.popitem(last=False)
        return caller

    async def aclose(self) -> None:
        """Stop loading."""
        for keys in self._keys.values():
            await keys.kept.aclose()

    def _keys_of(self, issuer: TokenIssuer) -> IssuerKeys:
        known = self._keys.get(issuer.keys)
        if known is None:
            from gateway.service.issuer_keys import IssuerKeys

            named = f"token_issuers.{issuer.name}"
            known = self._keys[issuer.keys] = IssuerKeys(issuer.keys, self._services, self._note, self._ticks, named)
        return known
