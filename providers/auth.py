"""Credential schemes, and how each is applied to a request."""

from __future__ import annotations

import re
from typing import assert_never

from providers.failures import Failure, FailureKind, ProviderFailed
from providers.signing import KeyProblem
from providers.signing.google import google_headers, google_key_problem
from providers.signing.sigv4 import aws_headers, aws_key_problem
from providers.value import Value
from providers.wire import WireRequest

_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_SEVERAL = re.compile(r"(\w\w)[^,]{13,}(?:, ?\1[^,]{13,})+", re.ASCII)
_QUOTES = tuple("\"'`")
_NO_KEY = re.compile(r"(sk-)?(\.{3}|…)|<.{0,64}>|your[_-](\w{1,32}[_-])?key(_here)?|sk-x{3,}", re.ASCII | re.IGNORECASE)


class Secret:
    """A secret text. Only `reveal` returns it: it never appears in a `repr`, an f-string or a log.

    Args:
        value: The text.

    Attributes:
        bearer: The `authorization` header for this text as a bearer token (RFC 6750), built once.

    Examples:
        >>> from providers.contract import Secret
        >>> str(Secret("sk-1"))
        'Secret(…)'
        >>> Secret("sk-1").reveal()
        'sk-1'
    """

    __slots__ = ("_value", "bearer")

    def __init__(self, value: str) -> None:
        self._value = value
        self.bearer = (("authorization", f"Bearer {value}"),)

    def reveal(self) -> str:
        """Return the text."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


class Bearer(Value, frozen=True):
    """`authorization: Bearer KEY` (RFC 6750)."""


class HeaderKey(Value, frozen=True):
    """The key in a header such as `x-goog-api-key`."""

    header: str
    """The name of the header."""
    or_token: bool = False
    """Whether the provider also accepts a JWT, which is sent as a bearer token. A JWT is recognised by its form, which
    no key has."""


class NoAuth(Value, frozen=True):
    """A server that needs no key. A configured key is sent as a bearer token."""


class GoogleAccount(Value, frozen=True):
    """A Google credential.

    It is the key of a service account (JSON), with which bearer tokens are signed, or an access token from elsewhere,
    or an API key, which is sent in `x-goog-api-key`.
    """


class AwsSigV4(Value, frozen=True):
    """An AWS key pair, with which each request is signed, or a Bedrock API key, which is sent as a bearer token."""

    service: str
    """The name of the AWS service in the signature's scope, such as `bedrock`."""


AuthScheme = Bearer | HeaderKey | NoAuth | GoogleAccount | AwsSigV4
"""Every credential scheme. An adapter's `auth` must be one of them."""


def apply(scheme: AuthScheme, wire: WireRequest, origin: str, secret: Secret | None, now: float) -> WireRequest:
    """Return the request with one or more headers of its credential.

    Raises ProviderFailed if the secret does not have the form that the scheme needs.

    Args:
        origin: The origin that the request is sent to, such as `https://api.openai.com`. Signatures cover it.
        secret: The secret, or None for a request without a credential.
        now: The current time in Unix seconds. Signatures cover it.
    """
    headers = credential(scheme, wire, origin, secret, now)
    if not headers:
        return wire
    return WireRequest(wire.method, wire.path, (*wire.headers, *headers), wire.body, wire.query, rest=wire.rest)


def credential(
    scheme: AuthScheme, wire: WireRequest, origin: str, secret: Secret | None, now: float
) -> tuple[tuple[str, str], ...]:
    """Return the headers that authenticate a request.

    Signatures cover `origin` (`https://host`) and `now` (Unix seconds). Raises ProviderFailed for a secret that does
    not have the form that its scheme needs.
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
        case GoogleAccount() | AwsSigV4():
            try:
                if isinstance(scheme, AwsSigV4):
                    return aws_headers(scheme.service, wire, origin, secret.reveal(), now)
                return google_headers(secret.reveal(), now)
            except KeyProblem as error:
                message = "this deployment's credentials do not have the form that its provider needs"
                raise ProviderFailed(Failure(FailureKind.CREDENTIALS, message, f"the key {error}")) from None
        case _:
            assert_never(scheme)


def _key_problem(key: str) -> str | None:
    if key[:1] in _QUOTES or key[-1:] in _QUOTES:
        return "has a quotation mark at its beginning or end: write the key without it"
    if key[:7].lower() == "bearer ":
        return "begins with `Bearer `, which the gateway adds: write the key alone"
    if _SEVERAL.fullmatch(key):
        return "has several keys with a comma between them: write a list, each in a variable of its own"
    return "is a placeholder: write the key in its place" if _NO_KEY.fullmatch(key) else None


def secret_problem(scheme: AuthScheme, secret: Secret) -> str | None:
    """Return why a secret can never work with the scheme, or None if it may work. The text never quotes the secret."""
    match scheme:
        case GoogleAccount():
            return google_key_problem(secret.reveal())
        case AwsSigV4():
            return aws_key_problem(secret.reveal())
        case _:
            return _key_problem(secret.reveal())
