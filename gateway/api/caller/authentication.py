"""Authenticate a request by its API key or a signed token, and limit failed attempts by the address of their sender.

A valid key is accepted even while wrong ones are limited: a client that sends wrong keys through an edge, or from a
shared address, must not lock out the others there. Keys are too long to be guessed.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
import re
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

from gateway.api.errors import ApiError
from gateway.model.api_key import KEY_START, NO_CELL, digest_of, read_key
from gateway.model.caller import RequestHeaders, VerifiesTokens
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import AddressReport, ClaimProblem, ClaimRefused
from gateway.model.signed_token import TokenGivesNothing
from gateway.policy.location.resolution import address_of
from gateway.policy.location.trusted_edge import parse_peer

_MAX_HEADER_BYTES = 64 * 1024
_KEYS_RETRY_S = 5.0
# The headers in which SDKs send a key: Anthropic's, Azure's and Google's.
_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")
# A session of Claude's own apps, which they send together with the key of a gateway. It is never a key of one.
# source: BerriAI/litellm#39004 (2026-08-31)
_SESSION_START = "sk-ant-oat"
_KEY_QUERY_NAMES = frozenset({"key", "api_key", "access_token"})
# Names that no web page can have: an address, a name without a dot, or one below a name that cannot be registered
# (RFC 6761, sections 6.2 and 6.3; ICANN reserves `internal` for private use since 2024).
_NO_PAGES_NAME = re.compile(
    r"([a-z0-9_-]+|([^:]*\.)?(localhost|internal|test)\.?|[0-9]+(\.[0-9]+){3}|\[[0-9a-f:.]+\])(:[0-9]*)?"
)
# Headers that a proxy adds.
_FORWARDING = re.compile(
    r"forwarded|x-forwarded-.*|x-real-ip|true-client-ip|via|cf-.*|cloudfront-viewer-.*|x-vercel-ip-.*|fastly-.*"
    r"|x-appengine-.*|x-client-geo-.*|ali-.*|eo-client-.*|cdn-requestcountrycode|x-akamai-.*|x-country|x-nf-geo"
    r"|cdn-loop|x-original-forwarded-for|(x-(cluster-)?)?client-ip|(wl-)?proxy-client-ip|x-envoy-.*|x-azure-.*"
    r"|fly-.*|do-connecting-ip|x-amz-cf-.*|x-amzn-trace-id|x-cloud-trace-context|x-country-code|x-geo-.*"
)
MOST_FAILED_KEYS = 60
"""Wrong keys that one address may send in a minute. More are guesses, not mistakes."""
_NOT_VALID = "the API key is unknown, has expired or was revoked: ask the operator of this gateway for a key"
_WINDOW_S = 60.0
_WRONG_KEY = frozenset({"invalid_api_key", "key_of_another_cell"})
_MOST_ADDRESSES = 10_000
# A household or a server has a /64 (RFC 6177), and could send each guess from another address of it.
_IPV6_PREFIX = 64
_TOKEN_START = b"eyJ"
_VERIFIED_A_SECOND = 20
"""Tokens of one address that are verified in a second, once it has sent too many wrong ones."""
# The signature of such a token is right: it is not a guess.
_SIGNED = frozenset(
    {ClaimProblem.EXPIRED, ClaimProblem.NOT_YET, ClaimProblem.LONG, ClaimProblem.DENIED, ClaimProblem.EARLY}
)
_NO_CLIENT = {
    "client": "no rule of `token_issuers` gives this token a client: ask the operator of this gateway for a rule",
    "groups": "the issuer left the groups out of this token, because there are too many: ask the operator to use app "
    "roles, or `groups assigned to the application`, at the issuer",
}


class TokenUnverified(Exception):
    """The request has a token that `FailedKeyLimiter.verify` must verify first, at `sent_s` (Unix time) or now."""

    sent_s: float | None = None

    def __init__(self, text: str, digest: str) -> None:
        super().__init__("a token is not verified")
        self.text = text
        self.digest = digest


def authenticate(config: ConfigVersion, headers: RequestHeaders, tokens: VerifiesTokens | None = None) -> Client | None:
    """Return the client to which the key belongs, or None where the config asks for no keys.

    Raises ApiError without a valid key, and TokenUnverified for a token that is not among the verified ones.
    """
    if headers.header_bytes > _MAX_HEADER_BYTES:
        message = f"the headers are larger than {_MAX_HEADER_BYTES} bytes: send fewer or shorter ones"
        raise ApiError("headers_too_large", message)
    if headers.query and any(
        name.lower() in _KEY_QUERY_NAMES for name, _ in parse_qsl(headers.query, keep_blank_values=True)
    ):
        problem = "API keys in the URL are refused, because URLs are logged"
        if headers.is_google:
            # Google's own servers answer a key that is not accepted with this status.
            raise ApiError("invalid_request", f"{problem}: send the header `x-goog-api-key: KEY`", "key")
        raise _no_key(f"{problem}: send `authorization: Bearer KEY`")
    if not serves_others(config):
        require_this_machine(config, headers)
        return None
    key = _key_of(headers)
    digest = _hash(key)
    client = _stored_client(config, key) or config.clients.get(digest)
    if client is None and tokens is not None and config.token_issuers:
        client = tokens.known(config, digest)
    if client is None and not key.isascii():
        # Programs send header values in UTF-8, browsers in Latin-1.
        client = config.clients.get(_hash(key.decode("latin-1").encode("utf-8")))
    if client is None:
        if not (config.token_issuers and is_token(key)):
            raise _unknown_key(config, key)
        raise TokenUnverified(key.decode("latin-1"), digest)
    if config.blocked_keys:
        _expect_no_block(config, client, digest)
    if client.until_s is not None and time.time() >= client.until_s:
        raise _no_key(_NOT_VALID)
    return client


def _expect_no_block(config: ConfigVersion, client: Client, digest: str) -> None:
    """Raise ApiError if a key is blocked: by its stored digest, by its SHA-256, or by that of a token's other form."""
    forms = client.token.digests if client.token is not None else ()
    if not config.blocked_keys.keys().isdisjoint((client.key_hash, digest, *forms)):
        raise _blocked()


def _blocked() -> ApiError:
    return _no_key("the API key is blocked: ask the operator of this gateway for another key")


def is_token(key: bytes) -> bool:
    """Return whether a text has the form of a signed token: three parts, the first one a JSON object in base64url."""
    return key.startswith(_TOKEN_START) and key.count(b".") == 2


async def verify_token(
    config: ConfigVersion, tokens: VerifiesTokens | None, token: TokenUnverified, now_s: float | None = None
) -> Client:
    """Verify a token, and return its client. It must be valid at `now_s` (Unix time), or now.

    Raises ClaimRefused for an invalid token, and ApiError if no rule names a client for it, it is blocked, or there are
    no keys.
    """
    if tokens is None:
        raise TypeError("tokens can't be verified here")
    if token.digest in config.blocked_keys:
        raise _blocked()
    try:
        client = await tokens.verify(config, token.text, token.digest, now_s)
    except TokenGivesNothing as refused:
        message, extra = _NO_CLIENT[refused.lacks], {"token": refused.lacks}
        raise ApiError("permission_denied", message, extra=extra, token_issuer=refused.issuer) from None
    _expect_no_block(config, client, token.digest)
    return client


def is_guess(problem: ClaimProblem) -> bool:
    """Return whether a token that is not valid counts as a wrong key, because no issuer signed it."""
    return problem not in _SIGNED and problem is not ClaimProblem.UNCHECKED


def token_error(problem: ClaimProblem, other: str = "an API key") -> ApiError:
    """Return the error for a token that is not valid, with what may be sent in its place. It quotes no part of it."""
    if problem is ClaimProblem.UNCHECKED:
        message = f"the token cannot be verified: {problem.words}; try again later"
        return ApiError("keys_unavailable", message, retry_after_s=_KEYS_RETRY_S)
    message = f"the token is not accepted: {problem.words}; send a new token, or {other}"
    headers = {"www-authenticate": 'Bearer error="invalid_token"'}
    return ApiError("invalid_api_key", message, headers=headers, extra={"token": str(problem)})


def _stored_client(config: ConfigVersion, key: bytes) -> Client | None:
    """Return the client of the database to which a cell's key belongs, or None. Raises ApiError if it is revoked."""
    if config.clients_source == "database" and key.startswith(KEY_START):
        for pepper in config.secrets.pepper:
            digest = digest_of(pepper, key)
            client = config.clients.get(digest)
            if client is not None:
                return client
            if digest in config.revoked_keys:
                raise _unknown_key(config, key)
    return None


def _unknown_key(config: ConfigVersion, key: bytes) -> ApiError:
    """Return the error for a key that belongs to no client. It quotes no part of the key."""
    if key.startswith(KEY_START):
        read = read_key(key.decode("latin-1"))
        if read is None:
            return _no_key("the API key is incomplete or mistyped: its checksum does not fit; copy the whole key again")
        own = config.cell.key_name if config.cell is not None else NO_CELL
        if read.cell != own:
            message = f"the API key was issued by another cell, and this is the cell `{own}`: call the cell of the key"
            return ApiError("key_of_another_cell", message, headers={"www-authenticate": "Bearer"})
    if config.keys_stale and config.clients_source == "database":
        message = "the keys cannot be looked up now: try again later"
        return ApiError("keys_unavailable", message, retry_after_s=_KEYS_RETRY_S)
    if config.clients_source == "database":
        return _no_key(_NOT_VALID)
    return _no_key("the API key is unknown: send a key from the operator of this gateway, not a provider's key")


def key_digest(config: ConfigVersion, headers: RequestHeaders, client: Client | None = None) -> str:
    """Return the digest of the caller's key, or of its token's issuer and client; empty without. Raises ApiError."""
    if client is not None and client.token is not None:
        return _hash(f"token\0{client.token.issuer}\0{client.name}".encode())
    return _hash(_key_of(headers)) if config.requires_key and not config.demo else ""


def _hash(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _key_of(headers: RequestHeaders) -> bytes:
    given = headers.headers.get(b"authorization", b"")
    if given.startswith(b"Bearer ") and not headers.repeated and headers.headers.keys().isdisjoint(_KEY_HEADERS):
        # The fast path: one key, as every client library sends it.
        key = given[7:]
        if key and key.isascii() and key == key.strip():
            return key
    return _sought_key(headers).encode("latin-1")


def _sought_key(headers: RequestHeaders) -> str:
    keys = {key for name in _KEY_HEADERS for key in headers.all(name)} - {""}
    for value in headers.all(b"authorization"):
        scheme, _, key = value.partition(" ")
        if scheme.lower() != "bearer" or not (key := key.lstrip(" \t")):
            raise _no_key("the `authorization` header is malformed: send `authorization: Bearer KEY`")
        if not keys or not key.startswith(_SESSION_START):
            keys.add(key)
    if not keys:
        raise _no_key("the API key is missing: send `authorization: Bearer KEY`")
    if len(keys) > 1:
        raise _no_key("two different API keys were sent: send one")
    return keys.pop()


def _no_key(message: str) -> ApiError:
    """Return an error 401, which names the accepted scheme (RFC 9110, section 15.5.2)."""
    return ApiError("invalid_api_key", message, headers={"www-authenticate": "Bearer"})


def is_this_machine(peer: str | None) -> bool:
    """Return whether the peer has a loopback address."""
    address = parse_peer(peer)
    return address is not None and address.is_loopback


def is_loopback_host(host: str) -> bool:
    """Return whether the value of a host header names this machine."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "80"
    if not (port.isascii() and port.isdigit()):
        return False
    if name == "localhost":
        return True
    bare = name.removeprefix("[").removesuffix("]") if name.startswith("[") else name
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def serves_others(config: ConfigVersion) -> bool:
    """Return whether other machines may call. Without client keys, and in a demo, the gateway serves its own only."""
    return config.requires_key and not config.demo


def require_this_machine(config: ConfigVersion, headers: RequestHeaders) -> None:
    """Raise ApiError for a request from another machine: without client keys the gateway serves its own only."""
    reason, remedy = "this gateway has no client keys, so it serves its own machine only", "add `clients` to the config"
    if config.demo:
        reason, remedy = "a demo serves its own machine only", "serve a config with `clients` (gateway serve)"
    if not is_this_machine(headers.peer):
        raise ApiError("permission_denied", f"{reason}: {remedy} to serve other machines")
    # A web page in a browser on this machine can reach the gateway under the page's own host name (CWE-350).
    host = headers.one(b"host")
    if host is not None and not (is_loopback_host if config.demo else _NO_PAGES_NAME.fullmatch)(host.lower()):
        raise ApiError(
            "permission_denied",
            f"{reason}, and this request has a host name of the network: call it at an address such as "
            f"http://127.0.0.1, or {remedy}",
        )
    # A browser sends some requests without a preflight: it withholds only the answer from the page.
    if is_of_other_site(config, headers):
        raise ApiError(
            "permission_denied",
            f"{reason}, and this request comes from a web page of another site: add the origin to `cors.origins`",
        )
    if not config.demo:  # In a demo every peer is an edge, whose headers locate the caller.
        edge_headers = config.location.edge_headers
        names = (name.decode("latin-1") for name in headers.headers)
        proxy_headers = sorted(name for name in names if name in edge_headers or _FORWARDING.fullmatch(name))
        if proxy_headers:
            came = f"this request came through a proxy (it has {', '.join(proxy_headers)[:200]})"
            raise ApiError("permission_denied", f"{reason}, and {came}: {remedy}")


def is_of_other_site(config: ConfigVersion, headers: RequestHeaders) -> bool:
    """Return whether a web page of another site sends the request. Other clients may name the gateway itself."""
    cors, host = config.cors, headers.one(b"host")
    own = {f"http://{host}", f"https://{host}"}
    return any(origin not in own and not (cors and cors.allows(origin)) for origin in headers.all(b"origin"))


class FailedKeyLimiter:
    """Counts the wrong keys of the last minute in this process. `tokens` is None if it takes no tokens of clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, tokens: VerifiesTokens | None = None) -> None:
        """Create a limiter without counts. `clock` returns monotonic seconds."""
        self.tokens = tokens
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}
        self._verified: dict[str, tuple[float, int]] = {}
        self._turns = asyncio.Lock()

    def authenticate(self, config: ConfigVersion, headers: RequestHeaders) -> Client | None:
        """Authenticate as `authenticate` does; raises ApiError (rate_limited) for one wrong key too many."""
        try:
            return authenticate(config, headers, self.tokens)
        except ApiError as error:
            if error.code in _WRONG_KEY and _has_key(headers):
                self.count(caller_address(config, headers))
            raise

    async def verify(self, config: ConfigVersion, headers: RequestHeaders, token: TokenUnverified) -> Client:
        """Verify a token, and return its client. Raises ApiError."""
        address = caller_address(config, headers)
        await self.pace(address)
        try:
            return await verify_token(config, self.tokens, token, token.sent_s)
        except ClaimRefused as refused:
            if is_guess(refused.problem):
                self.count(address, "key")
            raise token_error(refused.problem) from None

    async def pace(self, address: str) -> None:
        """Count a verification for an address with too many wrong keys; raises ApiError for one too many in a second.

        Each address has its own count, and known keys and tokens are not verified, so others are not slowed down.
        """
        now = self._clock()
        since, count = self._wrong.get(address, (now, 0))
        if count < MOST_FAILED_KEYS or now - since >= _WINDOW_S:
            return
        second, verified = self._verified.get(address, (now, 0))
        if now - second >= 1.0:
            second, verified = now, 0
        if verified >= _VERIFIED_A_SECOND:
            message = "too many wrong keys came from this address: wait 1 s or send a valid key"
            raise ApiError("rate_limited", message, retry_after_s=1.0)
        if len(self._verified) >= _MOST_ADDRESSES:
            self._verified.clear()
        self._verified[address] = second, verified + 1
        # Wrong tokens come in bursts: between two of them, other requests have their turn.
        async with self._turns:
            await asyncio.sleep(0)

    def count(self, address: str, what: str = "key", problem: str = "") -> None:
        """Count one wrong key, or another secret (`what`), from this address. Raises ApiError beyond the bound."""
        now = self._clock()
        since, count = self._wrong.get(address, (now, 0))
        remaining_s = since + _WINDOW_S - now
        if remaining_s <= 0:
            since, count = now, 0
        elif count >= MOST_FAILED_KEYS:
            wait = f"wait {math.ceil(remaining_s)} s"
            message = f"too many wrong {what}s came from this address: {wait} or send a valid {what}"
            message = f"{problem}: {wait}" if problem else message
            raise ApiError("rate_limited", message, retry_after_s=remaining_s) from None
        if address not in self._wrong and len(self._wrong) >= _MOST_ADDRESSES:
            self._forget(now)
        self._wrong[address] = since, count + 1

    def _forget(self, now: float) -> None:
        current = {address: entry for address, entry in self._wrong.items() if now - entry[0] < _WINDOW_S}
        # The limiter must not grow: with this many addresses in a minute, drop the oldest.
        self._wrong = dict(list(current.items())[-_MOST_ADDRESSES // 2 :])


def _has_key(headers: RequestHeaders) -> bool:
    return b"authorization" in headers.headers or not headers.headers.keys().isdisjoint(_KEY_HEADERS)


def caller_address(config: ConfigVersion, headers: RequestHeaders) -> str:
    """Return the client's address where a trusted edge reports it, else the peer's."""
    address = address_of(config, headers)
    return source_of(headers.peer if isinstance(address, AddressReport) else str(address))


def source_of(peer: str | None) -> str:
    """Return the address of a peer, by which failures are counted: of IPv6, its network."""
    address = parse_peer(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return peer or "" if address is None else str(address)
