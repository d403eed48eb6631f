"""Clients by a signed token, over HTTP: rules, refusals, what is remembered, the end user, and attacks."""

import base64
import hashlib
import json
import sys
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.api.caller.authentication import MOST_FAILED_KEYS
from gateway.api.caller.request_headers import read_caller
from gateway.compact_jws import read_jws
from providers.value import replace
from tests.gateway.api.caller.visits import visit_with
from tests.kit.claim_tokens import jwks, private, public, unsigned
from tests.kit.token_gateway import BATCH, CONFIG, RESEARCH, TENANT, TokenGateway, signed

RULE: dict[str, Any] = {"where": {"roles": "Batch"}}
INVALID = 'Bearer error="invalid_token"'


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def refused(answer: Any) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert error["reason"] == "access"
    return answer.status_code, error["code"], error.get("token")


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_first_rule_that_holds_names_the_client(gateway: TokenGateway, header: str) -> None:
    for members, client in ((RESEARCH, "research"), (BATCH, "batch"), ({**BATCH, **RESEARCH}, "research")):
        assert gateway.ask(signed(**members), header=header).status_code == 200
        assert gateway.last()["client"] == client
    assert gateway.ask("app-key").status_code == 200


@pytest.mark.parametrize(
    ("members", "lacks"),
    [
        ({}, "client"),
        ({"groups": ["g-lab"]}, "client"),  # one entry of two
        ({"groups": "g-lab,g-research", "realm_access": {"roles": "beta"}}, "client"),
        ({"scp": "gateway.chat", "verified": 1}, "client"),  # 1 is not true
        ({"scp": "chat.use.more", "verified": True}, "client"),
        ({"_claim_names": {"groups": "src1"}, **BATCH}, "groups"),
        ({"hasgroups": True}, "groups"),
    ],
)
def test_token_without_a_client_is_refused(gateway: TokenGateway, members: dict[str, Any], lacks: str) -> None:
    assert refused(gateway.ask(signed(**members))) == (403, "permission_denied", lacks)
    counted = gateway.gateway.metrics._counts
    assert counted["gateway_token_requests_total", ("", "entra")] == 1, "its issuer is in the record of the request"


def test_groups_as_a_text_and_words_of_a_scope_hold(gateway: TokenGateway) -> None:
    assert gateway.ask(signed(groups="g-lab", realm_access={"roles": "beta"})).status_code == 200
    assert gateway.ask(signed(scp="openid chat.use", verified=True)).status_code == 200


def test_left_out_groups_end_the_search_only_at_a_rule_that_looks_at_them(gateway: TokenGateway) -> None:
    rules = [{"client": "batch", "where": {"roles": "Batch"}}, {"client": "research", "where": {"groups": "g-lab"}}]
    gateway.reload(CONFIG.merge({"token_issuers": {"entra": {"clients": rules}}}))
    assert gateway.ask(signed(hasgroups=True, **BATCH)).status_code == 200
    assert refused(gateway.ask(signed(hasgroups=True))) == (403, "permission_denied", "groups")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"exp": 10, "iat": 5}, "expired"),
        ({"iat": None}, "malformed"),
        ({"exp": None}, "malformed"),
        ({"oid": None}, "malformed"),
        ({"oid": 7}, "malformed"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": TENANT + "/"}, "issuer"),
        ({"aud": "another-app"}, "audience"),
        ({"aud": ["api://gateway", "another-app"]}, "audience"),
        ({"exp": 4_000_000_000}, "lives_too_long"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"padding": "x" * 17_000}, "too_large"),
    ],
)
def test_invalid_token_is_refused_with_the_kind_of_reason(
    gateway: TokenGateway, changes: dict[str, Any], kind: str
) -> None:
    answer = gateway.ask(signed(**{**RESEARCH, **changes}))
    assert refused(answer) == (401, "invalid_api_key", kind)
    assert answer.headers["www-authenticate"] == INVALID


def test_algorithm_confusion_and_injected_keys_are_refused(gateway: TokenGateway) -> None:
    pem = private("k1").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    members = jwt.decode(signed(**RESEARCH), options={"verify_signature": False})

    def as_hmac() -> str:
        parts = {"alg": "HS256", "kid": "k1", "typ": "JWT"}, members
        signed_part = b".".join(base64url(json.dumps(part).encode()) for part in parts)
        hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        return b".".join((signed_part, base64url(hmac.sign(signed_part, pem)))).decode()

    own = public("attacker")
    attacks = {
        as_hmac(): "algorithm",
        unsigned({"alg": "none", "kid": "k1"}, members): "algorithm",
        signed("attacker", header={"jwk": own, "kid": "k1"}, **RESEARCH): "signature",
        signed("attacker", header={"jku": "https://evil.example/keys"}, **RESEARCH): "unknown_key",
        signed("k1", header={"kid": "../../dev/null"}, **RESEARCH): "unknown_key",
        signed("k1", header={"kid": "x' OR 1=1 --"}, **RESEARCH): "unknown_key",
        signed("k1", header={"crit": ["exp"]}, **RESEARCH): "malformed",
        unsigned({"alg": "ES256", "kid": "k1"}, b'{"iss":"a","iss":"b"}'): "malformed",
        signed(**RESEARCH)[:-8] + "AAAAAAAA": "signature",
        "eyJ.e30.x": "issuer",
    }
    for attack, kind in attacks.items():
        answer = gateway.ask(attack)
        assert refused(answer) == (401, "invalid_api_key", kind)
        assert answer.headers["www-authenticate"] == INVALID
        assert not any(part in answer.text for part in attack.split(".") if len(part) > 10)
    assert gateway.ask("eyJ-not-a-token").headers["www-authenticate"] == "Bearer"


def test_two_different_credentials_and_a_token_in_the_url_are_refused(gateway: TokenGateway) -> None:
    one, other = signed(**RESEARCH), signed(**BATCH)
    assert gateway.ask(one, headers={"x-api-key": one}).status_code == 200
    assert gateway.ask(one, headers={"x-api-key": other}).status_code == 401
    assert gateway.send("POST", f"/v1/chat/completions?access_token={one}", {}, {}).status_code == 401


def test_outage_of_the_issuer_and_a_new_key(gateway: TokenGateway) -> None:
    gateway.keys = 503
    answer = gateway.ask(signed(**RESEARCH))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
    assert answer.headers["retry-after"]
    gateway.keys, gateway.ahead_s = jwks(public("k1")), 11
    assert gateway.ask(signed(**RESEARCH)).status_code == 200
    gateway.keys = jwks(public("k1"), public("k2"))
    assert gateway.ask(signed("k2", **RESEARCH)).status_code == 401, "the last load was less than 10 s ago"
    gateway.ahead_s = 22
    assert gateway.ask(signed("k2", **RESEARCH)).status_code == 200
    long = {**RESEARCH, "exp": jwt.decode(signed(), options={"verify_signature": False})["iat"] + 86_400}
    gateway.keys, token = 503, signed(**long)
    gateway.ahead_s = 80_000
    assert gateway.ask(token).status_code == 200, "the last keys are valid for 24 hours"
    gateway.ahead_s = 22 + 86_401
    assert gateway.ask(signed(iat=long["exp"], **{**long, "exp": long["exp"] + 600})).status_code == 503


def test_keys_of_a_wrong_type_are_passed_over_and_a_huge_key_set_is_not_read(gateway: TokenGateway) -> None:
    good = public("k1")
    wrong: list[Any] = [7, None, [], {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]
    wrong += [{**good, "kty": kind} for kind in ("RSA", "oct", "OKP", 7)]
    changes = {"kid": 7}, {"x": 7}, {"x": "AA"}, {"crv": ["P-256"]}, {"use": "enc"}, {"key_ops": ["sign"]}
    wrong += [{**good, **change} for change in (*changes, {"key_ops": "verify"}, {"alg": 7})]
    gateway.keys = jwks(*wrong, good)
    assert gateway.ask(signed(**RESEARCH)).status_code == 200
    gateway.keys, gateway.ahead_s = jwks(*({**good, "kid": str(number)} for number in range(10_000))), 11
    assert gateway.ask(signed("7", **RESEARCH)).json()["error"]["code"] == "keys_unavailable"
    assert gateway.ask(signed(jti="new", **RESEARCH)).status_code == 200, "the keys before are used"
    gateway.keys, gateway.ahead_s = jwks(*wrong), 22
    assert gateway.ask(signed("7", **RESEARCH)).json()["error"]["code"] == "keys_unavailable"


def test_known_token_is_not_verified_again_until_it_expires(
    gateway: TokenGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.policy.location import claim_verification

    verified: list[str] = []
    really = claim_verification.verify_client_token
    monkeypatch.setattr(
        claim_verification, "verify_client_token", lambda *given: (verified.append(given[2]), really(*given))[1]
    )
    token = signed(**RESEARCH)
    assert [gateway.ask(token).status_code for _ in range(3)] == [200] * 3
    assert len(verified) == 1
    gateway.keys, gateway.ahead_s = jwks(public("k1"), public("k2")), 301
    gateway.ask(token)  # begins the next load
    gateway.ahead_s += 2  # key sets are compared once a second
    assert gateway.ask(token).status_code == 200
    assert len(verified) == 2, "the key set is another one"
    gateway.ahead_s = 601
    assert refused(gateway.ask(token)) == (401, "invalid_api_key", "expired")


def test_token_of_a_withdrawn_key_is_refused_after_each_silence(gateway: TokenGateway) -> None:
    token = signed(**RESEARCH, exp=time.time() + 3000)
    for gateway.ahead_s in (0, 700, 1400):
        assert gateway.ask(token).status_code == 200
    gateway.keys, gateway.ahead_s = jwks(public("k2")), 2100
    assert refused(gateway.ask(token))[0] == 401


def test_known_token_costs_three_calls_more_than_a_key(gateway: TokenGateway) -> None:
    token = signed(**RESEARCH)
    assert gateway.ask(token).status_code == 200
    gateway.tokens.clock = time.time
    limiter, config = gateway.gateway._chat.limiter, gateway.gateway.config

    async def calls(text: str) -> int:
        visitor = visit_with(text)
        read_caller(config, visitor, limiter)
        counted = 0

        def count(_: object, event: str, __: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        former = sys.getprofile()
        sys.setprofile(count)
        try:
            read_caller(config, visitor, limiter)
        finally:
            sys.setprofile(former)
        return counted

    # Less than 1 % of the 345 calls of a plain request (bench/guard_budget.json).
    assert gateway.run(calls(token)) - gateway.run(calls("app-key")) <= 3


def test_reload_revokes_by_member_time_and_rule(gateway: TokenGateway) -> None:
    token = signed(**RESEARCH)
    assert gateway.ask(token).status_code == 200
    rules = {"clients": [RULE | {"client": "batch"}, RULE | {"client": "research"}]}
    for change, kind in (
        ({"denied": {"oid": ["u-9", "u-1"]}}, (401, "invalid_api_key", "denied")),
        ({"denied": {"x": True, "/realm_access/roles": "alpha"}}, (401, "invalid_api_key", "denied")),
        ({"issued_after": "2096-01-01T00:00:00Z"}, (401, "invalid_api_key", "issued_too_early")),
        (rules, (403, "permission_denied", "client")),
    ):
        gateway.reload(CONFIG.merge({"token_issuers": {"entra": change}}))
        assert refused(gateway.ask(token)) == kind
    gateway.reload(CONFIG.merge({"token_issuers": {"entra": {"issued_after": "2026-01-01T00:00:00+01:00"}}}))
    assert gateway.ask(token).status_code == 200


def blocking(gateway: TokenGateway, digest: str) -> None:
    """Block a key by its SHA-256, as the stored blocks do at the next look at them."""

    async def activate() -> None:
        gateway.gateway.activate(replace(gateway.compiled(CONFIG), blocked_keys={digest: 1.0}))

    gateway.run(activate())


@pytest.mark.parametrize("is_known", [True, False])
def test_block_of_a_token_holds_for_its_other_signature(gateway: TokenGateway, is_known: bool) -> None:
    token = signed(**RESEARCH)
    digests = read_jws(token, 16_384).digests()
    other = twin_of(token)
    assert digests == tuple(hashlib.sha256(text.encode()).hexdigest() for text in (token, other))
    for digest in digests:
        if is_known:
            gateway.reload(CONFIG)
            assert [gateway.ask(text).status_code for text in (token, other)] == [200, 200]
        blocking(gateway, digest)
        for text in (token, other):
            answer = gateway.ask(text)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert "blocked" in answer.json()["error"]["message"]
        assert gateway.ask(signed(jti="another", **RESEARCH)).status_code == 200


def twin_of(token: str) -> str:
    """Return a token with the other signature of ECDSA: (r, n - s) in place of (r, s)."""
    signed_part, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = private("k1").curve.group_order - int.from_bytes(raw[32:])
    return f"{signed_part}.{base64url(raw[:32] + s.to_bytes(32)).decode()}"


@pytest.mark.parametrize("is_known", [True, False])
def test_reload_refuses_a_token_of_a_key_that_the_issuer_has_withdrawn(gateway: TokenGateway, is_known: bool) -> None:
    gateway.keys = jwks(public("k1"), public("k2"))
    known = signed("k1", **RESEARCH)
    assert gateway.ask(known).status_code == 200
    gateway.keys = jwks(public("k2"))
    assert gateway.ask(known).status_code == 200, "it is not asked again before"
    gateway.reload(CONFIG)
    stolen = known if is_known else signed("k1", jti="new", **RESEARCH)
    assert refused(gateway.ask(stolen)) == (401, "invalid_api_key", "unknown_key")
    assert gateway.ask(signed("k2", **RESEARCH)).status_code == 200
    gateway.keys = 503
    gateway.reload(CONFIG)
    assert gateway.ask(signed("k2", jti="2", **RESEARCH)).status_code == 200, "the issuer is down: its known keys stay"


def test_bad_signatures_count_as_wrong_keys_and_expired_tokens_do_not(gateway: TokenGateway) -> None:
    known = signed(**RESEARCH)
    assert gateway.ask(known).status_code == 200
    limiter, now = gateway.gateway._chat.limiter, 1000.0
    limiter._clock = lambda: now
    expired = [gateway.ask(signed(exp=10 + number, iat=1)) for number in range(MOST_FAILED_KEYS + 5)]
    assert {answer.status_code for answer in expired} == {401}
    bad = signed(**RESEARCH)[:-8] + "AAAAAAAA"
    assert [gateway.ask(bad).status_code for _ in range(MOST_FAILED_KEYS)] == [401] * MOST_FAILED_KEYS
    assert gateway.ask(bad).status_code == 429
    assert gateway.ask(known).status_code == 200
    assert gateway.ask("app-key").status_code == 200
    fresh = [gateway.ask(signed(jti=str(number), **RESEARCH)).status_code for number in range(25)]
    assert fresh == [200] * 19 + [429] * 6, "one of the 20 verifications of this second was that of the bad token"
    now += 1.0
    assert gateway.ask(signed(jti="later", **RESEARCH)).status_code == 200


def test_two_issuers_with_one_audience_verify_with_their_own_keys(gateway: TokenGateway) -> None:
    other = {
        "issuer": "https://other.example",
        "audience": "api://gateway",
        "algorithms": ["ES256"],
        "jwks": "https://login.example/other",
        "clients": [{"client": "batch", "where": {"roles": "Batch"}}],
    }
    gateway.reload(CONFIG.merge({"token_issuers": {"other": other}}))
    assert gateway.ask(signed(iss="https://other.example", **BATCH)).status_code == 200
    assert gateway.last()["client"] == "batch"
    # A token of one issuer that claims to be of the other is verified with the keys of the other.
    gateway.keys = jwks(public("k1"))
    assert refused(gateway.ask(signed("k2", iss="https://other.example", **BATCH)))[2] == "unknown_key"


def test_explanation_has_client_issuer_and_rule(gateway: TokenGateway) -> None:
    explained = gateway.get("/v1/explain", signed(**BATCH)).json()
    assert (explained["client"], explained["token_issuer"], explained["token_rule"]) == ("batch", "entra", 2)
    assert "token_issuer" not in gateway.get("/v1/explain", "app-key").json()
    assert gateway.get("/v1/models", signed(**RESEARCH)).status_code == 200
    assert refused(gateway.get("/v1/models", signed(exp=10, iat=5)))[2] == "expired"
