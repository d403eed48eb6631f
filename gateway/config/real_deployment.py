"""The real deployment that `gateway demo --with` adds to the simulated ones of a demo.

It is added to the values of each version that the demo compiles, never to the file: a file with `demo: true` cannot
name a real provider. It has the facts and the fence of its site.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from gateway.config.loading import Document
from gateway.config.operator_catalogue import is_name_of, meant_provider, provider_hint
from gateway.config.problems import ConfigRejected, Problem, choice_hint, quoted
from gateway.config.secret_references import resolve
from providers.json_values import as_map, read_map, read_str
from providers.registry import Registry
from providers.sites import Residency
from providers.territories import TerritoryError, parse_places
from providers.value import Value, replace

_SITE_SEPARATOR = ":"


class RealDeployment(Value, frozen=True):
    """A real deployment of a demo, with the environment variable that has its key."""

    provider: str
    site: str
    key_variable: str

    @property
    def name(self) -> str:
        """The name of the deployment in the demo."""
        return f"real-{self.provider}"


def real_deployment(text: str, registry: Registry) -> RealDeployment:
    """Return the deployment that `PROVIDER` or `PROVIDER:SITE` names. Raises ValueError, which names the possible ones.

    The site of an ordinary key is the first one of the provider, and its variable has the key.
    """
    word, _, site = text.lower().partition(_SITE_SEPARATOR)
    meant = meant_provider(word, registry) if word else None
    adapter = registry.adapters.get(meant) if meant is not None else None
    if meant is None or adapter is None or not is_name_of(word, meant, registry):
        raise ValueError(f"unknown provider {quoted(word)}; {provider_hint(word, registry)}")
    if not adapter.sites:
        raise ValueError(f"{meant} has no site of its own; write a config for it: `gateway init`")
    if site and site not in adapter.sites:
        raise ValueError(f"unknown site {quoted(site)} of {meant}; {choice_hint(site, adapter.sites)}")
    usual = next(iter(adapter.sites.values()))
    return RealDeployment(meant, site or usual.name, usual.api_key_env)


def add_real_deployment(
    document: Document, real: RealDeployment, registry: Registry, environ: Mapping[str, str]
) -> Document:
    """Return the document with the deployment, as the first step of each route whose boundary it stays inside.

    The version and the stored text of the file remain. Its model is that of the first deployment of its provider.
    Raises ConfigRejected if the file has a deployment of this name, or none of this provider.
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
    model = _model(deployments, real.provider)
    if model is None:
        message = f"have no deployment of {real.provider}, so `--with` has no model to ask"
        raise ConfigRejected([Problem(source.file, *source.position(("deployments",)), ("deployments",), message)])
    key = f"${{{real.key_variable}}}"
    residency = registry.adapters[real.provider].sites[real.site].residency_of(model)
    deployments[real.name] = {
        **{"provider": real.provider, "model": model, "endpoint": real.site, "api_key": key},
        **_approvals(deployments, real),
    }
    for route in _routes_inside(values, residency):
        route.insert(0, real.name)
    references = {**document.references, key: resolve(key, environ)}
    return replace(document, source=replace(source, values=values), references=references, real=frozenset({real.name}))


def _model(deployments: Mapping[str, Any], provider: str) -> str | None:
    sections = map(as_map, deployments.values())
    models = (read_str(section, "model") for section in sections if section.get("provider") == provider)
    return next((model for model in models if model is not None), None)


def _approvals(deployments: Mapping[str, Any], real: RealDeployment) -> dict[str, Any]:
    """Return the approvals of the simulated deployment at the same site.

    The demo invents them, for itself only: it is reachable from this machine alone.
    """
    for section in map(as_map, deployments.values()):
        is_same = (section.get("provider"), section.get("simulates")) == (real.provider, real.site)
        if is_same and "approvals" in section:
            return {"approvals": section["approvals"]}
    return {}


def _routes_inside(values: Mapping[str, Any], residency: Residency) -> list[list[Any]]:
    """Return the routes of regions whose boundary contains the residency.

    A route with a schedule must begin with its weighted step, so it is left out. Values of a wrong type are left out
    too; the compiler reports them.
    """
    regions = read_map(values, "regions")
    found: list[list[Any]] = []
    for assistant in map(as_map, read_map(values, "assistants").values()):
        scheduled = read_map(assistant, "schedules")
        for name, route in read_map(assistant, "routes").items():
            if isinstance(route, list) and name not in scheduled and _is_inside(residency, read_map(regions, name)):
                found.append(route)
    return found


def _is_inside(residency: Residency, region: Mapping[str, object]) -> bool:
    boundary = region.get("boundary")
    words = [boundary] if isinstance(boundary, str) else boundary
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return False
    try:
        return residency.within(parse_places(words))
    except TerritoryError:
        return False
