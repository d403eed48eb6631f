"""Verify signed claims and tokens of clients with the issuer's keys. Pure: nothing is fetched, the time is a parameter.

The token does not choose how it is verified. The algorithms come from the configuration, the keys from the issuer's key
set, and each key is used only with the algorithms of its own type, so that a key of one type cannot be used as another
(RFC 8725, sections 2.1 and 3.1). `jku`, `x5u`, `jwk` and `x5c` in a header are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import jwt
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.compact_jws import CompactJws, JwsRefused, read_jws
from gateway.model.location import ClaimProblem, ClaimRefused, ClaimReport
from gateway.model.region_text import Preferences
from gateway.model.signed_token import SharedKey
from gateway.policy.location.claim import ClaimRules
from providers.value import Value

MAX_TOKEN_BYTES = 8 * 1024
MAX_CLIENT_TOKEN_BYTES = 16 * 1024
_MAX_KEYS = 100
_LEEWAY_S = 30.0
_LATEST = 2.0**53
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 16_384  # OpenSSL verifies with no longer one
_PREFERENCE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EC = {"P-256": frozenset({"ES256"}), "P-384": frozenset({"ES384"}), "P-521": frozenset({"ES512"})}
_SHARED = frozenset({"HS256", "HS384", "HS512"})
_ALGORITHMS = {
    name: jwt.PyJWS().get_algorithm_by_name(name)
    for name in sorted({*_RSA, *_SHARED, *frozenset().union(*_EC.values()), "EdDSA"})
}

_NOT_READ = {"size": ClaimProblem.TOO_LARGE, "form": ClaimProblem.MALFORMED, "algorithm": ClaimProblem.ALGORITHM}


class KeySetError(ValueError):
    """The key set has no usable key. The message gives the reason, and nothing of the set."""


@dataclass(frozen=True, slots=True, eq=False)
class IssuerKey:
    """One key of an issuer: its name, the algorithms for which it may be used, and the key object of PyJWT."""

    kid: str | None
    algorithms: frozenset[str]
    key: jwt.algorithms.AllowedPublicKeys | bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys of an issuer."""

    keys: tuple[IssuerKey, ...]

    @classmethod
    def shared(cls, source: SharedKey) -> KeySet:
        """Return the set of the versions of a shared secret, which are only used with HS algorithms."""
        return cls(tuple(IssuerKey(None, _SHARED, secret.reveal().encode()) for secret in source.secrets))

    def fitting(self, kid: str | None, algorithm: str) -> tuple[IssuerKey, ...]:
        """Return the keys that may have signed the token.

        Without a `kid`, there must be exactly one public key; every version of a shared secret fits.
        """
        candidates = tuple(key for key in self.keys if algorithm in key.algorithms)
        if algorithm in _SHARED:
            return candidates
        if kid is None:
            return candidates if len(candidates) == 1 else ()
        return tuple(key for key in candidates if key.kid == kid)


class Verified(Value, frozen=True):
    """The report of a verified claim, the Unix time until which it is valid, and for how long it is valid in all."""

    report: ClaimReport
    until: float
    lifetime_s: float


def parse_keys(data: bytes) -> KeySet:
    """Return the keys of a JWK set (RFC 7517) that can verify a signature.

    Private, symmetric, weak and unknown keys are ignored, because a set may contain other keys. Raises KeySetError if
    no key is left.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise KeySetError("is not valid JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeySetError("is not a key set: it has no list `keys`")
    if len(listed) > _MAX_KEYS:
        raise KeySetError(f"has more than {_MAX_KEYS} keys")
    keys = tuple(key for key in map(_key, listed) if key is not None)
    if not keys:
        raise KeySetError("has no public key that can verify a signature (RSA of 2048 bits, EC, Ed25519, Ed448)")
    return KeySet(keys)


def _key(jwk: object) -> IssuerKey | None:
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    operations, kid, only = jwk.get("key_ops", ["verify"]), jwk.get("kid"), jwk.get("alg")
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(kid, str | None):
        return None
    try:
        read = _read_key(jwk)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if read is None:
        return None
    key, algorithms = read
    algorithms = algorithms if only is None else algorithms & {only} if isinstance(only, str) else frozenset()
    return IssuerKey(kid, algorithms, key) if algorithms else None


def _read_key(jwk: dict[str, object]) -> tuple[jwt.algorithms.AllowedPublicKeys, frozenset[str]] | None:
    """Return the key object of PyJWT, and the algorithms for which a key of its type may be used."""
    match jwk.get("kty"):
        case "RSA":
            rsa = RSAAlgorithm.from_jwk(jwk)
            return (rsa, _RSA) if _MIN_RSA_BITS <= rsa.key_size <= _MAX_RSA_BITS else None  # type: ignore[return-value]  # no `d`: public
        case "EC":
            algorithms = _EC.get(str(jwk.get("crv")))
            return (ECAlgorithm.from_jwk(jwk), algorithms) if algorithms else None  # type: ignore[return-value]  # as above
        case "OKP" if jwk.get("crv") in ("Ed25519", "Ed448"):
            return OKPAlgorithm.from_jwk(jwk), frozenset({"EdDSA"})  # type: ignore[return-value]  # as above
    return None


class SignedRules(Protocol):
    """How a token must be signed, and for whom. See `ClaimRules` and `TokenIssuer`."""

    @property
    def issuer(self) -> str:
        """The required value of `iss`."""

    @property
    def audience(self) -> str:
        """The required value of `aud`."""

    @property
    def algorithms(self) -> Collection[str]:
        """The accepted algorithms."""

    @property
    def longest_s(self) -> float | None:
        """The longest lifetime, or None without a bound."""


class SignedMembers(Value, frozen=True):
    """A verified token of a client: valid until a Unix time, for `lifetime_s` in all.

    It has the SHA-256 (hex) of each form in which it is valid.
    """

    members: dict[str, object]
    until: float
    lifetime_s: float
    digests: tuple[str, ...]


def verify(rules: ClaimRules, keys: KeySet, token: str, now: float) -> Verified:
    """Verify a claim at `now` (Unix time), and return its content. Raises ClaimRefused."""
    with _reading():
        jws = read_jws(token, MAX_TOKEN_BYTES)
        _check_signature(rules, keys, jws)
        members = jws.members
    until, lifetime_s = _check_members(rules, members, now, is_strict=False)
    return Verified(_report(rules, members), until, lifetime_s)


def verify_client_token(rules: SignedRules, keys: KeySet, token: CompactJws, now: float) -> SignedMembers:
    """Verify the token of a client at `now` (Unix time): it has an `iat`, and no other audience.

    Raises ClaimRefused.
    """
    with _reading():
        _check_signature(rules, keys, token)
        until, lifetime_s = _check_members(rules, token.members, now, is_strict=True)
        return SignedMembers(token.members, until, lifetime_s, token.digests())


def read_unverified(token: str) -> CompactJws:
    """Read a client's token, to choose the issuer that may have signed it. Nothing is verified.

    Raises ClaimRefused if the text is not a token.
    """
    with _reading():
        jws = read_jws(token, MAX_CLIENT_TOKEN_BYTES)
        _ = jws.members
        return jws


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except JwsRefused as refused:
        raise ClaimRefused(_NOT_READ[refused.reason]) from None


def _check_signature(rules: SignedRules, keys: KeySet, token: CompactJws) -> None:
    """Raise ClaimRefused or JwsRefused if no key has signed the token.

    PyJWT's algorithms verify the signature. Its reading of a token takes five times as long as that, because it checks
    each character in Python, and an address that sends bad tokens is answered at that cost.
    """
    algorithm = token.algorithm_of(rules.algorithms)
    fitting = keys.fitting(token.kid, algorithm)
    if not fitting:
        raise ClaimRefused(ClaimProblem.KEY)
    text, seal, verifier = token.signed, token.signature, _ALGORITHMS[algorithm]
    if not any(_is_signed(verifier, key, text, seal) for key in fitting):
        raise ClaimRefused(ClaimProblem.SIGNATURE)


def _is_signed(verifier: jwt.algorithms.Algorithm, key: IssuerKey, text: bytes, signature: bytes) -> bool:
    try:
        # `prepare_key` refuses a public key in the form of a text as a shared secret.
        return verifier.verify(text, verifier.prepare_key(key.key), signature)
    except jwt.PyJWTError:
        return False


def is_for(audience: object, name: str, *, is_strict: bool) -> bool:
    """Return whether the value of `aud` has this name. `is_strict`: it has no other one."""
    audiences = audience if isinstance(audience, list) else [audience]
    return name in audiences and not (is_strict and len(audiences) > 1)


def _check_members(
    rules: SignedRules, claims: dict[str, object], now: float, *, is_strict: bool
) -> tuple[float, float]:
    """Return until when a token is valid, and for how long in all."""
    if claims.get("iss") != rules.issuer:
        raise ClaimRefused(ClaimProblem.ISSUER)
    if not is_for(claims.get("aud"), rules.audience, is_strict=is_strict):
        raise ClaimRefused(ClaimProblem.AUDIENCE)
    until = _time(claims, "exp", required=True)
    if now >= until:
        raise ClaimRefused(ClaimProblem.EXPIRED)
    issued_at, valid_from = _time(claims, "iat", required=is_strict), _time(claims, "nbf")
    if max(valid_from, issued_at) > now + _LEEWAY_S or issued_at > until:
        raise ClaimRefused(ClaimProblem.NOT_YET)
    begins_at = next((at for at in (issued_at, valid_from) if at > -math.inf), now)
    if rules.longest_s is not None and until - begins_at > rules.longest_s:
        raise ClaimRefused(ClaimProblem.LONG)
    return until, until - begins_at


def _report(rules: ClaimRules, claims: dict[str, object]) -> ClaimReport:
    territory = claims.get(rules.territory)
    subject = claims.get("sub")
    if not isinstance(territory, str | None) or not isinstance(subject, str | None):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    consents = _consents(claims.get(rules.consents))
    age_band = claims.get(rules.age_band) if rules.age_band is not None else None
    if not isinstance(age_band, str | None):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    return ClaimReport(territory, None, subject, _preferences(rules, claims), consents, age_band)


def _preferences(rules: ClaimRules, claims: dict[str, object]) -> Preferences | None:
    """Return the user's preferences. A value that is not a short word is left out, although it is signed."""
    value = claims.get(rules.preferences) if rules.preferences is not None else None
    if not isinstance(value, dict):
        return None
    preferences = {
        name: text
        for name in ("language", "units", "time_zone", "form")
        if isinstance(text := value.get(name), str) and _PREFERENCE.fullmatch(text)
    }
    return Preferences(**preferences) if preferences else None


def _consents(value: object) -> frozenset[str]:
    names = [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    return frozenset(names)


def _time(claims: dict[str, object], name: str, *, required: bool = False) -> float:
    value = claims.get(name)
    if value is None and not required:
        return -math.inf
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _LATEST:
        raise ClaimRefused(ClaimProblem.MALFORMED)
    return float(value)
