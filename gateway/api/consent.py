"""What a request's headers say of consent: a claim's standing ones, a backend's word, or a token. What needs the
body is judged elsewhere."""

from __future__ import annotations

import hashlib

from gateway.api.door import Visitor, key_digest
from gateway.api.person import user_asserted
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.consent import NO_STATEMENT, ConsentStatement
from gateway.policy.location import Sighting

_GRANTED = "granted"


def consent_said(table: ConfigVersion, client: Client | None, visitor: Visitor, sighting: Sighting) -> ConsentStatement:
    """What was said; nothing where no deployment asks for consent."""
    if not table.recipients:
        return NO_STATEMENT
    claim = sighting.claim
    believed = claim is not None and claim.problem is None and "claim" in table.location.signals
    standing = claim.consents if claim is not None and believed else frozenset()
    caller = _caller(table, client, visitor, claim.subject if claim is not None and believed else None)
    values = visitor.all(b"x-gateway-consent")
    if len(values) > 1:
        return ConsentStatement(caller, standing, note="`x-gateway-consent` was sent more than once")
    if not values or values[0] != _GRANTED:
        return ConsentStatement(caller, standing, token=values[0] if values else None)
    if client is None or "consent" not in client.may_assert:
        return ConsentStatement(caller, standing, note=f"`{_GRANTED}` is ignored: this key may not assert consent")
    return ConsentStatement(caller, standing, asserted=True)


def _caller(table: ConfigVersion, client: Client | None, visitor: Visitor, subject: str | None) -> str:
    """What tells the caller's key from every other, and the person where one is named: many may share a key."""
    key = key_digest(table, visitor)
    person = subject or (user_asserted(client, visitor) if client is not None else None)
    if not person:
        return key
    return hashlib.sha256(f"{key} {person}".encode("utf-8", "surrogatepass")).hexdigest()
