"""An admin's signature on a plan: that this table may take the place of that one. Pure but for the key it is given.

Both are named by their whole content hashes, not by the short versions that people read.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.signing import BadSignature, KeyUnusable, PublicKey, Signer, verify

__all__ = ["KIND", "sign_plan", "signer_of"]

KIND = "gateway-plan"


def sign_plan(signer: Signer, before: str, after: str) -> str:
    """The signature that lets the second config take the place of the first; both by their content hashes."""
    return signer.sign(KIND, {"before": before, "after": after})


def signer_of(jws: str, admin_keys: Iterable[str], before: str, after: str) -> str:
    """Which of the admins' keys signed this very step, by its id; raises BadSignature."""
    payload, key = verify(jws, KIND, _usable(admin_keys))
    if (payload.get("before"), payload.get("after")) != (before, after):
        raise BadSignature("it signs another step, from another config or to another one")
    return key.id


def _usable(texts: Iterable[str]) -> list[PublicKey]:
    keys: list[PublicKey] = []
    for text in texts:
        try:
            keys.append(PublicKey.parse(text))
        except KeyUnusable:
            continue
    return keys
