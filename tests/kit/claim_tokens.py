"""Location claims for tests: issuers' keys, their public key sets, and valid or forged tokens."""

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["AUDIENCE", "ISSUER", "NOW", "claims", "jwks", "private", "public", "token", "unsigned"]

ISSUER = "https://issuer.example"
AUDIENCE = "assistant-gateway"
NOW = 1_800_000_000.0
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def private(kid: str, algorithm: str = "ES256", bits: int = 2048) -> Any:
    """Return the private key of that name, the same each time."""
    return _private(kid, "RSA" if algorithm[:2] in ("RS", "PS") else algorithm, bits)


@cache
def _private(kid: str, algorithm: str, bits: int) -> Any:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())  # type: ignore[abstract]
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65_537, bits)


def public(kid: str, algorithm: str = "ES256", bits: int = 2048, **more: Any) -> dict[str, Any]:
    """Return its public half as a JWK."""
    key = private(kid, algorithm, bits).public_key()
    kind: Any = ECAlgorithm if algorithm in _CURVES else OKPAlgorithm if algorithm == "EdDSA" else RSAAlgorithm
    return {**kind.to_jwk(key, as_dict=True), "kid": kid, **more}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    """Return a set of public keys."""
    return json.dumps({"keys": list(keys)}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token with changes. None removes a member."""
    claimed = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "territory": "DE", **changes}
    return {name: value for name, value in claimed.items() if value is not None}


def token(
    kid: str | None = "k1", algorithm: str = "ES256", *, header: Mapping[str, Any] | None = None, **claimed: Any
) -> str:
    """Return a token signed by the private key of that name."""
    head = {**({"kid": kid} if kid is not None else {}), **(header or {})}
    return jwt.encode(claims(**claimed), private(kid or "k1", algorithm), algorithm, headers=head)


def unsigned(header: Any, payload: Any, signature: bytes = b"x") -> str:
    """Return a token of three arbitrary parts."""
    parts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, payload)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))
