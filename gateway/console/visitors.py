"""The visitors of the console outside a demo: the holder of an admin token with a session, or a user of a proxy."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.api.admin_guard import Guard, Identity
from gateway.api.caller.authentication import is_loopback_host
from gateway.api.errors import ApiError
from gateway.console.sessions import FailureLimit, Sessions, csrf_of
from gateway.console.texts import WORDS, ViewTexts, _
from gateway.model.location import ClaimProblem, ClaimRefused
from gateway.model.signed_token import TokenGivesNothing
from gateway.model.stored_client import Role
from gateway.settings import Settings, versions_of

PROXY_HEADER = "x-gateway-proxy-secret"
_FAILURE_S = 0.3
"""A failed sign-in takes this long, whatever the reason."""
_MOST_NAME = 120
_FRAMES = frozenset({"iframe", "frame", "embed", "object", "fencedframe"})
_STRONGEST = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)

_NO_ROLE: Mapping[str, str] = WORDS["no_role"]
_ONLY_HERE = _("this is not the address of the console: open it as http://127.0.0.1 or http://localhost, with its port")


class NotShown(Exception):
    """The visitor may not see the console, or it has no such page. The text is marked for translation."""

    def __init__(self, text: str, status: int = 403, **values: str) -> None:
        super().__init__(text.format(**values))
        self.status = status
        self._text, self._values = text, values

    def message(self, texts: ViewTexts) -> str:
        """Return the reason in the language of the visitor."""
        return texts.gettext(self._text).format(**self._values)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person whom the console has identified. Each change must send the token `csrf`. A session can be signed out."""

    identity: Identity
    name: str
    csrf: str = field(repr=False)
    can_sign_out: bool = False


@dataclass(frozen=True, slots=True)
class ConsoleAccess:
    """The settings of access."""

    url: str | None = None
    """The public origin, such as `https://console.example.com`, or None if it serves this machine only."""
    proxy_secrets: tuple[str, ...] = field(default=(), repr=False)
    """The secret of an authenticating proxy in its valid versions. Empty without a proxy."""
    user_header: str = "x-forwarded-user"
    groups_header: str = "x-forwarded-groups"
    roles: Mapping[str, Role] = field(default_factory=dict)
    """The role of each group. Without any, the proxy sends the company's token, and its issuer's rules decide."""

    @classmethod
    def of(cls, settings: Settings) -> ConsoleAccess:
        pairs = [item.partition("=") for item in (settings.console_roles or "").split(",") if item.strip()]
        return cls(
            settings.console_url.rstrip("/") if settings.console_url is not None else None,
            versions_of(settings.console_proxy_secret),
            settings.console_user_header.lower(),
            settings.console_groups_header.lower(),
            {group.strip(): Role(role.strip()) for group, __, role in pairs},
        )

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the console by TLS."""
        return self.url is not None and self.url.startswith("https://")

    @property
    def cookie(self) -> str:
        return "__Host-gateway-console" if self.is_secure else "gateway-console"

    def check(self, method: str, headers: Mapping[str, list[str]]) -> None:
        """Raise NotShown for a wrong host, another site, or a frame."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_own_host(hosts[0].lower()):
            if self.url is None:
                raise NotShown(_ONLY_HERE)
            raise NotShown(_("this is not the address of the console: open it as {address}"), address=self.url)
        if not _FRAMES.isdisjoint(headers.get("sec-fetch-dest", [])):
            raise NotShown(_("the console can't be shown inside another page"))
        sites, origins = headers.get("sec-fetch-site", []), headers.get("origin", [])
        is_link = method == "GET" and not origins and headers.get("sec-fetch-mode") == ["navigate"]
        own = self.url or f"http://{hosts[0].lower()}"
        # Without a referrer, browsers send the origin `null` with a form, also to their own site.
        known = {own, "null"} if sites == ["same-origin"] else {own}
        if not is_link and not (
            all(site in ("same-origin", "none") for site in sites) and all(it.lower() in known for it in origins)
        ):
            raise NotShown(_("other sites may only link to the pages of the console"))

    def _is_own_host(self, host: str) -> bool:
        if self.url is None:
            return is_loopback_host(host)
        parts = urlsplit(self.url)
        default = {"https": 443, "http": 80}[parts.scheme]
        names = {parts.netloc.lower()}
        if parts.port in (None, default):
            names |= {str(parts.hostname), f"{parts.hostname}:{default}"}
        return host in names


class Visitors:
    """Identifies visitors."""

    def __init__(self, access: ConsoleAccess, guard: Guard, sessions: Sessions) -> None:
        self.access = access
        self._guard = guard
        self._sessions = sessions
        self._failures = FailureLimit()

    def expect_sign_in(self) -> None:
        """Raise NotShown if no sign-in is possible. Raises ApiError."""
        if not self.access.proxy_secrets and not self._guard.has_tokens:
            command = "gateway admin-token create --role viewer --state DIR"
            text = _(
                "no sign-in is possible: there is no admin token. Create one on the machine of the gateway: `{command}`"
            )
            raise NotShown(text, command=command)

    async def visitor(self, headers: Mapping[str, list[str]], *, is_use: bool = True) -> Visitor | None:
        """Return the visitor with these headers, or None if a sign-in is needed. Raises NotShown, ApiError."""
        if self.access.proxy_secrets:
            sent = _only(headers, PROXY_HEADER).encode()
            if not any(hmac.compare_digest(sent, secret.encode()) for secret in self.access.proxy_secrets):
                text = _("this request did not come through the proxy: its `{name}` is missing or wrong")
                raise NotShown(text, name=PROXY_HEADER)
            if self.access.roles:
                (role, user), how = self._role_of_groups(headers), "proxy"
            else:
                role, user, issuer = await self._role_of_token(headers)
                how = f"issuer:{issuer}"
            csrf = csrf_of(f"{self.access.proxy_secrets[-1]}\0{user}")
            return Visitor(Identity(role, who=f"{user} (console)", how=how), user, csrf)
        for cookie in cookies_of(headers, self.access.cookie):
            token = self._sessions.token_of(cookie, is_use=is_use)
            holder = self._guard.holder(token) if token is not None else None
            if holder is not None:
                name = f"token {holder.token_id}" if holder.token_id else "GATEWAY_ADMIN_TOKEN"
                identity = Identity(holder.role, holder.token_id, f"console ({name})", holder.how)
                shown = self._guard.note_of(holder.token_id) or name
                return Visitor(identity, shown, csrf_of(cookie), can_sign_out=True)
        return None

    def _role_of_groups(self, headers: Mapping[str, list[str]]) -> tuple[Role, str]:
        """Return the role and the name of the user whom the proxy names. Raises NotShown."""
        access = self.access
        user, sent = _only(headers, access.user_header), _only(headers, access.groups_header)
        if not user or len(user) > _MOST_NAME or not user.isprintable():
            raise NotShown(_("the proxy must send the name of the user in `{name}`"), name=access.user_header)
        groups = {group.strip() for group in sent.split(",")}
        roles = {role for group, role in access.roles.items() if group in groups}
        role = next((one for one in _STRONGEST if one in roles), None)
        if role is None:
            text = _("none of the groups in `{name}` has a role here: GATEWAY_CONSOLE_ROLES gives roles to groups")
            raise NotShown(text, name=access.groups_header)
        return role, user

    async def _role_of_token(self, headers: Mapping[str, list[str]]) -> tuple[Role, str, str]:
        """Return the role, the user and the issuer of the company's token that the proxy sends. Raises NotShown."""
        issued = self._guard.issued
        if issued is None or not issued.has_roles:
            text = _("no group has a role: set GATEWAY_CONSOLE_ROLES, or write `roles` of an issuer in `token_issuers`")
            raise NotShown(text)
        scheme, __, text = _only(headers, "authorization").partition(" ")
        if scheme.lower() != "bearer":
            raise NotShown(_("the proxy must send your company's token in `authorization`, as `Bearer TOKEN`"))
        try:
            return await issued.holder(text.strip())
        except TokenGivesNothing as refused:
            raise NotShown(_NO_ROLE[refused.lacks]) from None
        except ClaimRefused as refused:
            if refused.problem is ClaimProblem.UNCHECKED:
                raise NotShown(
                    _("your company's token cannot be verified now: its issuer does not answer"), 503
                ) from None
            message = _("your company's token is not accepted ({problem}): sign in at the proxy again")
            raise NotShown(message, problem=str(refused.problem)) from None

    async def sign_in(self, token: str, address: str) -> str | None:
        """Return the cookie of a new session for the holder of a token; None without one. Raises ApiError."""
        if wait_s := self._failures.wait_s(address):
            message = _("too many failed attempts to sign in from this address: wait a minute")
            raise ApiError("rate_limited", message, retry_after_s=wait_s)
        began_s = asyncio.get_running_loop().time()
        digest = hashlib.sha256(token.strip().encode("utf-8", "replace")).hexdigest()
        if self._guard.holder(digest) is not None:
            return self._sessions.begin(digest)
        self._failures.note(address)
        self._guard.failed(address, ApiError("invalid_api_key", "the admin token of a sign-in to the console is wrong"))
        await asyncio.sleep(began_s + _FAILURE_S - asyncio.get_running_loop().time())
        return None

    async def sign_out(self, headers: Mapping[str, list[str]]) -> None:
        for cookie in cookies_of(headers, self.access.cookie):
            self._sessions.end(cookie)

    def set_cookie(self, value: str) -> str:
        """Return the header that sets the cookie, or removes it with an empty value."""
        parts = [f"{self.access.cookie}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
        parts += ["Secure"] if self.access.is_secure else []
        return "; ".join(parts if value else [*parts, "Max-Age=0"])


def cookies_of(headers: Mapping[str, list[str]], name: str) -> list[str]:
    pairs = [pair.partition("=") for header in headers.get("cookie", []) for pair in header.split(";")]
    return [value.strip() for key, __, value in pairs if key.strip() == name]


def _only(headers: Mapping[str, list[str]], name: str) -> str:
    """Return the value of a header of the proxy, or an empty text. Raises NotShown if it is sent twice."""
    given = headers.get(name, [])
    if len(given) > 1:
        raise NotShown(_("the header `{name}` is sent twice: the proxy must remove the one of the client"), name=name)
    value = given[0] if given else ""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:  # proxies send names in UTF-8 or as they are
        return value
