"""Where traces go: each exporter's place is held against the boundary of every region whose requests it is told of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from gateway.config.endpoints import StatedFacts
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.schema.file import ExporterSection
from gateway.config.secret_references import Resolution, read_literal, secret_at
from gateway.config.service_permits import ServiceUrl, read_service
from gateway.config.territories import read_territories
from gateway.config.validation import Draft, Findings
from gateway.model.config_version import Cell, Exporter, Region
from providers.auth import Secret
from providers.registry import Registry
from providers.sites import Residency

_USUAL_PATH = "/v1/traces"
_OURS = frozenset(
    "host content-length content-type content-encoding transfer-encoding connection keep-alive te trailer upgrade "
    "expect cookie user-agent accept-encoding proxy-connection proxy-authorization forwarded via x-real-ip "
    "x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
_SECRET_WORDS = ("auth", "key", "token", "secret")


def compile_exporters(
    draft: Draft,
    findings: Findings,
    regions: Regions,
    cell: Cell | None,
    stated: StatedFacts,
    registry: Registry,
    references: Mapping[str, Resolution],
) -> tuple[Exporter, ...]:
    """The exporters of a draft."""
    compiled: list[Exporter] = []
    for name, section in draft.config.exporters.items():
        path: KeyPath = ("exporters", name)
        if not _can_export():
            hint = "pip install 'assistant-gateway[otel]'"
            findings.error(path, "needs the extra `otel`, which is not installed", hint)
        service = read_service(
            findings,
            (*path, "endpoint"),
            section.endpoint,
            usual_path=_USUAL_PATH,
            insecure=section.insecure,
        )
        residency = _residency(findings, path, section)
        headers, missing = _headers(findings, path, section, references)
        if service is None or residency is None:
            continue
        if not _is_sound_place(findings, path, service, residency, stated, registry):
            continue
        told = _regions(draft, findings, path, section, regions, cell, residency)
        compiled.append(
            Exporter(
                name=name,
                permit=service.permit,
                path=service.path,
                headers=headers,
                residency=residency,
                regions=told,
                includes_unlocated=section.regions is None and len(told) == len(draft.names("regions")),
                ratio=float(section.sampling),
                missing=missing,
            )
        )
    return tuple(compiled)


def _can_export() -> bool:
    try:
        return find_spec("opentelemetry.proto.collector.trace.v1") is not None
    except ModuleNotFoundError:
        return False


def _residency(findings: Findings, path: KeyPath, section: ExporterSection) -> Residency | None:
    stores = read_territories(findings, (*path, "stores"), section.stores)
    processes = read_territories(findings, (*path, "processes"), section.processes)
    return Residency(stores, processes) if stores is not None and processes is not None else None


def _is_sound_place(
    findings: Findings,
    path: KeyPath,
    service: ServiceUrl,
    residency: Residency,
    stated: StatedFacts,
    registry: Registry,
) -> bool:
    """One origin has one set of facts, whoever names it; a vendor of models is no collector."""
    origin = service.permit.origin
    owner = next(
        (name for name, adapter in registry.adapters.items() for site in adapter.sites.values() if site.owns(origin)),
        None,
    )
    if owner is not None:
        findings.error((*path, "endpoint"), f"is a host of the provider {quoted(owner)}, not a collector")
        return False
    return stated.agree(path, origin, residency)


def _regions(
    draft: Draft,
    findings: Findings,
    path: KeyPath,
    section: ExporterSection,
    regions: Regions,
    cell: Cell | None,
    residency: Residency,
) -> frozenset[str]:
    """Whose requests it is told of: the regions that are written, else all; an error for each that this cell serves,
    or that is written, and whose boundary the exporter is not inside."""
    known = draft.names("regions")
    wanted: list[tuple[KeyPath, Region]] = []
    for index, name in enumerate(section.regions or ()):
        if name not in known and not draft.is_broken("regions"):
            findings.error((*path, "regions", index), f"unknown region {quoted(name)}", choice_hint(name, known))
        elif name in regions.by_name:
            wanted.append(((*path, "regions", index), regions.by_name[name]))
    fitting = [name for name, region in regions.by_name.items() if residency.within(region.boundary)]
    if section.regions is None:
        served = cell.serves if cell is not None and cell.serves is not None else known
        wanted = [(path, region) for name, region in regions.by_name.items() if name in served]
    for place, region in wanted:
        if region.name not in fitting:
            findings.error(
                place, _outside(path, residency, region), _mend(fitting, written=section.regions is not None)
            )
    return frozenset(fitting if section.regions is None else [region.name for _, region in wanted])


def _outside(path: KeyPath, residency: Residency, region: Region) -> str:
    does = {} if residency.stores.within(region.boundary) else {"stores": str(residency.stores)}
    does |= {} if residency.processes.within(region.boundary) else {"processes": str(residency.processes)}
    what = f"{' and '.join(does)} in {' and '.join(dict.fromkeys(does.values()))}"
    bound = f"the boundary of region {quoted(region.name)} ({region.boundary})"
    return f"{quoted(str(path[1]))} {what}, outside {bound}: it must not be told of that region's requests"


def _mend(fitting: list[str], *, written: bool) -> str:
    if written:
        return "remove the region; an exporter of its own, inside the boundary, can have it"
    if fitting:
        return f"name those that it may be told of: regions: [{', '.join(fitting)}]"
    return "no region's boundary has that place; take a collector inside one"


def _headers(
    findings: Findings, path: KeyPath, section: ExporterSection, references: Mapping[str, Resolution]
) -> tuple[tuple[tuple[str, Secret], ...], tuple[str, ...]]:
    """The headers that are set, and where the others should have come from."""
    headers: list[tuple[str, Secret]] = []
    missing: list[str] = []
    for name, text in section.headers.items():
        place = (*path, "headers", name)
        if name.lower() in _OURS:
            findings.error(
                place, "is set by the gateway itself, or chooses where a request goes", "remove it", key=True
            )
        if any(word in name.lower() for word in _SECRET_WORDS):
            found = secret_at(findings, place, text, references, "OTLP_TOKEN")
        else:
            found = references[text] if "${" in text else read_literal(text)
        if found.mistake:
            findings.error(place, f"{found.source or 'the value'} {found.mistake}", found.hint)
        elif found.missing:
            findings.warn(place, f"{found.source or 'the value'} {found.missing}: nothing is exported")
            missing.append(found.source or name)
        if found.secret is not None:
            headers.append((name.lower(), found.secret))
    return tuple(headers), tuple(missing)
