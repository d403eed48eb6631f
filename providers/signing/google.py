"""Authenticate at Google's APIs: with a token signed by a service account's key, an access token or an API key.

Google accepts a token that a service account signed itself (AIP-4111, "self-signed JWT with scope"; google-auth does
the same for `always_use_jwt_access`). So no token issuer is called: no other host learns when a prompt is sent, and the
issuer cannot be down. google-auth (the extra `google`) parses the key and signs. It gets no transport.

An API key is sent in its own header, also at paths with a project. As a bearer token it gets a 401 ("API keys are not
supported by this API"). It is recognised by its prefix: `AIza`, or `AQ.` if it is bound to a service account (as in
express mode). Tokens begin with `ya29.` or `eyJ`. source: Google's page on API keys of Vertex, google-genai 3.4.0
(`_api_client.py`), googleapis/dotnet-genai issue 305, captures in googleapis/java-genai issue 1000; as_of 2026-11-22.
"""

from __future__ import annotations

from functools import lru_cache

from providers.json_values import JsonError, as_map, loads_text, read_str
from providers.signing import KeyProblem

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LIFETIME_S = 3600
# A token is renewed after half of its lifetime.
_RENEWED_EACH_S = 1800
_MOST_KEYS = 64
_NEEDED = ("type", "client_email", "private_key")
_API_KEYS = ("AIza", "AQ.")


def google_headers(secret: str, now: float) -> tuple[tuple[str, str], ...]:
    """Return the headers that authenticate a request at `now` (Unix seconds). Raises KeyProblem."""
    if secret.startswith(_API_KEYS):
        return (("x-goog-api-key", secret),)
    return (("authorization", f"Bearer {google_bearer(secret, now)}"),)


def google_bearer(secret: str, now: float) -> str:
    """Return the token for a request at `now` (Unix seconds): signed with a service account's key, or the secret.

    The same key and half hour give the same token, so that it is signed only once. Raises KeyProblem.
    """
    if not secret.lstrip().startswith("{"):
        return secret
    return _signed(secret, int(now // _RENEWED_EACH_S * _RENEWED_EACH_S))


def google_key_problem(secret: str) -> str | None:
    """Return why this secret can never work, or None if it may work."""
    try:
        google_bearer(secret, 0)
    except KeyProblem as error:
        return str(error)
    return None


@lru_cache(maxsize=_MOST_KEYS)
def _signed(key: str, issued_at: int) -> str:
    try:
        info = as_map(loads_text(key))
    except JsonError:
        raise KeyProblem("is not the JSON of a service account's key") from None
    if info.get("type") == "external_account":
        raise KeyProblem(
            "is a configuration of workload identity federation: write a sign-in of the kind `google_federation` in "
            "`sign_ins`, and name it in `sign_in` in place of the key"
        )
    if missing := [name for name in _NEEDED if not read_str(info, name)]:
        raise KeyProblem(f"is not a service account's key: it lacks {', '.join(missing)}")
    if info["type"] != "service_account":
        raise KeyProblem("is a key of another type than `service_account`, which only Google's own servers can use")
    try:
        from google.auth import crypt, jwt
    except ImportError as error:
        raise KeyProblem("needs google-auth; pip install google-auth") from error
    try:
        # google-auth's functions have no types.
        signer = crypt.RSASigner.from_service_account_info(dict(info))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise KeyProblem("has a private key that can't be read") from error
    email = info["client_email"]
    claims = {"iss": email, "sub": email, "iat": issued_at, "exp": issued_at + _LIFETIME_S, "scope": _SCOPE}
    token: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
    return token.decode("ascii")
