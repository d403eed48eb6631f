"""Credential schemes, each applied to one request.

Source: Tencent Cloud API 3.0, "Signature v3", and tencentcloud-sdk-python-common 3.1.180, read 2026-11-20.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never
from urllib.parse import urlsplit

from providers import auth
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.signing import KeyProblem
from providers.signing.google import google_headers, google_key_problem
from providers.signing.sigv4 import aws_headers, aws_key_problem
from providers.wire import WireRequest

_ALGORITHM = "TC3-HMAC-SHA256"


_SIGNED = "content-type;host"


def authorization(
    *, service: str, host: str, content_type: str, body: bytes, secret_id: str, secret_key: str, now: float
) -> tuple[str, str]:
    """The values of `x-tc-timestamp` and `authorization`. `content_type` must equal the header byte for byte.

    Method, path and query are fixed: POST, `/` and none. The date is UTC's, whatever zone the machine is in.
    """
    timestamp = str(int(now))
    date = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    canonical = "\n".join(
        ("POST", "/", "", f"content-type:{content_type}", f"host:{host}", "", _SIGNED, hashlib.sha256(body).hexdigest())
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, "\n".join((_ALGORITHM, timestamp, scope, digest)).encode(), "sha256").hex()
    return timestamp, f"{_ALGORITHM} Credential={secret_id}/{scope}, SignedHeaders={_SIGNED}, Signature={signature}"


_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class Secret:
    """A text that shows itself only to who asks by name: never in a `repr`, an f-string or a log."""

    __slots__ = ("_value", "bearer")

    def __init__(self, value: str) -> None:
        self._value = value
        # The header of whom this text alone lets in (RFC 6750): one value for all of its requests.
        self.bearer = (("authorization", f"Bearer {value}"),)

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Bearer:
    """`authorization: Bearer KEY` (RFC 6750)."""


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """The key alone in a header of its own, such as `x-goog-api-key`.

    or_token: whether the provider takes a token instead, as a bearer. It is known by its form, that of a JWT, which no
    key has.
    """

    header: str
    or_token: bool = False


@dataclass(frozen=True, slots=True)
class NoAuth:
    """A server that asks for no key; one that is configured is sent as a bearer."""


@dataclass(frozen=True, slots=True)
class TencentSignature:
    """Tencent Cloud's TC3-HMAC-SHA256 for `service`. The secret is `SECRET_ID:SECRET_KEY`, or with `:TOKEN` behind."""

    service: str


@dataclass(frozen=True, slots=True)
class GoogleAccount:
    """A service account's key (JSON), with which bearer tokens are signed; a token that was minted elsewhere; or an API
    key, in a header of its own."""


@dataclass(frozen=True, slots=True)
class AwsSigV4:
    """A key pair of Amazon's, with which each request is signed for `service`; or an API key, sent as a bearer."""

    service: str


AuthScheme = Bearer | HeaderKey | NoAuth | TencentSignature | GoogleAccount | AwsSigV4


def apply(scheme: AuthScheme, wire: WireRequest, origin: str, secret: Secret | None, now: float) -> WireRequest:
    """The request with its credential: see `credential`."""
    headers = credential(scheme, wire, origin, secret, now)
    if not headers:
        return wire
    return WireRequest(wire.method, wire.path, (*wire.headers, *headers), wire.body, wire.query)


def credential(
    scheme: AuthScheme, wire: WireRequest, origin: str, secret: Secret | None, now: float
) -> tuple[tuple[str, str], ...]:
    """The headers to put on a request. `origin` (`https://host`) and `now` (unix seconds) are what signatures cover.

    Raises ProviderFailed for a secret that isn't in the form that its scheme needs.
    """
    if secret is None:
        return ()
    match scheme:
        case Bearer() | NoAuth():
            return secret.bearer
        case HeaderKey(name, or_token):
            if or_token and _JWT.fullmatch(secret.reveal()):
                return secret.bearer
            return ((name, secret.reveal()),)
        case TencentSignature(service):
            return _by_tencent(service, wire, origin, secret, now)
        case GoogleAccount() | AwsSigV4():
            return _by_a_library(scheme, wire, origin, secret.reveal(), now)
        case _:
            assert_never(scheme)


def _by_tencent(
    service: str, wire: WireRequest, origin: str, secret: Secret, now: float
) -> tuple[tuple[str, str], ...]:
    secret_id, _, rest = secret.reveal().partition(":")
    secret_key, _, token = rest.partition(":")
    if not secret_id or not secret_key:
        message = "this deployment's credentials are not in the form that its provider needs"
        raise ProviderFailed(Failure(FailureKind.CREDENTIALS, message, "the key must be SECRET_ID:SECRET_KEY[:TOKEN]"))
    timestamp, authorization = auth.authorization(
        service=service,
        host=urlsplit(origin).netloc,
        content_type=dict(wire.headers).get("content-type", ""),
        body=wire.body,
        secret_id=secret_id,
        secret_key=secret_key,
        now=now,
    )
    headers = (("x-tc-timestamp", timestamp), ("authorization", authorization))
    return (*headers, ("x-tc-token", token)) if token else headers


def _by_a_library(
    scheme: GoogleAccount | AwsSigV4, wire: WireRequest, origin: str, secret: str, now: float
) -> tuple[tuple[str, str], ...]:
    try:
        if isinstance(scheme, AwsSigV4):
            return aws_headers(scheme.service, wire, origin, secret, now)
        return google_headers(secret, now)
    except KeyProblem as error:
        message = "this deployment's credentials are not in the form that its provider needs"
        raise ProviderFailed(Failure(FailureKind.CREDENTIALS, message, f"the key {error}")) from None


def secret_problem(scheme: AuthScheme, secret: Secret) -> str | None:
    """Why this secret would never work with the scheme, without a word of it; None if it can, or nobody can tell."""
    match scheme:
        case GoogleAccount():
            return google_key_problem(secret.reveal())
        case AwsSigV4():
            return aws_key_problem(secret.reveal())
        case _:
            return None
