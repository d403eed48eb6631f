"""What lets in at Google's APIs: a bearer token out of a service account's key, signed here, asked for nowhere; a token
that was minted elsewhere; or an API key.

Google takes a token that a service account signed itself (AIP-4111, "self-signed JWT with scope"; google-auth does the
same for `always_use_jwt_access`), so that no issuer of tokens is called: no other host learns when a prompt is sent,
and none can be down. google-auth (the extra `google`) parses the key and signs; it is given no transport.

An API key has a header of its own, at paths with a project too; as a bearer it gets a 401 ("API keys are not supported
by this API"). It is known by its beginning: `AIza`, or `AQ.` where it is bound to a service account (express mode does
so). Tokens begin with `ya29.` or `eyJ`. source: Google's page on API keys of Vertex, google-genai 3.4.0
(`_api_client.py`), googleapis/dotnet-genai issue 305, captures in googleapis/java-genai issue 1000; as_of 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from providers.json_values import JsonError, as_map, loads_text, read_str
from providers.signing import KeyProblem

__all__ = ["google_bearer", "google_headers", "google_key_problem"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LIFETIME_S = 3600
# A token is made anew so often, and so lives at least half of its time.
_RENEWED_EACH_S = 1800
_MOST_KEYS = 64
_NEEDED = ("type", "client_email", "private_key")
_API_KEYS = ("AIza", "AQ.")


def google_headers(secret: str, now: float) -> tuple[tuple[str, str], ...]:
    """The headers that let a request in at `now` (unix seconds). Raises KeyProblem."""
    if secret.startswith(_API_KEYS):
        return (("x-goog-api-key", secret),)
    return (("authorization", f"Bearer {google_bearer(secret, now)}"),)


def google_bearer(secret: str, now: float) -> str:
    """The token to send at `now` (unix seconds): signed with a service account's key (JSON), or the given one itself.

    Raises KeyProblem. The same key and half hour give the same token, so that a signature is made once.
    """
    if not secret.lstrip().startswith("{"):
        return secret
    return _signed(secret, int(now // _RENEWED_EACH_S * _RENEWED_EACH_S))


def google_key_problem(secret: str) -> str | None:
    """Why this secret would never work, None if it can."""
    try:
        google_bearer(secret, 0)
    except KeyProblem as error:
        return str(error)
    return None


@lru_cache(maxsize=_MOST_KEYS)
def _signed(key: str, issued_at: int) -> str:
    info = _account(key)
    try:
        from google.auth import crypt, jwt
    except ImportError as error:
        raise KeyProblem('needs google-auth; pip install "assistant-gateway[google]"') from error
    try:
        # google-auth's functions have no types.
        signer = crypt.RSASigner.from_service_account_info(dict(info))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise KeyProblem("has a private key that can't be read") from error
    email = info["client_email"]
    claims = {"iss": email, "sub": email, "iat": issued_at, "exp": issued_at + _LIFETIME_S, "scope": _SCOPE}
    token: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
    return token.decode("ascii")


def _account(key: str) -> Mapping[str, object]:
    try:
        info = as_map(loads_text(key))
    except JsonError:
        raise KeyProblem("is no JSON of a service account's key") from None
    if info.get("type") == "external_account":
        raise KeyProblem(
            "is a config of workload identity federation: its tokens come from an issuer, which isn't asked here; name "
            "a file (${file:/path}) in which something else keeps a fresh access token, read again when it changes"
        )
    if missing := [name for name in _NEEDED if not read_str(info, name)]:
        raise KeyProblem(f"is no service account's key: it lacks {', '.join(missing)}")
    if info["type"] != "service_account":
        raise KeyProblem("is a key of another kind than `service_account`, which only Google's own servers can use")
    return info
