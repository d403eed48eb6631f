"""Services that the config names beside the providers, and the only place where a permit to ask one is made."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.config.problems import KeyPath
from gateway.config.validation import Findings
from gateway.model.permit import ServicePermit
from providers.sites import OriginError, parse_origin


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """Where to ask: leave to connect to the origin, and the path there."""

    permit: ServicePermit
    path: str


def read_service(
    findings: Findings,
    place: KeyPath,
    url: str,
    *,
    usual_path: str | None = None,
    insecure: bool | None = None,
) -> ServiceUrl | None:
    """The service at the URL that stands at this place of the config, None after reporting why it can't be asked.

    usual_path: for a URL without one; None where there is no usual one.
    insecure: whether http:// may lead to another machine; None where the config has no such word.
    """
    try:
        origin, path = parse_origin(url)
    except OriginError as error:  # the URL may hold a password, so it is not shown
        findings.error(place, f"the URL {error}")
        return None
    if origin.startswith("http://") and not insecure and not is_this_machine(origin):
        hint = "use https://" if insecure is None else "use https://, or allow it with `insecure: true`"
        findings.error(place, "http:// to another machine can be read and changed on its way", hint)
        return None
    path = path or usual_path
    if path is None:
        findings.error(place, "the URL has no path", "write the whole URL")
        return None
    return ServiceUrl(ServicePermit(origin), path)


def is_this_machine(origin: str) -> bool:
    """Whether the origin is a loopback address, or `localhost`."""
    host = urlsplit(origin).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
