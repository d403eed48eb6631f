"""Read the URLs of services other than providers. Only this module creates a permit to call such a service."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.config.problems import KeyPath
from gateway.config.validation import Findings
from gateway.model.permit import ServicePermit
from providers.sites import OriginError, parse_origin
from providers.value import Value


class ServiceUrl(Value, frozen=True):
    """The address of a service: a permit to connect to the origin, and the path."""

    permit: ServicePermit
    path: str


def read_service(
    findings: Findings, key_path: KeyPath, url: str, *, usual_path: str | None = None, insecure: bool | None = None
) -> ServiceUrl | None:
    """Return the service of a URL in the configuration, or None after an error has been reported.

    `usual_path` is the path for a URL without one, or None if the path is required. `insecure` allows http:// to
    another machine, and is None if the section has no such key.
    """
    try:
        origin, path = parse_origin(url)
    except OriginError as error:  # the URL may contain a password, so it is not shown
        findings.error(key_path, f"the URL {error}")
        return None
    if origin.startswith("http://") and not insecure and not is_this_machine(origin):
        hint = "use https://" if insecure is None else "use https://, or allow it with `insecure: true`"
        findings.error(key_path, "http:// to another machine can be read and changed on the way", hint)
        return None
    path = path or usual_path
    if path is None:
        findings.error(key_path, "the URL has no path", "write the whole URL")
        return None
    return ServiceUrl(permit_at(origin, ""), path)


def permit_at(origin: str, proxy: str) -> ServicePermit:
    """Return the permit to call a service at an origin, through a proxy (empty: directly)."""
    return ServicePermit(origin, proxy)


def is_this_machine(origin: str) -> bool:
    """Return whether the origin is a loopback address or `localhost`."""
    host = urlsplit(origin).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
