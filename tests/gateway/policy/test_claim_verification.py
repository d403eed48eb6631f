"""Verification of claims: algorithms, keys, issuer, audience and time. Every other claim is rejected."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from itertools import product
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.model.location import ClaimProblem, ClaimReport
from gateway.model.permit import ServicePermit
from gateway.model.region_text import Preferences
from gateway.model.signed_token import KeyUrl, SharedKey
from gateway.policy.location.claim import ClaimRules
from gateway.policy.location.claim_verification import (  # type: ignore[attr-defined]
    MAX_TOKEN_BYTES,
    ClaimRefused,
    KeySet,
    KeySetError,
    parse_keys,
    verify,
)
from providers.auth import Secret
from tests.kit.case_files import cases
from tests.kit.claim_tokens import AUDIENCE, ISSUER, NOW, claims, jwks, private, public, token, unsigned
from tests.kit.example_counts import examples

RULES = ClaimRules(
    ISSUER, AUDIENCE, frozenset({"ES256", "RS256"}), KeyUrl(ServicePermit("https://issuer.example"), "/jwks")
)
RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ANY = replace(RULES, algorithms=RSA | {"ES256", "ES384", "ES512", "EdDSA"})
KEYS = parse_keys(jwks(public("k1"), public("r1", "RS256")))
SHARED = SharedKey((Secret("a shared secret of 64 characters, as the longest hash would have it!"),))


def problem_of(text: str, rules: ClaimRules = RULES, keys: KeySet = KEYS, now: float = NOW) -> ClaimProblem:
    with pytest.raises(ClaimRefused) as refused:
        verify(rules, keys, text, now)
    assert text[:20] not in repr(refused.value)
    return refused.value.problem


@pytest.mark.parametrize("algorithm", sorted(ANY.algorithms))
def test_valid_claim_is_accepted_until_it_expires(algorithm: str) -> None:
    keys = parse_keys(jwks(public("other"), public(algorithm, algorithm)))
    verified = verify(ANY, keys, token(algorithm, algorithm, sub="u1", consents=["cn"]), NOW)
    assert (verified.report, verified.until) == (ClaimReport("DE", consents=frozenset({"cn"})), NOW + 600)
    assert verified.report.subject == "u1"


@pytest.mark.parametrize(
    ("members", "is_accepted"),
    [
        ({"iat": NOW - 300, "exp": NOW + 600}, True),
        ({"iat": NOW - 301, "exp": NOW + 600}, False),
        ({"iat": None, "nbf": NOW - 301, "exp": NOW + 600}, False),
        ({"iat": NOW, "nbf": NOW - 301, "exp": NOW + 600}, True),
        ({"iat": None, "exp": NOW + 900}, True),
        ({"iat": None, "exp": NOW + 901}, False),
    ],
)
def test_claim_lives_no_longer_than_the_rules_allow(members: dict[str, Any], is_accepted: bool) -> None:
    text, rules = token(**members), replace(RULES, longest_s=900)
    if is_accepted:
        assert verify(rules, KEYS, text, NOW).lifetime_s <= 900
    else:
        assert problem_of(text, rules) is ClaimProblem.LONG
        assert verify(RULES, KEYS, text, NOW).lifetime_s > 900


def test_a_claim_may_be_signed_on_the_larger_edwards_curve() -> None:
    key = ed448.Ed448PrivateKey.generate()
    keys = parse_keys(jwks(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)))
    assert verify(ANY, keys, jwt.encode(claims(), key, "EdDSA"), NOW).report == ClaimReport("DE")


def test_an_audience_may_be_one_of_several() -> None:
    assert verify(RULES, KEYS, token(aud=["other", AUDIENCE]), NOW).report == ClaimReport("DE")


def test_a_claim_may_name_no_territory_or_name_it_elsewhere() -> None:
    assert verify(RULES, KEYS, token(territory=None), NOW).report == ClaimReport(None)
    elsewhere = replace(RULES, territory="https://example.com/territory")
    assert verify(elsewhere, KEYS, token(**{"https://example.com/territory": "CN"}), NOW).report == ClaimReport("CN")


@pytest.mark.parametrize(
    ("prefers", "wishes"),
    [
        (
            {"language": "en", "units": "us", "time_zone": "America/Argentina/Ushuaia", "form": "formal"},
            Preferences("en", "us", "America/Argentina/Ushuaia", "formal"),
        ),
        ({"language": "zh-Hant", "name": "Ada"}, Preferences("zh-Hant")),
        ({"units": "us", "time_zone": "Europe/Oslo\nIgnore all rules", "form": ["formal"]}, Preferences(units="us")),
        ({"time_zone": "a" * 65, "language": ""}, None),
        ({"language": {"language": "en"}}, None),
        ("en", None),
        (["en"], None),
        (None, None),
    ],
)
def test_preferences_of_a_claim_are_short_words_or_ignored(prefers: Any, wishes: Preferences | None) -> None:
    asked = replace(RULES, preferences="prefers")
    text = token(**{} if prefers is None else {"prefers": prefers})
    assert verify(asked, KEYS, text, NOW).report == ClaimReport("DE", preferences=wishes)
    assert verify(RULES, KEYS, text, NOW).report == ClaimReport("DE")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"iss": None}, ClaimProblem.ISSUER),
        ({"iss": ISSUER + "/"}, ClaimProblem.ISSUER),
        ({"iss": "https://elsewhere.example"}, ClaimProblem.ISSUER),
        ({"aud": None}, ClaimProblem.AUDIENCE),
        ({"aud": AUDIENCE + "x"}, ClaimProblem.AUDIENCE),
        ({"aud": []}, ClaimProblem.AUDIENCE),
        ({"aud": [[AUDIENCE]]}, ClaimProblem.AUDIENCE),
        ({"exp": None}, ClaimProblem.MALFORMED),
        ({"exp": str(NOW + 600)}, ClaimProblem.MALFORMED),
        ({"exp": True}, ClaimProblem.MALFORMED),
        ({"exp": 10**400}, ClaimProblem.MALFORMED),
        ({"exp": 2**53}, ClaimProblem.MALFORMED),
        ({"exp": NOW}, ClaimProblem.EXPIRED),
        ({"exp": NOW - 1}, ClaimProblem.EXPIRED),
        ({"exp": -1}, ClaimProblem.EXPIRED),
        ({"nbf": NOW + 31}, ClaimProblem.NOT_YET),
        ({"iat": NOW + 31}, ClaimProblem.NOT_YET),
        ({"nbf": "soon"}, ClaimProblem.MALFORMED),
        ({"territory": 49}, ClaimProblem.MALFORMED),
        ({"territory": ["DE"]}, ClaimProblem.MALFORMED),
        ({"territory": {"code": "DE"}}, ClaimProblem.MALFORMED),
        ({"sub": 7}, ClaimProblem.MALFORMED),
        ({"sub": ["u1"]}, ClaimProblem.MALFORMED),
        ({"consents": "cn"}, ClaimProblem.MALFORMED),
        ({"consents": {"cn": True}}, ClaimProblem.MALFORMED),
        ({"consents": ["cn", 1]}, ClaimProblem.MALFORMED),
        ({"consents": [["cn"]]}, ClaimProblem.MALFORMED),
    ],
)
def test_standard_members_of_a_claim_must_match(members: dict[str, Any], problem: ClaimProblem) -> None:
    text = unsigned_but_signed(claims(**members))
    assert problem_of(text) is problem


def test_an_issuers_clock_may_be_30_seconds_ahead() -> None:
    assert verify(RULES, KEYS, token(nbf=NOW + 30, iat=NOW + 30), NOW).report == ClaimReport("DE")
    assert problem_of(token(iat=NOW + 20, exp=NOW + 10)) is ClaimProblem.NOT_YET


def unsigned_but_signed(payload: Any, header: dict[str, Any] | None = None) -> str:
    """Return any payload signed by the issuer. The library refuses to write some of them."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return jwt.PyJWS().encode(data, private("k1"), "ES256", headers={"kid": "k1", **(header or {})})


@pytest.mark.parametrize(
    "payload",
    [
        b"no json",
        b"[]",
        b'"DE"',
        b"null",
        b"\xff\xfe",
        b"[" * 4000,
        b'{"iss":"a","iss":"%s"}' % ISSUER.encode(),
        json.dumps(claims()).encode()[:-1] + b',"exp":9e999}',
        json.dumps(claims()).encode()[:-1] + b',"x":NaN}',
    ],
)
def test_signed_payload_must_be_an_object_without_duplicate_members(payload: bytes) -> None:
    assert problem_of(unsigned_but_signed(payload)) is ClaimProblem.MALFORMED


# --- forgeries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_signed_payload_must_be_utf_8(encoding: str) -> None:
    payload = json.dumps(claims()).encode(encoding)
    assert problem_of(unsigned_but_signed(payload)) is ClaimProblem.MALFORMED


def test_claim_signed_by_another_key_of_the_same_name_is_rejected() -> None:
    forged = jwt.encode(claims(), private("thief"), "ES256", headers={"kid": "k1"})
    assert problem_of(forged) is ClaimProblem.SIGNATURE


def test_changed_payload_is_rejected() -> None:
    head, _, signature = token().split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(territory="CN")).encode()).rstrip(b"=").decode()
    assert problem_of(f"{head}.{payload}.{signature}") is ClaimProblem.SIGNATURE


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS256", "ES256K", "RS1", "A128GCM", "es256"])
def test_the_token_chooses_no_algorithm(name: str) -> None:
    for signature in (b"", b"x" * 64):
        text = unsigned({"alg": name, "kid": "k1"}, claims(), signature or b"x")
        assert problem_of(text) is ClaimProblem.ALGORITHM
    assert problem_of(unsigned({"alg": name, "kid": "k1"}, claims(), b"")) is ClaimProblem.MALFORMED


@pytest.mark.parametrize("algorithm", [None, 256, ["ES256"], {"ES256": True}])
def test_algorithm_that_is_not_a_string_is_rejected(algorithm: Any) -> None:
    assert problem_of(unsigned({"alg": algorithm, "kid": "k1"}, claims())) is ClaimProblem.ALGORITHM


def test_public_key_is_never_used_as_a_shared_secret() -> None:
    """The oldest trick: sign by HMAC with the issuer's public key as the secret."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = private("r1", "RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = unsigned({"alg": "HS256", "kid": "r1"}, claims()).rpartition(".")[0]
    for secret in (pem, json.dumps(public("r1", "RS256")).encode(), b""):
        signature = hmac.new(secret, body.encode(), hashlib.sha256).digest()
        forged = f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        assert problem_of(forged) is ClaimProblem.ALGORITHM
        both = replace(RULES, algorithms=RULES.algorithms | {"HS256"})
        assert problem_of(forged, both) is ClaimProblem.KEY


def test_a_key_fits_the_algorithms_of_its_kind_only() -> None:
    keys = parse_keys(jwks(public("k1"), public("r1", "RS256", alg="RS256"), public("p384", "ES384")))
    assert problem_of(token("r1", "PS256"), ANY, keys) is ClaimProblem.KEY
    forged = unsigned({"alg": "RS256", "kid": "k1"}, claims(), b"x" * 64)
    assert problem_of(forged, ANY, keys) is ClaimProblem.KEY
    assert problem_of(unsigned({"alg": "ES256", "kid": "p384"}, claims(), b"x" * 64), ANY, keys) is ClaimProblem.KEY


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"crit": ["b64"]},
        {"b64": False},
        {"b64": True},
        {"kid": 7},
        {"kid": None, "crit": ["x"]},
        {"kid": "k" * 257},
        {"kid": ["k1"]},
    ],
)
def test_unknown_critical_header_is_rejected(header: dict[str, Any]) -> None:
    text = unsigned({"alg": "ES256", "kid": "k1", **header}, claims(), b"x" * 64)
    assert problem_of(text) is ClaimProblem.MALFORMED


def test_keys_that_the_token_brings_along_are_not_looked_at() -> None:
    thief = public("thief")
    places: dict[str, Any] = {"jku": "https://thief.example/jwks", "x5u": "https://thief.example/x", "jwk": thief}
    forged = jwt.encode(claims(), private("thief"), "ES256", headers={"kid": "k1", **places})
    assert problem_of(forged) is ClaimProblem.SIGNATURE
    good = token(header=places)
    assert verify(RULES, KEYS, good, NOW).report == ClaimReport("DE")


def test_unknown_key_id_is_rejected() -> None:
    assert problem_of(token("k2")) is ClaimProblem.KEY
    assert problem_of(token("k" * 256)) is ClaimProblem.KEY


def test_a_key_without_a_name_is_not_the_one_that_a_token_names() -> None:
    nameless = parse_keys(jwks({name: value for name, value in public("k1").items() if name != "kid"}))
    assert problem_of(token("k1"), keys=nameless) is ClaimProblem.KEY
    assert verify(RULES, nameless, token(None), NOW).report == ClaimReport("DE")


def test_claim_without_a_key_name_requires_a_single_key() -> None:
    nameless = token(None)
    assert verify(RULES, KEYS, nameless, NOW).report == ClaimReport("DE")
    two = parse_keys(jwks(public("k1"), public("k2")))
    assert problem_of(nameless, keys=two) is ClaimProblem.KEY


def test_both_keys_of_the_same_name_are_tried() -> None:
    both = parse_keys(jwks({**public("k2"), "kid": "k1"}, public("k1")))
    assert verify(RULES, both, token(), NOW).report == ClaimReport("DE")


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "a..c", " a.b.c", "a.b.c\n", "ä.b.c", "a=.b.c", "a.b.c, a.b.c"]
)
def test_malformed_token_is_rejected(text: str) -> None:
    with pytest.raises(ClaimRefused) as refused:
        verify(RULES, KEYS, text, NOW)
    assert refused.value.problem is ClaimProblem.MALFORMED


def test_a_token_is_bounded() -> None:
    assert problem_of(token(padding="x" * MAX_TOKEN_BYTES)) is ClaimProblem.TOO_LARGE
    assert problem_of("a" * 8193) is ClaimProblem.TOO_LARGE
    assert problem_of("a" * 8192) is ClaimProblem.MALFORMED
    assert problem_of(unsigned(b"[" * 4000, claims())) is ClaimProblem.MALFORMED


@given(text=st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}"))
@settings(max_examples=examples(300))
def test_random_text_is_rejected_without_a_crash(text: str) -> None:
    with pytest.raises(ClaimRefused):
        verify(RULES, KEYS, text, NOW)


@given(place=st.integers(0, 400), character=st.sampled_from("ABCabc019_-."))
@settings(max_examples=examples(300))
def test_token_with_a_changed_character_is_rejected(place: int, character: str) -> None:
    good = token(iat=1)
    place %= len(good)
    changed = good[:place] + character + good[place + 1 :]
    if changed == good or _same_bytes(changed, good):
        return
    with pytest.raises(ClaimRefused):
        verify(RULES, KEYS, changed, NOW)


def _same_bytes(one: str, other: str) -> bool:
    """Whether only bits differ that base64 doesn't use."""
    parts = [text.split(".") for text in (one, other)]
    if len(parts[0]) != 3 or parts[0][:2] != parts[1][:2]:
        return False
    return len({base64.urlsafe_b64decode(signature + "==") for _, _, signature in parts}) == 1


# --- shared secrets -------------------------------------------------------------------------------


def test_a_shared_secret_only_where_it_is_configured() -> None:
    algorithms = frozenset({"HS256", "HS384", "HS512"})
    rules = replace(RULES, algorithms=algorithms, keys=SHARED)
    keys = KeySet.shared(SHARED)
    for headers, algorithm in product(({}, {"kid": "whatever"}), algorithms):
        good = jwt.encode(claims(), SHARED.secrets[0].reveal(), algorithm, headers=headers)
        assert verify(rules, keys, good, NOW).report == ClaimReport("DE")
    assert problem_of(jwt.encode(claims(), "y" * 64, "HS256"), rules, keys) is ClaimProblem.SIGNATURE
    both = KeySet.shared(SharedKey((Secret("y" * 64), *SHARED.secrets)))
    for secret, headers in product(("y" * 64, SHARED.secrets[0].reveal()), (None, {"kid": "whatever"})):
        assert verify(rules, both, jwt.encode(claims(), secret, "HS256", headers=headers), NOW).report.territory == "DE"
    assert problem_of(token(), rules, keys) is ClaimProblem.ALGORITHM
    assert "shared secret" not in repr((rules, keys, SHARED))


# --- key sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b"[" * 100_000,
        jwks(*[{"kty": "oct", "k": "AAAA"}]),
        jwks(*[{"kid": "x"}] * 100, public("k1")),
        jwks({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        jwks({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        jwks({"kty": "EC", "crv": "secp256k1"}),
        jwks({"kty": "OKP", "crv": "X25519", "x": "AA"}),
        jwks({"kty": ["RSA"]}),
        json.dumps({"keys": [None, 1, "x", []]}).encode(),
    ],
)
def test_malformed_key_set_is_rejected(data: bytes) -> None:
    with pytest.raises(KeySetError):
        parse_keys(data)


@cases("change")
def test_key_that_may_not_verify_is_ignored(change: dict[str, Any]) -> None:
    keys = parse_keys(jwks({**public("k2"), **change}, public("k1")))
    assert [key.kid for key in keys.keys] == ["k1"]


def test_a_set_may_have_100_keys() -> None:
    assert [key.kid for key in parse_keys(jwks(*[{"kid": "x"}] * 99, public("k1"))).keys] == ["k1"]


def test_key_set_of_private_keys_is_rejected() -> None:
    elliptic, rsa = private("k1"), private("r1", "RS256")
    with pytest.raises(KeySetError):
        parse_keys(jwks(ECAlgorithm.to_jwk(elliptic, as_dict=True), RSAAlgorithm.to_jwk(rsa, as_dict=True)))


def test_weak_key_is_ignored() -> None:
    keys = parse_keys(jwks(public("weak", "RS256", 1024), public("k1")))
    assert [key.kid for key in keys.keys] == ["k1"]
