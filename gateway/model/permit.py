"""Permits: the permission to open a connection to one origin, with a prompt (`Permit`) or without (`ServicePermit`)."""

from __future__ import annotations

from gateway.model.wrapper import Wrapper
from providers.value import Value


class Permit(Value, frozen=True):
    """The permission to send a prompt, bound to one region, deployment, site, model, origin and proxy.

    Only `gateway.policy.fence` creates permits (the architecture test checks this), and the one module that opens
    connections checks them.
    """

    origin: str
    region: str
    deployment: str
    site: str
    model: str
    config_version: str
    waives: str | None = None
    """For an evaluation only: the missing approval that the permit waives, in words. None for traffic."""
    proxy: str = ""
    """The origin of the proxy through which the origin must be reached. Empty if it is reached directly."""
    wrapper: Wrapper | None = None
    """The rules that change the prompt before it is sent, or None if it is sent as it is."""

    @property
    def destination(self) -> tuple[str, ...]:
        """Where the prompt goes, whichever region and version of the config permits it."""
        return self.deployment, self.origin, self.proxy, self.site, self.model


class ServicePermit(Value, frozen=True):
    """The permission to call a service that the config names, such as a collector or an issuer of tokens.

    A call under it contains no byte of a request. Only `gateway.config.service_permits` creates it, from
    the config alone (the architecture test checks this), and only `gateway.execution.service_client` uses it, so that
    no prompt can be sent under it. An empty proxy stands for a direct connection.
    """

    origin: str
    proxy: str = ""


AnyPermit = Permit | ServicePermit
