"""Ed25519 signatures: holders of the public key can verify exactly the content that was signed."""

import base64
import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.signing import BadSignature, KeyUnusable, PublicKey, Signer, new_key, verify

PAYLOAD = {"id": "req_1", "region": "cn", "name": "北京", "tried": [{"stores": "CN"}]}


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return signer_in(tmp_path / "key.pem")


def signer_in(path: Path) -> Signer:
    pem, _ = new_key()
    path.write_bytes(pem)
    path.chmod(0o600)
    return Signer.read(path)


def test_verified_payload_equals_the_signed_one(signer: Signer, tmp_path: Path) -> None:
    other = signer_in(tmp_path / "other.pem")
    payload, key = verify(signer.sign("receipt", PAYLOAD), "receipt", [other.public, signer.public])
    assert (payload, key) == (PAYLOAD, signer.public)
    assert signer.public.id in repr(signer)
    assert jwt.get_unverified_header(signer.sign("receipt", PAYLOAD))["kid"] == signer.public.id


def test_signature_is_valid_for_another_jose_library(signer: Signer) -> None:
    raw = base64.b64decode(signer.public.text.removeprefix("ed25519:"))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(raw)
    assert jwt.decode(signer.sign("JWT", PAYLOAD), key, ["EdDSA"]) == PAYLOAD


def test_wrong_key_wrong_type_and_no_key_are_refused(signer: Signer, tmp_path: Path) -> None:
    jws = signer.sign("receipt", PAYLOAD)
    for kind, keys in (
        ("receipt", [signer_in(tmp_path / "other.pem").public]),
        ("plan", [signer.public]),
        ("receipt", []),
    ):
        with pytest.raises(BadSignature):
            verify(jws, kind, keys)


def encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(signer: Signer, head: object, payload: object) -> str:
    """Return a JWS of any header and payload with a valid signature of this key."""
    text = f"{encoded(head)}.{encoded(payload)}"
    return f"{text}.{encoded(signer._key.sign(text.encode()))}"


HEAD = {"alg": "EdDSA", "typ": "receipt"}
DEEP = b"[" * 40_000


@pytest.mark.parametrize(
    ("head", "payload"),
    [
        ({**HEAD, "alg": "none"}, PAYLOAD),
        ({**HEAD, "alg": "HS256"}, PAYLOAD),
        ({"typ": "receipt"}, PAYLOAD),
        ({**HEAD, "crit": ["b64"]}, PAYLOAD),
        ({**HEAD, "typ": "plan"}, PAYLOAD),
        ({"alg": "EdDSA"}, PAYLOAD),
        ([], PAYLOAD),
        (1, PAYLOAD),
        (HEAD, []),
        (HEAD, "text"),
        (b"no JSON", PAYLOAD),
        (DEEP, PAYLOAD),
        (HEAD, DEEP),
        (HEAD, {"text": "x" * 64 * 1024}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_algorithm_in_the_document_is_not_trusted(signer: Signer, head: object, payload: object) -> None:
    assert verify(signed(signer, HEAD, PAYLOAD), "receipt", [signer.public])[0] == PAYLOAD
    with pytest.raises(BadSignature):
        verify(signed(signer, head, payload), "receipt", [signer.public])


def test_added_or_missing_part_is_refused(signer: Signer) -> None:
    jws = signer.sign("receipt", PAYLOAD)
    assert verify(f" {jws}\n", "receipt", [signer.public])[0] == PAYLOAD
    head, payload, signature = jws.split(".")
    for forged in (
        f"{jws}.",
        f"{jws}.{signature}",
        f"{head}.{payload}",
        f"{head}.{payload}.",
        # The base64 decoder itself ignores these characters.
        f"{head}.{payload}.{signature[:9]}!{signature[9:]}",
        f"{jws}==",
        f"{jws}\n.",
    ):
        with pytest.raises(BadSignature):
            verify(forged, "receipt", [signer.public])


@given(index=st.integers(0, 10_000), character=st.sampled_from("ABCabc012-_"))
def test_change_of_any_character_is_detected(
    tmp_path_factory: pytest.TempPathFactory, index: int, character: str
) -> None:
    signer = signer_in(tmp_path_factory.mktemp("keys") / "key.pem")
    jws = signer.sign("receipt", PAYLOAD)
    index %= len(jws)
    forged = jws[:index] + character + jws[index + 1 :]
    try:
        payload, _ = verify(forged, "receipt", [signer.public])
    except BadSignature:
        return
    # The last character of base64 has bits without meaning.
    assert payload == PAYLOAD
    assert forged == jws or index == len(jws) - 1


@given(st.text(max_size=200))
def test_text_that_is_not_a_jws_is_refused(text: str) -> None:
    with pytest.raises(BadSignature):
        verify(text, "receipt", [PublicKey("ed25519:" + "A" * 43 + "=")])


def test_key_readable_by_others_is_refused(tmp_path: Path) -> None:
    signer_in(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(KeyUnusable, match="is readable by other users: run `chmod 600"):
        Signer.read(tmp_path / "key.pem")


LOCKED = load_pem_private_key(new_key()[0], None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
)


def test_file_with_a_new_and_a_former_key_has_both(tmp_path: Path) -> None:
    pairs = [new_key() for _ in range(3)]
    for count in (1, 2, 3):
        path = tmp_path / f"{count}.pem"
        path.write_bytes(b"# keys of receipts\n".join(pem for pem, _ in pairs[:count]))
        path.chmod(0o600)
        if count == 3:
            with pytest.raises(KeyUnusable, match="more than 2 keys"):
                Signer.read_versions(path)
        else:
            assert [it.public for it in Signer.read_versions(path)] == [public for _, public in pairs[:count]]
            assert Signer.read(path).public == pairs[0][1]


@pytest.mark.parametrize(
    "content", [b"", b"not a key", LOCKED, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_file_without_a_private_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="not contain a private key in PEM"):
        Signer.read(path)
    with pytest.raises(KeyUnusable, match="cannot be read"):
        Signer.read(tmp_path / "nowhere")


def test_private_key_that_is_not_ed25519_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="a key that is not Ed25519"):
        Signer.read(path)


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 44, "ed25519:" + "A" * 44, "ed25519:" + "A" * 43 + "=\n"]
)
def test_invalid_public_key_is_refused(signer: Signer, text: str) -> None:
    assert PublicKey.parse(signer.public.text) == signer.public
    with pytest.raises(KeyUnusable):
        PublicKey.parse(text)
