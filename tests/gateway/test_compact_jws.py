"""Texts that every reader of a signed text refuses, although the signature is right: one table for claims, tokens,
marks, receipts and plans. And both forms of a signature by ECDSA."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from gateway.compact_jws import read_jws
from gateway.features.marks.policy import KIND, check_mark, signer_of_pem
from gateway.model.location import ClaimRefused
from gateway.model.signed_token import KeyFile
from gateway.policy.location.claim import ClaimRules
from gateway.policy.location.claim_verification import parse_keys, read_unverified, verify_client_token
from gateway.policy.location.claim_verification import verify as verify_claim
from gateway.signing import BadSignature, PublicKey, new_key
from gateway.signing import verify as verify_signed
from tests.kit.claim_tokens import AUDIENCE, ISSUER, NOW, claims, jwks, private, token

PEM, PUBLIC = new_key()
SIGNER = signer_of_pem(PEM.decode())
KEYS = parse_keys(jwks({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC.x, "kid": PUBLIC.id}))
ED = ClaimRules(ISSUER, AUDIENCE, frozenset({"EdDSA"}), KeyFile("/keys"))
CLAIM = claims(iat=NOW, sub="u")
HASH = hashlib.sha256(b"").hexdigest()
MARK = {"iss": "i", "iat": 1, "ai_generated": True, "choice": 0, "sha256": HASH, "sha256_folded": HASH}


def by_plan(text: str) -> bool:
    try:
        return bool(verify_signed(text, "plan", [PublicKey.parse(PUBLIC.text)]))
    except BadSignature:
        return False


def by_mark(text: str) -> bool:
    return check_mark(text, "", "i", [PUBLIC]).is_proven


def by_claim(text: str) -> bool:
    try:
        return bool(verify_claim(ED, KEYS, text, NOW))
    except ClaimRefused:
        return False


def by_client_token(text: str) -> bool:
    try:
        return bool(verify_client_token(ED, KEYS, read_unverified(text), NOW))
    except ClaimRefused:
        return False


READERS: dict[str, tuple[Callable[[str], bool], str, dict[str, Any]]] = {
    "plan": (by_plan, "plan", {"before": "a", "after": "b"}),
    "mark": (by_mark, KIND, MARK),
    "claim": (by_claim, "JWT", CLAIM),
    "token": (by_client_token, "JWT", CLAIM),
}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(head: bytes, payload: bytes) -> str:
    text = f"{encoded(head)}.{encoded(payload)}"
    return f"{text}.{encoded(SIGNER.sign_bytes(text.encode()))}"


def other_last(text: str) -> str:
    """Return the same bytes in another text: the last character of base64 has bits without meaning."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


FORMS: dict[str, Callable[[bytes, bytes], str]] = {
    "padding": lambda head, payload: f"{signed(head, payload)}==",
    "unused bits": lambda head, payload: other_last(signed(head, payload)),
    "four parts": lambda head, payload: f"{signed(head, payload)}.",
    "standard alphabet": lambda head, payload: signed(head, payload).replace("-", "+").replace("_", "/") + "+",
    "crit": lambda head, payload: signed(head[:-1] + b',"crit":["exp"]}', payload),
    "b64": lambda head, payload: signed(head[:-1] + b',"b64":true}', payload),
    "alg twice": lambda head, payload: signed(head[:-1] + b',"alg":"EdDSA"}', payload),
    "member twice": lambda head, payload: signed(head, payload[:-1] + b',"iat":1,"iat":1}'),
    "not a number": lambda head, payload: signed(head, payload[:-1] + b',"x":NaN}'),
    "utf-16": lambda head, payload: signed(head, payload.decode().encode("utf-16-le")),
    "list": lambda head, payload: signed(head, b"[" + payload + b"]"),
    "deep": lambda head, payload: signed(head, b"[" * 5000),
    "none": lambda head, payload: signed(head.replace(b"EdDSA", b"none"), payload),
    "key id": lambda head, payload: signed(head[:-1] + b',"kid":7}', payload),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_each_reader_refuses_the_same_forms_although_the_signature_is_right(reader: str, form: str) -> None:
    accepts, kind, payload = READERS[reader]
    parts = [json.dumps(it).encode() for it in ({"alg": "EdDSA", "typ": kind, "kid": PUBLIC.id}, payload)]
    assert accepts(signed(*parts))
    assert not accepts(FORMS[form](*parts))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
def test_both_signatures_of_ecdsa_are_valid_and_each_gives_the_digests_of_both(algorithm: str) -> None:
    sent = token(algorithm, algorithm)
    first = read_jws(sent, 8192)
    half = len(first.signature) // 2
    order = private(algorithm, algorithm).public_key().curve.group_order
    s = order - int.from_bytes(first.signature[half:])
    other = f"{first.signed.decode()}.{encoded(first.signature[:half] + s.to_bytes(half))}"
    for text in (sent, other):
        known = {"verify_aud": False, "verify_exp": False}
        decoded = jwt.decode(text, private(algorithm, algorithm).public_key(), [algorithm], options=known)
        assert decoded["territory"] == "DE"
    both = {hashlib.sha256(text.encode()).hexdigest() for text in (sent, other)}
    assert {*first.digests()} == {*read_jws(other, 8192).digests()} == both
    assert first.digests()[0] == hashlib.sha256(sent.encode()).hexdigest()


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "EdDSA"])
def test_other_signatures_have_one_form(algorithm: str) -> None:
    assert len(read_jws(token(algorithm, algorithm), 8192).digests()) == 1
