"""Verify the tokens of operators: a rule of `token_issuers.X.roles` gives them a role at the admin listener."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.execution.service_client import ServiceClient
from gateway.execution.transport import Transport
from gateway.identity.client_tokens import ClientTokens
from gateway.model.client_token import TokenIssuer
from gateway.model.location import ClaimProblem, ClaimRefused
from gateway.model.signed_token import TokenGivesNothing
from gateway.model.stored_client import Role


class OperatorTokens:
    """Verifies the tokens of operators, each time anew, and keeps the keys of their issuers.

    It belongs to one event loop. `issuers` returns those of the active config version.
    """

    def __init__(
        self,
        issuers: Callable[[], Mapping[str, TokenIssuer]],
        transport: Transport,
        note: Callable[[str], None],
        blocked: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        self._issuers, self._transport, self._blocked = issuers, transport, blocked
        self._tokens = ClientTokens(ServiceClient(transport), note)

    @property
    def has_roles(self) -> bool:
        """Whether an issuer gives roles."""
        return any(issuer.roles for issuer in self._issuers().values())

    def prepare(self) -> None:
        """Begin to load the keys of the issuers, so that they are known when an issuer is down later."""
        if self.has_roles:
            self._tokens.prepare(self._issuers())

    def renew(self) -> None:
        """Ask the issuers for their keys again."""
        self._tokens.renew()

    async def holder(self, text: str) -> tuple[Role, str, str]:
        """Return the role of a token's holder, the user that it names, as it is shown, and the issuer. It may wait.

        Raises ClaimRefused, also if it is blocked or there are no keys, and TokenGivesNothing if no rule gives it a
        role.
        """
        # Imported late, because most gateways have no issuers.
        from gateway.identity.token_rules import first_rule

        self.prepare()
        checked, _ = await self._tokens.check(self._issuers(), text)
        issuer, user = checked.issuer, checked.user
        if not self._blocked().keys().isdisjoint(checked.signed.digests):
            raise ClaimRefused(ClaimProblem.DENIED)
        index = first_rule(issuer.name, issuer.roles, checked.signed.members)
        if index is None:
            raise TokenGivesNothing("role", issuer.name)
        return Role(issuer.roles[index].gives), user if user.isprintable() else ascii(user), issuer.name

    async def aclose(self) -> None:
        """Stop loading."""
        await self._tokens.aclose()
        await self._transport.aclose()
