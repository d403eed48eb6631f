"""Ed25519 keys and signatures, and the signature on the plan of a change."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.compact_jws import JwsRefused, read_jws
from gateway.files import is_open_to_others, read_file_or_pipe
from providers.value import Value

_PREFIX = "ed25519:"
_PUBLIC = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")
_MOST_BYTES = 64 * 1024
_MOST_VERSIONS = 2
PEM_BLOCK = re.compile(rb"-----BEGIN [^-]+-----.+?-----END [^-]+-----[\r\n]*", re.DOTALL)
PLAN_KIND = "gateway-plan"
RECEIPT_KIND = "gateway-receipt"
_NOT_READ = {
    "size": f"it is longer than {_MOST_BYTES} bytes",
    "form": "it is not a compact JWS: three parts of base64url, with dots between them, the first two of JSON objects",
    "algorithm": "its algorithm is not EdDSA",
}
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class KeyUnusable(ValueError):
    """A key that cannot be used. The message gives the reason and contains no part of the key."""


class BadSignature(ValueError):
    """The signature does not match the content, or is not from an accepted key. The message gives the reason."""


class PublicKey(Value, frozen=True):
    """A public key in its text form, `ed25519:BASE64`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Return the key with this text. Raises KeyUnusable if the text is malformed."""
        if _PUBLIC.fullmatch(text) is None:
            raise KeyUnusable("a public key is written ed25519: and 44 characters of base64, on one line")
        return cls(text)

    @property
    def id(self) -> str:
        """A short name of the key. A signature names its key by it."""
        return hashlib.sha256(self._raw).hexdigest()[:16]

    @property
    def pem(self) -> bytes:
        """The key in PEM, as OpenSSL reads it."""
        key = Ed25519PublicKey.from_public_bytes(self._raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def x(self) -> str:
        """The member `x` of the key as a JSON Web Key."""
        return _encode(self._raw)

    @property
    def _raw(self) -> bytes:
        return base64.b64decode(self.text.removeprefix(_PREFIX))

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether this key made the signature of these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self._raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key. Its `repr` shows only the id of the public key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = PublicKey(_PREFIX + base64.b64encode(raw).decode())
        # The first part of a JWS by its type, because each mark of an answer needs it.
        self._heads: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Signer({self.public.id})"

    @classmethod
    def read(cls, path: Path) -> Signer:
        """Return the first key of a PEM file that only its owner may read. Raises KeyUnusable."""
        return cls.read_versions(path)[0]

    @classmethod
    def read_versions(cls, path: Path) -> tuple[Signer, ...]:
        """Return the one or two keys of a PEM file that only its owner may read. Raises KeyUnusable."""
        try:
            data = read_file_or_pipe(path, _MOST_BYTES)
            is_open = is_open_to_others(path.stat())
        except OSError as error:
            raise KeyUnusable(f"{path} cannot be read ({error.strerror})") from None
        if is_open:
            raise KeyUnusable(f"{path} is readable by other users: run `chmod 600 {path}`")
        blocks = PEM_BLOCK.findall(data) or [data]
        if len(blocks) > _MOST_VERSIONS:
            raise KeyUnusable(f"{path} contains more than {_MOST_VERSIONS} keys: the new one and the former one")
        try:
            return tuple(map(cls.of_block, blocks))
        except KeyUnusable as error:
            raise KeyUnusable(f"{path} {error}") from None

    @classmethod
    def of_block(cls, block: bytes) -> Signer:
        """Return the key of one block of PEM. Raises KeyUnusable without a name of it."""
        try:
            key = load_pem_private_key(block, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyUnusable("does not contain a private key in PEM without a passphrase") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable("contains a key that is not Ed25519: create one with `gateway key new --ed25519 PATH`")
        return cls(key)

    def derived_key(self, purpose: bytes) -> bytes:
        """Return a secret for another purpose. Only the owner of the private key can compute it."""
        return hmac.digest(self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()), purpose, "sha256")

    def sign_bytes(self, data: bytes) -> bytes:
        """Return the bare signature of a file, as OpenSSL checks it."""
        return self._key.sign(data)

    def sign(self, kind: str, payload: Mapping[str, object]) -> str:
        """Return the payload as a compact JWS of this type."""
        head = self._heads.get(kind)
        if head is None:
            head = _encode(_canonical({"alg": "EdDSA", "kid": self.public.id, "typ": kind}))
            self._heads[kind] = head
        signed = f"{head}.{_encode(_canonical(payload))}"
        return f"{signed}.{_encode(self._key.sign(signed.encode()))}"


def new_key() -> tuple[bytes, PublicKey]:
    """Return a new private key in PEM, and its public key."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), Signer(key).public


def verify(jws: str, kind: str, keys: Iterable[PublicKey]) -> tuple[dict[str, object], PublicKey]:
    """Return the payload of a JWS of this type, and the key that signed it. Raises BadSignature."""
    try:
        read = read_jws(jws.strip(), _MOST_BYTES)
        # The algorithm is fixed. If the document could choose it, a forger would choose the weakest.
        read.algorithm_of({"EdDSA"})
        payload, signature, signed = read.members, read.signature, read.signed
    except JwsRefused as refused:
        raise BadSignature(_NOT_READ[refused.reason]) from None
    if read.header.get("typ") != kind:
        raise BadSignature(f"its type is not {kind}")
    for key in keys:
        if key.verifies(signature, signed):
            return payload, key
    raise BadSignature("no accepted key made this signature")


def _canonical(value: Mapping[str, object]) -> bytes:
    return _CANONICAL.encode(value).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_plan(signer: Signer, before: str, after: str) -> str:
    """Return the signature that permits one step: the config `before` is replaced by `after` (content hashes)."""
    return signer.sign(PLAN_KIND, {"before": before, "after": after})


def signer_of(jws: str, admin_keys: Iterable[str], before: str, after: str) -> str:
    """Return the id of the admin key that signed exactly this step. Raises BadSignature."""
    payload, key = verify(jws, PLAN_KIND, _usable(admin_keys))
    if (payload.get("before"), payload.get("after")) != (before, after):
        raise BadSignature("it signs a change from another config or to another one")
    return key.id


def _usable(texts: Iterable[str]) -> list[PublicKey]:
    keys: list[PublicKey] = []
    for text in texts:
        try:
            keys.append(PublicKey.parse(text))
        except KeyUnusable:
            continue
    return keys
