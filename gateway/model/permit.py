"""Leave to open a connection to one origin, with a prompt or without."""

from __future__ import annotations

from dataclasses import dataclass

EXTENSION = "gateway.permit"
"""Where a permit travels: this key of an httpx request's `extensions`."""


@dataclass(frozen=True, slots=True)
class Permit:
    """A prompt permit: what a region allows, bound to deployment, site, model and origin.

    Made by `gateway.policy.fence` alone (the architecture test holds this), and checked by the one place that opens
    connections. waives: of an evaluation permit, the lack of an approval that it waives, in words; never of traffic's.
    """

    origin: str
    region: str
    deployment: str
    site: str
    model: str
    table: str
    waives: str | None = None


@dataclass(frozen=True, slots=True)
class ServicePermit:
    """A service permit: leave to ask a service that the config names, such as a collector or an issuer of tokens.

    It carries no byte of a request. Made by `gateway.config.service_permits.read_service` alone, from the config alone
    (the architecture test holds this); used by `gateway.execution.service_client` alone, so that no prompt can travel
    under it.
    """

    origin: str


AnyPermit = Permit | ServicePermit
