"""Compile `exporters`: an exporter must be inside the boundary of every region whose requests it receives."""

from __future__ import annotations

from gateway.config.endpoints import Endpoints
from gateway.config.extras import check_extra
from gateway.config.problems import KeyPath, quoted
from gateway.config.regions import Regions, facts_outside
from gateway.config.schema.file import ExporterSection
from gateway.config.secret_references import read_literal
from gateway.config.service_permits import ServiceUrl, read_service
from gateway.config.territories import read_territories
from gateway.config.validation import Draft, check_reference
from gateway.model.config_version import Exporter, Region
from providers.auth import Secret
from providers.sites import Residency

_USUAL_PATH = "/v1/traces"
_RESERVED_HEADERS = frozenset(
    "host content-length content-type content-encoding transfer-encoding connection keep-alive te trailer upgrade "
    "expect cookie user-agent accept-encoding proxy-connection proxy-authorization forwarded via x-real-ip "
    "x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
_SECRET_WORDS = ("auth", "key", "token", "secret")


def compile_exporters(draft: Draft, regions: Regions, endpoints: Endpoints) -> tuple[Exporter, ...]:
    """Return the exporters of a draft."""
    compiled: list[Exporter] = []
    for name, section in draft.config.exporters.items():
        path: KeyPath = ("exporters", name)
        check_extra(draft, path, "an exporter")
        service = read_service(
            draft, (*path, "endpoint"), section.endpoint, usual_path=_USUAL_PATH, insecure=section.insecure
        )
        stores = read_territories(draft, (*path, "stores"), section.stores)
        processes = read_territories(draft, (*path, "processes"), section.processes)
        residency = Residency(stores, processes) if stores is not None and processes is not None else None
        headers, missing = _headers(draft, path, section)
        if residency is None:
            continue
        received = _regions(draft, path, section, regions, residency)
        if service is None:
            continue
        if not _is_valid_collector(endpoints, path, service, residency):
            continue
        compiled.append(
            Exporter(
                name=name,
                permit=service.permit,
                path=service.path,
                headers=headers,
                residency=residency,
                regions=received,
                includes_unlocated=section.regions is None and len(received) == len(draft.names("regions")),
                ratio=float(section.sampling),
                missing=missing,
            )
        )
    return tuple(compiled)


def _is_valid_collector(endpoints: Endpoints, path: KeyPath, service: ServiceUrl, residency: Residency) -> bool:
    """Return whether the origin is not a host of a provider, and has the same facts wherever it is named."""
    origin, adapters = service.permit.origin, endpoints.registry.adapters
    owners = (name for name, it in adapters.items() for site in it.sites.values() if site.owns(origin))
    owner = next(owners, None)
    if owner is not None:
        endpoints.draft.error((*path, "endpoint"), f"is a host of the provider {quoted(owner)}, not a collector")
        return False
    return endpoints.agree(path, origin, residency)


def _regions(
    draft: Draft, path: KeyPath, section: ExporterSection, regions: Regions, residency: Residency
) -> frozenset[str]:
    """Return the regions whose requests the exporter receives: the ones in the section, or all that it may receive.

    Report an error for each region of the section, or each region of this cell, whose boundary excludes the exporter.
    """
    requested: list[tuple[KeyPath, Region]] = []
    for index, name in enumerate(section.regions or ()):
        region_path: KeyPath = (*path, "regions", index)
        check_reference(draft, region_path, "regions", name)
        if name in regions.by_name:
            requested.append((region_path, regions.by_name[name]))
    allowed = [name for name, region in regions.by_name.items() if residency.within(region.boundary)]
    if section.regions is None:
        cell = regions.cell
        served = cell.serves if cell is not None and cell.serves is not None else draft.names("regions")
        requested = [(path, region) for name, region in regions.by_name.items() if name in served]
    for region_path, region in requested:
        if region.name not in allowed:
            hint = _boundary_hint(allowed, is_listed=section.regions is not None)
            fact = facts_outside(residency, region.boundary)
            boundary = f"the boundary of region {quoted(region.name)} ({region.boundary})"
            message = f"{quoted(str(path[1]))} {fact}, outside {boundary}: it must not receive that region's requests"
            draft.error(region_path, message, hint)
    return frozenset(allowed if section.regions is None else [region.name for _, region in requested])


def _boundary_hint(allowed: list[str], *, is_listed: bool) -> str:
    if is_listed:
        return "remove the region, or add an exporter inside the boundary for it"
    if allowed:
        return f"list the regions that it may receive: regions: [{', '.join(allowed)}]"
    return "no region's boundary contains it; use a collector inside a boundary"


def _headers(
    draft: Draft, path: KeyPath, section: ExporterSection
) -> tuple[tuple[tuple[str, Secret], ...], tuple[str, ...]]:
    """Return the headers that are set, and the sources of the others."""
    headers: list[tuple[str, Secret]] = []
    missing: list[str] = []
    for name, text in section.headers.items():
        header_path = (*path, "headers", name)
        if name.lower() in _RESERVED_HEADERS:
            message = "is set by the gateway itself, or decides where a request goes"
            draft.error(header_path, message, "remove it", key=True)
        if any(word in name.lower() for word in _SECRET_WORDS):
            resolved = draft.secret(header_path, text, "OTLP_TOKEN")
        else:
            resolved = draft.references[text] if "${" in text else read_literal(text)
        if resolved.mistake:
            draft.error(header_path, f"{resolved.source or 'the value'} {resolved.mistake}", resolved.hint)
        elif resolved.missing:
            draft.warn(header_path, f"{resolved.source or 'the value'} {resolved.missing}: nothing is exported")
            missing.append(resolved.source or name)
        if resolved.secret is not None:
            headers.append((name.lower(), resolved.secret))
    return tuple(headers), tuple(missing)
