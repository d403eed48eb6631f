"""Verify signed claims with the issuer's keys. Pure: nothing is fetched here, and the time is a parameter.

The token does not choose how it is verified. The algorithms come from the configuration, the keys from the issuer's key
set, and each key is used only with the algorithms of its own type, so that a key of one type cannot be used as another
(RFC 8725, sections 2.1 and 3.1). `jku`, `x5u`, `jwk` and `x5c` in a header are ignored. A token with `crit` is
rejected, because no extension is supported.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import jwt
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.model.location import ClaimProblem, ClaimReport
from gateway.model.region_text import Preferences
from gateway.policy.location.claim import ClaimRules, SharedKey
from providers.value import Value

MAX_TOKEN_BYTES = 8 * 1024
_MAX_KEYS = 100
_MAX_KID = 256
_LEEWAY_S = 30.0
_LATEST = 2.0**53
_MIN_RSA_BITS = 2048
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_PREFERENCE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EC = {"P-256": frozenset({"ES256"}), "P-384": frozenset({"ES384"}), "P-521": frozenset({"ES512"})}
_SHARED = frozenset({"HS256", "HS384", "HS512"})
_VERIFIER = jwt.PyJWS(algorithms=sorted({*_RSA, *_SHARED, *frozenset().union(*_EC.values()), "EdDSA"}))


class ClaimRefused(Exception):
    """The claim was rejected. `problem` is the kind of reason. It contains nothing of the token."""

    def __init__(self, problem: ClaimProblem) -> None:
        super().__init__(problem)
        self.problem = problem


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

    Private, symmetric, weak and unknown keys are ignored, because a set may contain other keys.

    Raises:
        KeySetError: The set has no usable key.
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
            return (rsa, _RSA) if rsa.key_size >= _MIN_RSA_BITS else None  # type: ignore[return-value]  # no `d`: public
        case "EC":
            algorithms = _EC.get(str(jwk.get("crv")))
            return (ECAlgorithm.from_jwk(jwk), algorithms) if algorithms else None  # type: ignore[return-value]  # as above
        case "OKP" if jwk.get("crv") in ("Ed25519", "Ed448"):
            return OKPAlgorithm.from_jwk(jwk), frozenset({"EdDSA"})  # type: ignore[return-value]  # as above
    return None


def verify(rules: ClaimRules, keys: KeySet, token: str, now: float) -> Verified:
    """Verify a token at `now` (Unix time), and return its claims.

    Raises:
        ClaimRefused: The token is not valid.
    """
    algorithm, kid = _read_header(rules, token)
    fitting = keys.fitting(kid, algorithm)
    if not fitting:
        raise ClaimRefused(ClaimProblem.KEY)
    return _read_claims(rules, _signed(token, algorithm, fitting), now)


def _read_header(rules: ClaimRules, token: str) -> tuple[str, str | None]:
    if len(token) > MAX_TOKEN_BYTES:
        raise ClaimRefused(ClaimProblem.TOO_LARGE)
    if not _TOKEN.fullmatch(token):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    try:
        header = _VERIFIER.get_unverified_header(token)
    except jwt.PyJWTError:
        raise ClaimRefused(ClaimProblem.MALFORMED) from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if "crit" in header or "b64" in header or not isinstance(kid, str | None) or len(kid or "") > _MAX_KID:
        raise ClaimRefused(ClaimProblem.MALFORMED)
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise ClaimRefused(ClaimProblem.ALGORITHM)
    return algorithm, kid


def _signed(token: str, algorithm: str, keys: Iterable[IssuerKey]) -> bytes:
    """Return the payload that one of the keys has signed."""
    for key in keys:
        try:
            payload: bytes = _VERIFIER.decode_complete(token, key.key, algorithms=[algorithm])["payload"]
        except jwt.PyJWTError:
            continue
        return payload
    raise ClaimRefused(ClaimProblem.SIGNATURE)


def _read_claims(rules: ClaimRules, payload: bytes, now: float) -> Verified:
    try:
        # `json.loads` would also accept bytes in UTF-16 or UTF-32, which RFC 7519 does not allow.
        text = payload.decode("utf-8")
        claims = json.loads(text, object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise ClaimRefused(ClaimProblem.MALFORMED) from None
    if not isinstance(claims, dict):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    audience = claims.get("aud")
    if claims.get("iss") != rules.issuer:
        raise ClaimRefused(ClaimProblem.ISSUER)
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise ClaimRefused(ClaimProblem.AUDIENCE)
    until = _time(claims, "exp", required=True)
    if now >= until:
        raise ClaimRefused(ClaimProblem.EXPIRED)
    issued_at, valid_from = _time(claims, "iat"), _time(claims, "nbf")
    if max(valid_from, issued_at) > now + _LEEWAY_S:
        raise ClaimRefused(ClaimProblem.NOT_YET)
    begins_at = next((at for at in (issued_at, valid_from) if at > -math.inf), now)
    if rules.longest_s is not None and until - begins_at > rules.longest_s:
        raise ClaimRefused(ClaimProblem.LONG)
    territory = claims.get(rules.territory)
    subject = claims.get("sub")
    if not isinstance(territory, str | None) or not isinstance(subject, str | None):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    consents = _consents(claims.get(rules.consents))
    age_band = claims.get(rules.age_band) if rules.age_band is not None else None
    if not isinstance(age_band, str | None):
        raise ClaimRefused(ClaimProblem.MALFORMED)
    preferences = _preferences(rules, claims)
    return Verified(ClaimReport(territory, None, subject, preferences, consents, age_band), until, until - begins_at)


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


def _reject_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice")  # RFC 7519, section 4
    return members


def _reject_constant(_: str) -> object:
    raise ValueError("NaN and Infinity are not valid JSON")
