"""The access check of the admin listener: which role the sender of a request has."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.api.caller.authentication import FailedKeyLimiter, is_guess, is_token, source_of, token_error
from gateway.api.errors import ApiError
from gateway.model.location import ClaimRefused
from gateway.model.signed_token import TokenGivesNothing
from gateway.model.stored_client import LISTENER_CLOSED, AdminToken, Role, may_act
from gateway.operator_errors import StateError
from gateway.telemetry.log import logger
from providers.value import Value

IDENTITY = "gateway.identity"
"""The member of an ASGI scope with the identity that the console has checked. No request can contain it."""


_NO_ROLE = {
    "role": "no rule of `token_issuers.*.roles` gives this token a role: ask for a group or a rule that does",
    "groups": "the issuer left the groups out of this token, because there are too many: use app roles, or `groups "
    "assigned to the application`, at the issuer",
}


class Identity(Value, frozen=True):
    """The sender of an admin request."""

    role: Role
    token_id: str = ""
    """The id of its admin token. Empty for `GATEWAY_ADMIN_TOKEN`, and without any token."""
    who: str = ""
    """A verified name for the audit trail in place of the name that the sender gives itself, or an empty text."""
    how: str = ""
    """How the sender came in (`Who`)."""

    def expect(self, needed: Role) -> None:
        """Raise ApiError if the role of the sender ranks below this one."""
        if not may_act(self.role, needed):
            has = "the admin token has" if self.token_id else "you have"
            message = f"{has} the role `{self.role}`, and this needs the role `{needed}`"
            raise ApiError("permission_denied", message)


class GivesRoles(Protocol):
    """Gives a role at the listener to the holder of a signed token."""

    @property
    def has_roles(self) -> bool:
        """Whether any token may give one."""

    async def holder(self, text: str) -> tuple[Role, str, str]:
        """Return the role, the user as it is shown, and the issuer. Raises ClaimRefused and TokenGivesNothing."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The access check of the admin listener."""

    own: tuple[tuple[str, Role], ...] = field(default=(), repr=False)
    """The tokens of the settings, each with its role. Without one, only this machine can reach the listener."""
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})
    """The host names under which a request without a token may call the listener."""
    tokens: Callable[[], Mapping[str, AdminToken]] = field(default=dict, repr=False)
    """Returns the admin tokens that were created, by the SHA-256 of each. May raise StateError."""
    is_closed: Callable[[], bool] = field(default=bool, repr=False)
    """Returns whether a token was ever needed here, so that one is needed although there is none. May raise
    StateError."""
    failures: FailedKeyLimiter = field(default_factory=FailedKeyLimiter, repr=False)
    issued: GivesRoles | None = field(default=None, repr=False)
    """Verifies tokens of `token_issuers`, if the gateway has a configuration that may name them."""

    async def check(self, scope: Mapping[str, Any], needed: Role = Role.VIEWER) -> Identity:
        """Return the sender of a request; raise ApiError if it is not allowed."""
        identity: Identity | None = scope.get(IDENTITY)
        if identity is None:
            identity = await self._identify(scope["headers"], (scope.get("client") or ("",))[0])
        identity.expect(needed)
        return identity

    def note_closed(self) -> None:
        """Log that no operator can call the listener, because a token is needed and there is none."""
        with suppress(ApiError):
            tokens, is_closed = self._stored_tokens()
            if is_closed and not (self.own or tokens or self._has_roles):
                logger().warning("admin_closed", detail=LISTENER_CLOSED)

    @property
    def _has_roles(self) -> bool:
        return self.issued is not None and self.issued.has_roles

    def failed(self, peer: str, error: ApiError) -> ApiError:
        """Count and log a wrong token; return the error for its sender, which is another one after too many of them.

        A valid token is accepted all the same: the mistakes of another client must not lock an operator out.
        """
        address = source_of(peer)
        try:
            self.failures.count(address, "admin token")
        except ApiError as limited:
            error = limited
        fields = {"status": error.status, "code": error.code, "detail": error.message}
        logger().warning("admin_refused", address=address, **fields)
        return error

    async def _holder_of(self, issued: GivesRoles, text: str, peer: str) -> Identity:
        """Return the holder of an issuer's token. Raises ApiError."""
        await self.failures.pace(source_of(peer))
        try:
            role, user, issuer = await issued.holder(text)
        except ClaimRefused as refused:
            error = token_error(refused.problem, "an admin token")
            raise (self.failed(peer, error) if is_guess(refused.problem) else error) from None
        except TokenGivesNothing as refused:
            raise ApiError("permission_denied", _NO_ROLE[refused.lacks], extra={"token": refused.lacks}) from None
        return Identity(role, who=user, how=f"issuer:{issuer}")

    async def _identify(self, pairs: Iterable[tuple[bytes, bytes]], peer: str) -> Identity:
        """Return the sender with these headers, of which the first one of a name counts. Raises ApiError."""
        headers: dict[str, str] = {}
        for key, value in pairs:
            headers.setdefault(key.decode("latin-1"), value.decode("latin-1"))
        _refuse_web_pages(headers)
        tokens, is_closed = self._stored_tokens()
        issued = self.issued if self._has_roles else None
        if not (self.own or tokens) and issued is None:
            if is_closed:
                raise self._unknown(headers, peer, LISTENER_CLOSED)
            return self._without_token(headers.get("host", "").lower())
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            text = given.strip(" \t")
            if (identity := self._by_token(text, tokens)) is not None:
                return identity
            if issued is not None and is_token(text.encode("latin-1", "replace")):
                return await self._holder_of(issued, text, peer)
        remedy = "send `authorization: Bearer TOKEN`, for commands in GATEWAY_ADMIN_TOKEN"
        raise self._unknown(headers, peer, f"the admin token is missing or wrong: {remedy}")

    def _without_token(self, host: str) -> Identity:
        """Return the sender to a listener that needs no token, if it has called this machine. Raises ApiError."""
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in self.hosts:
            message = "the `host` is not this machine: call the admin listener at an address such as http://127.0.0.1"
            raise ApiError("permission_denied", message)
        return Identity(Role.ADMIN)

    def _by_token(self, text: str, tokens: Mapping[str, AdminToken]) -> Identity | None:
        # Programs send header values in UTF-8, browsers in Latin-1.
        digests = [hashlib.sha256(text.encode(charset, "replace")).hexdigest() for charset in ("latin-1", "utf-8")]
        found = [self._find(digest, tokens) for digest in digests]
        return found[0] or found[1]

    def _unknown(self, headers: Mapping[str, str], peer: str, message: str) -> ApiError:
        """Return the error for a sender that is not known. A token that it sent counts as a wrong one."""
        error = ApiError("invalid_api_key", message)
        return self.failed(peer, error) if "authorization" in headers else error

    @property
    def has_tokens(self) -> bool:
        """Whether there is an admin token. Raises ApiError."""
        return bool(self.own) or bool(self._stored_tokens()[0])

    def holder(self, digest: str) -> Identity | None:
        """Return the holder of an admin token by its SHA-256 (hex); None if there is no such token. Raises ApiError."""
        return self._find(digest, self._stored_tokens()[0])

    def note_of(self, token_id: str) -> str:
        """Return the note of a stored admin token. Raises ApiError."""
        return next((it.note for it in self._stored_tokens()[0].values() if it.id == token_id), "")

    def _find(self, digest: str, tokens: Mapping[str, AdminToken]) -> Identity | None:
        for own, role in self.own:
            if hmac.compare_digest(digest, hashlib.sha256(own.encode("utf-8")).hexdigest()):
                return Identity(role, how="built-in")
        token = tokens.get(digest)
        return Identity(token.role, token.id, how="token") if token is not None else None

    def _stored_tokens(self) -> tuple[Mapping[str, AdminToken], bool]:
        """Return the tokens, and whether one is needed although there is none."""
        try:
            tokens = self.tokens()
            return tokens, not tokens and self.is_closed()
        except StateError as error:
            raise ApiError("keys_unavailable", f"the admin tokens cannot be read: {error}", retry_after_s=1.0) from None


def _refuse_web_pages(headers: Mapping[str, str]) -> None:
    """Raise ApiError for a request that a web page may have sent."""
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        message = "web pages may not call the admin listener: call it with a program such as curl"
        raise ApiError("permission_denied", message)
    kind = headers.get("content-type")
    if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
        message = "the content type is not supported: send `content-type: application/json`, or no body"
        raise ApiError("unsupported_media_type", message)
