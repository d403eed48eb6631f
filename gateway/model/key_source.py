"""Where the keys are that an issuer signs claims and tokens with."""

from __future__ import annotations

from gateway.model.permit import ServicePermit
from providers.auth import Secret
from providers.value import Value


class KeyUrl(Value, frozen=True):
    """An issuer's key set at a URL of the config: the permit for the request, and the path."""

    permit: ServicePermit
    path: str


class KeyFile(Value, frozen=True):
    """An issuer's key set in a file."""

    path: str


class SharedKey(Value, frozen=True):
    """A secret with which the issuer signs claims and the gateway verifies them: one or two versions."""

    secrets: tuple[Secret, ...]


KeySource = KeyUrl | KeyFile | SharedKey
