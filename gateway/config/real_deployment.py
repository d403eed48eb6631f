"""The real deployment that `gateway demo --with` adds to the simulated ones of a demo.

It is added to the values of each version that the demo compiles, never to the file: a file with `demo: true` cannot
name a real provider. Its facts and its fence are those of its site.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from gateway.config.loading import Document
from gateway.config.problems import ConfigRejected, Problem, quoted
from gateway.config.secret_references import resolve
from providers.registry import Registry
from providers.sites import Residency
from providers.territories import TerritoryError, parse_places

_SITE_SEPARATOR = ":"


@dataclass(frozen=True, slots=True)
class RealDeployment:
    """A real deployment of a demo.

    Attributes:
        site: The name of the provider's site.
        key_variable: The environment variable that has the key.
    """

    provider: str
    site: str
    model: str
    key_variable: str

    @property
    def name(self) -> str:
        """The name of the deployment in the demo."""
        return f"real-{self.provider}"


_OFFERED = {
    "openai": RealDeployment("openai", "global", "gpt-6-luna", "OPENAI_API_KEY"),
    "qwen": RealDeployment("dashscope", "cn-beijing", "qwen3-max", "DASHSCOPE_API_KEY"),
    "gemini": RealDeployment("gemini", "global", "gemini-3.8-flash", "GEMINI_API_KEY"),
}
_OFFERED["dashscope"] = _OFFERED["qwen"]

OFFERED_NAMES = tuple(sorted(_OFFERED))
"""The providers that `gateway demo --with` accepts."""


def real_deployment(text: str, registry: Registry) -> RealDeployment:
    """Return the deployment that `PROVIDER` or `PROVIDER:SITE` names.

    Raises:
        ValueError: There is no such provider or site. The message names the possible ones.
    """
    name, _, site = text.lower().partition(_SITE_SEPARATOR)
    found = _OFFERED.get(name)
    if found is None:
        raise ValueError(f"{quoted(name)} is not one of {', '.join(OFFERED_NAMES)}")
    sites = registry.adapters[found.provider].sites
    if site and site not in sites:
        raise ValueError(f"{quoted(site)} is not a site of {found.provider}; there are {', '.join(sorted(sites))}")
    return replace(found, site=site) if site else found


def add_real_deployment(
    document: Document, real: RealDeployment, registry: Registry, environ: Mapping[str, str]
) -> Document:
    """Return the document with the deployment, as the first step of each route whose boundary it stays inside.

    The version and the stored text remain those of the file.

    Raises:
        ConfigRejected: The file has a deployment of this name.
    """
    source = document.source
    values: dict[str, Any] = deepcopy(source.values)
    deployments = values.get("deployments")
    if not isinstance(deployments, dict):
        return document
    if real.name in deployments:
        line, column = source.position(("deployments", real.name), key=True)
        message = "is the name of the deployment that `--with` adds"
        raise ConfigRejected([Problem(source.file, line, column, ("deployments", real.name), message, "rename it")])
    key = f"${{{real.key_variable}}}"
    residency = registry.adapters[real.provider].sites[real.site].residency_of(real.model)
    deployments[real.name] = {
        **{"provider": real.provider, "model": real.model, "endpoint": real.site, "api_key": key},
        **_approvals(deployments, real),
    }
    for route in _routes_inside(values, residency):
        route.insert(0, real.name)
    references = {**document.references, key: resolve(key, environ)}
    return replace(document, source=replace(source, values=values), references=references, real=frozenset({real.name}))


def _approvals(deployments: Mapping[str, Any], real: RealDeployment) -> dict[str, Any]:
    """Return the approvals of the simulated deployment at the same site.

    The demo invents them, for itself only: it is reachable from this machine alone.
    """
    for section in deployments.values():
        if not isinstance(section, dict) or "approvals" not in section:
            continue
        if (section.get("provider"), section.get("simulates")) == (real.provider, real.site):
            return {"approvals": section["approvals"]}
    return {}


def _routes_inside(values: Mapping[str, Any], residency: Residency) -> list[list[Any]]:
    """Return the routes of regions whose boundary contains the residency.

    A route with a schedule must begin with its weighted step, so it is left out. Values of a wrong type are left out
    too; the compiler reports them.
    """
    regions, assistants = values.get("regions"), values.get("assistants")
    if not isinstance(regions, dict) or not isinstance(assistants, dict):
        return []
    found: list[list[Any]] = []
    for assistant in assistants.values():
        routes = assistant.get("routes") if isinstance(assistant, dict) else None
        scheduled = assistant.get("schedules") or {} if isinstance(assistant, dict) else {}
        for name, route in routes.items() if isinstance(routes, dict) else ():
            if isinstance(route, list) and name not in scheduled and _is_inside(residency, regions.get(name)):
                found.append(route)
    return found


def _is_inside(residency: Residency, region: object) -> bool:
    boundary = region.get("boundary") if isinstance(region, dict) else None
    words = [boundary] if isinstance(boundary, str) else boundary
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return False
    try:
        return residency.within(parse_places(words))
    except TerritoryError:
        return False
