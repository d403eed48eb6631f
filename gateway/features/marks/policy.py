"""Make and check signed marks. Pure: the clock is an argument.

A mark is a compact JWS (RFC 7515, EdDSA of RFC 8037) over the hashes of one text. It proves that the issuer gave out
this text at this time, and nothing else. A text is hashed as it passes: of it, only the two states of SHA-256 are kept.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from gateway.compact_jws import JwsRefused, decode_part, read_jws
from gateway.model.config_version import ConfigVersion
from gateway.model.parts import LabelProof, Part
from gateway.policy.text_hash import TextHash
from providers.auth import Secret
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.signing import PublicKey, Signer

KIND = "ai-mark+jwt"
MOST_MARK_BYTES = 64 * 1024
"""The size of the largest mark that is checked."""
_OF_AUDIO = frozenset({"iss", "iat", "ai_generated", "media", "sha256"})
_MEMBERS = frozenset({"iss", "iat", "ai_generated", "choice", "sha256", "sha256_folded"})
_HASH = re.compile(r"[0-9a-f]{64}")
_LATEST_S = 253_402_300_799
"""The last second that ISO 8601 can write with four digits of the year."""


@dataclass(frozen=True, slots=True)
class MarkRules(Part):
    """The issuer and the keys of signed marks."""

    plan_name: ClassVar[str] = "marks"
    issuer: str
    """The URL that each mark names."""
    public: str
    """The public key that belongs to `key`, as `ed25519:BASE64`. Empty if secrets are not read."""
    former: tuple[str, ...] = ()
    """Former public keys, in the same form. Their marks stay valid."""
    key: Secret | None = field(default=None, compare=False, repr=False)
    """The private key in PEM, on one line. None if secrets are not read."""

    @property
    def published(self) -> tuple[str, ...]:
        """All public keys whose marks are valid, the current one first."""
        return (self.public, *self.former) if self.public else self.former

    def check(self, mark: str, text: str | None, sha256: str | None = None) -> dict[str, object]:
        """Return as JSON data what a mark proves about a text, or about a file with this SHA-256."""
        from gateway.signing import PublicKey

        found = check_mark(mark, text, self.issuer, map(PublicKey.parse, self.published), sha256)
        return (found if sha256 is None else replace(found, is_of_file=True)).document()


class SignedMark(LabelProof, Value, frozen=True):
    """The proof of a label with `mark: signed`."""

    section: ClassVar[str] = "marks"
    word: ClassVar[str] = "signed"
    noun: ClassVar[str] = "a signed mark"
    label: str

    def report(self) -> tuple[str, str]:
        return "signed marks", f"each text of an answer gets one, in the data of {self.label}"

    def signer(self, config: ConfigVersion, clock: Callable[[], float]) -> MarkSigner | None:
        rules = config.parts.of(MarkRules)
        return MarkSigner(rules, clock) if rules is not None else None


class MarkSigner:
    """Signs the marks of one config version. The private key is read with the first mark."""

    def __init__(self, rules: MarkRules, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock

    @cached_property
    def _signer(self) -> Signer:
        if self._rules.key is None:
            raise RuntimeError("a config whose secrets were not read cannot sign")
        return signer_of_pem(self._rules.key.reveal())

    def mark(self, choice: int, text: TextHash) -> str:
        """Return the mark of a choice's whole text."""
        payload: dict[str, object] = {
            "iss": self._rules.issuer,
            "iat": int(self._clock()),
            "ai_generated": True,
            "choice": choice,
            "sha256": text.exact,
            "sha256_folded": text.folded,
        }
        return self._signer.sign(KIND, payload)

    def mark_audio(self, media: str, sha256: str) -> str:
        payload: dict[str, object] = {"iss": self._rules.issuer, "iat": int(self._clock()), "ai_generated": True}
        return self._signer.sign(KIND, {**payload, "media": media, "sha256": sha256})


def signer_of_pem(text: str) -> Signer:
    """Return the only key of a text in PEM, which may be on one line. Raises KeyUnusable without a name of it."""
    from gateway.signing import PEM_BLOCK, KeyUnusable, Signer  # loads a large library that is not needed without marks

    blocks = PEM_BLOCK.findall(text.encode())
    if len(blocks) > 1:
        raise KeyUnusable("contains more than one key")
    # Between the two marks of PEM there is base64, and RFC 7468 wants each mark on a line of its own.
    parts = (part.strip() for part in re.split(rb"(-----[A-Z0-9 ]+-----)", blocks[0] if blocks else b""))
    return Signer.of_block(b"\n".join(part.replace(b" ", b"\n") if b"-" not in part else part for part in parts))


def key_of_x(x: str) -> PublicKey:
    """Return the key with this `x` of a JSON Web Key (RFC 8037). Raises KeyUnusable if it is malformed."""
    from gateway.signing import KeyUnusable, PublicKey

    try:
        return PublicKey.parse(f"ed25519:{base64.b64encode(decode_part(x)).decode()}")
    except ValueError:
        raise KeyUnusable("`x` of a key is not base64url of 32 bytes") from None


def key_set(keys: Iterable[str]) -> dict[str, object]:
    """Return public keys (`ed25519:BASE64`) as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    from gateway.signing import PublicKey

    return {
        "keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": key.x, "kid": key.id, "use": "sig", "alg": "EdDSA"}
            for key in map(PublicKey.parse, dict.fromkeys(keys))
        ]
    }


class MarkCheck(Value, frozen=True):
    """The result of a check of a mark. All that the signature does not prove is None."""

    signature: Literal["valid", "invalid", "unknown_key"]
    """`unknown_key` if the mark names no published key."""
    text: Literal["same", "same_folded", "different"] | None = None
    """Whether the text is the signed one, or differs in white space only."""
    issuer: str | None = None
    issued_at_s: int | None = None
    """Unix time."""
    content: Literal["same", "different"] | None = None
    """Whether the file is the signed one, or None for the mark of a text."""
    is_of_file: bool = False
    """The mark is that of a file, or a file was asked about."""

    @property
    def is_proven(self) -> bool:
        """Whether the issuer gave out this text, except for its white space, or exactly this file."""
        return self.signature == "valid" and (self.text in ("same", "same_folded") or self.content == "same")

    def document(self) -> dict[str, object]:
        at = None if self.issued_at_s is None else datetime.fromtimestamp(self.issued_at_s, UTC)
        return {
            "object": "mark.verification",
            "signature": self.signature,
            "text": self.text,
            **({"content": self.content} if self.is_of_file else {}),
            "issuer": self.issuer,
            "issued_at": f"{at:%Y-%m-%dT%H:%M:%SZ}" if at is not None else None,
        }


_INVALID = MarkCheck("invalid")


def check_mark(
    mark: str, text: str | None, issuer: str, keys: Iterable[PublicKey], sha256: str | None = None
) -> MarkCheck:
    """Return what the mark proves about a text, or about a file by its SHA-256.

    Only these keys count, never one that the mark brings along.
    """
    try:
        read = read_jws(mark, MOST_MARK_BYTES)
        read.algorithm_of({"EdDSA"})
        head, payload, signature = read.header, read.members, read.signature
    except JwsRefused:
        return _INVALID
    if head.keys() != {"alg", "kid", "typ"} or head["typ"] != KIND:
        return _INVALID
    key = next((one for one in keys if one.id == read.kid), None)
    if key is None:
        return MarkCheck("unknown_key")
    if not key.verifies(signature, read.signed) or not _is_payload(payload, issuer):
        return _INVALID
    is_audio, issued = "media" in payload, payload["iat"]
    if is_audio or text is None:
        at_s = issued if isinstance(issued, int) else None
        if not is_audio or sha256 is None:
            return MarkCheck("valid", None, issuer, at_s, is_of_file=True)
        is_same = sha256 == payload["sha256"]
        return MarkCheck("valid", None, issuer, at_s, "same" if is_same else "different", is_of_file=True)
    found = TextHash(folds=True)
    found.add(text)
    same: Literal["same", "same_folded", "different"] = "different"
    if found.exact == payload["sha256"]:
        same = "same"
    elif found.folded == payload["sha256_folded"]:
        same = "same_folded"
    issued_at_s = payload["iat"]
    return MarkCheck("valid", same, issuer, issued_at_s if isinstance(issued_at_s, int) else None)


def _is_payload(payload: Mapping[str, object], issuer: str) -> bool:
    """Return whether these are the members of a mark of this issuer. In Python, True is an int."""
    if "media" in payload:
        is_media, digest = str(payload["media"]).startswith("audio/"), payload.get("sha256")
        is_whole = payload.keys() == _OF_AUDIO and payload["iss"] == issuer and payload["ai_generated"] is True
        is_hash = isinstance(digest, str) and _HASH.fullmatch(digest) is not None
        return is_whole and is_media and is_hash and type(payload["iat"]) is int and 0 <= payload["iat"] <= _LATEST_S
    numbers = [payload.get("iat"), payload.get("choice")]
    hashes = [payload.get("sha256"), payload.get("sha256_folded")]
    return (
        payload.keys() == _MEMBERS
        and payload["iss"] == issuer
        and payload["ai_generated"] is True
        and all(type(number) is int and 0 <= number <= _LATEST_S for number in numbers)
        and all(isinstance(one, str) and _HASH.fullmatch(one) for one in hashes)
    )
