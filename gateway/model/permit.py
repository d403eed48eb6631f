"""Leave to open a connection to one origin, for one purpose."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EXTENSION", "Permit"]

EXTENSION = "gateway.permit"
"""Where a permit travels: this key of an httpx request's `extensions`."""


@dataclass(frozen=True, slots=True)
class Permit:
    """A prompt permit: what a region allows, bound to deployment, site, model and origin.

    Made by `gateway.policy.fence.prompt_permit` alone (the architecture test holds this), and checked by the one
    place that opens connections.
    """

    origin: str
    region: str
    deployment: str
    site: str
    model: str
    table: str
