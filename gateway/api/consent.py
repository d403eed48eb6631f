"""What a request's headers say of consent: a claim's standing ones, a backend's word, or a token. What needs the
body is judged elsewhere."""

from __future__ import annotations

from gateway.api.door import Visitor, key_digest
from gateway.model.consent import NOTHING_SAID, ConsentSaid
from gateway.model.table import Client, Table
from gateway.policy.location import Sighting

__all__ = ["consent_said"]

_GRANTED = "granted"


def consent_said(table: Table, client: Client | None, visitor: Visitor, sighting: Sighting) -> ConsentSaid:
    """What was said; nothing where no deployment asks for consent."""
    if not table.recipients:
        return NOTHING_SAID
    claim = sighting.claim
    believed = claim is not None and claim.problem is None and "claim" in table.location.signals
    standing = claim.consents if claim is not None and believed else frozenset()
    caller = key_digest(table, visitor)
    values = visitor.all(b"x-gateway-consent")
    if len(values) > 1:
        return ConsentSaid(caller, standing, note="`x-gateway-consent` was sent more than once")
    if not values or values[0] != _GRANTED:
        return ConsentSaid(caller, standing, token=values[0] if values else None)
    if client is None or "consent" not in client.may_assert:
        return ConsentSaid(caller, standing, note=f"`{_GRANTED}` is ignored: this key may not assert consent")
    return ConsentSaid(caller, standing, asserted=True)
