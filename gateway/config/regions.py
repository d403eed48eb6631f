"""Compile `regions`, the blocked territories and `cell`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from gateway.config.age_bands import compile_ages
from gateway.config.problems import KeyPath, quoted
from gateway.config.region_text import RegionTextCompiler
from gateway.config.schema.location import RegionSection
from gateway.config.territories import listed, read_territories, read_territory
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.config_version import Cell, Region
from gateway.model.deployment import Deployment
from gateway.model.parts import NO_PARTS
from providers.sites import OriginError, Residency, parse_origin
from providers.territories import NOWHERE, Places
from providers.value import Value

_RESERVED = "refuse"
RegionPart: TypeAlias = Callable[[Draft, RegionSection, Region], Region]
"""Returns a compiled region with the values that a feature has from its section."""
AS_WRITTEN = RegionSection.model_fields.keys() & {it.name for it in fields(Region)} - {
    "territories",
    "boundary",
    "transit",
    "log_prompts",
}
"""The keys of a region that nothing resolves: the compiled region has their values under the same names."""


def compile_cell(draft: Draft, *, demo: bool) -> Cell | None:
    """Return the cell, or None if there is none or it is invalid."""
    section = draft.config.cell
    if section is None:
        if not demo and not draft.is_broken("cell"):
            message = "there is no `cell`: the gateway's own location is not checked against any boundary"
            draft.warn((), message, "write cell: {territory: …}")
        return None
    territory = read_territory(draft, ("cell", "territory"), section.territory)
    regions = draft.names("regions")
    for index, name in enumerate(section.serves or ()):
        check_reference(draft, ("cell", "serves", index), "regions", name)
    homes = {name: _home(draft, name, url) for name, url in section.homes.items()}
    serves = frozenset(section.serves) if section.serves is not None else None
    for name in homes:
        if name in regions and (serves is None or name in serves):
            draft.warn(("cell", "homes", name), f"this cell serves {quoted(name)} itself", "remove it")
    if territory is None:
        draft.broken.add(("cell",))
        return None
    return Cell(territory, serves, homes, section.name or "")


def _home(draft: Draft, name: str, url: str) -> str:
    path = ("cell", "homes", name)
    check_reference(draft, path, "regions", name, key=True)
    try:
        origin, base = parse_origin(url)
    except OriginError as error:
        draft.error(path, f"the URL {error}")
        return ""
    if not origin.startswith("https://"):
        draft.error(path, "the URL must start with https://, because clients send their keys there")
    return f"{origin}{base or ''}"


class Regions(Value, frozen=True):
    """The valid regions. `default` is the region of all territories that no region names, or None."""

    by_name: Mapping[str, Region]
    by_territory: Mapping[str, Region]
    default: Region | None
    blocked: Places
    cell: Cell | None


def compile_regions(draft: Draft, cell: Cell | None, parts: Sequence[RegionPart] = ()) -> Regions:
    """Return the valid regions of a draft. `parts` add the values of features."""
    blocked = _blocked(draft)
    texts = RegionTextCompiler(draft)
    by_name: dict[str, Region] = {}
    by_territory: dict[str, Region] = {}
    default: Region | None = None
    for name, section in draft.config.regions.items():
        region = _region(draft, name, section, cell, texts)
        if region is None:
            continue
        for part in parts:
            region = part(draft, section, region)
        by_name[name] = region
        path = ("regions", name, "territories")
        if region.territories.included is None:
            if default is not None:
                other = f"region '{default.name}' (line {draft.line(('regions', default.name))}) already has it"
                draft.error(path, f'"*" is allowed in one region only; {other}', "name the territories of this one")
            default = default or region
        else:
            _add_territories(draft, path, section, region, by_territory, blocked)
    return Regions(by_name, by_territory, default, blocked, cell)


def _blocked(draft: Draft) -> Places:
    words = draft.config.blocked
    blocked = read_territories(draft, ("blocked",), words) if words else None
    if blocked is not None and blocked.included is None:
        draft.error(("blocked",), '"*" blocks every territory', "name the territories")
        return NOWHERE
    return blocked or NOWHERE


def _region(
    draft: Draft, name: str, section: RegionSection, cell: Cell | None, texts: RegionTextCompiler
) -> Region | None:
    path = ("regions", name)
    if name == _RESERVED:
        draft.error(path, f"`{_RESERVED}` can't be the name of a region", "it is a value of `location.unknown`")
    territories = _territories(draft, (*path, "territories"), section.territories)
    boundary = read_territories(draft, (*path, "boundary"), section.boundary)
    transits = [read_territory(draft, (*path, "transit", at), word) for at, word in enumerate(section.transit or [])]
    accepted = frozenset(code for code in transits if code is not None)
    if territories is None or boundary is None or None in transits:
        return None
    transit = NOWHERE if draft.is_broken("cell") else _transit_of_cell(draft, name, boundary, accepted, cell)
    region_text = texts.of(name, section, territories)
    as_written: dict[str, Any] = {key: getattr(section, key) for key in AS_WRITTEN}
    return Region(
        name,
        territories,
        boundary,
        transit,
        section.approvals == "required",
        region_text,
        keeps_receipts=cell is None or (_is_served(name, cell) and is_cell_inside(cell, boundary)),
        log_prompts=section.log_prompts and _may_log(draft, name, boundary, cell),
        **as_written,
        parts=NO_PARTS.having(compile_ages(draft, name, section)),
    )


def _may_log(draft: Draft, name: str, boundary: Places, cell: Cell | None) -> bool:
    """Return whether prompts of the region go to this cell's log; report a cell that may be outside the boundary."""
    if draft.is_broken("cell") or not _is_served(name, cell):
        return False
    if not is_cell_inside(cell, boundary):
        draft.error(
            ("regions", name, "log_prompts"),
            f"the log is written where the gateway runs, which is not known to be inside the boundary ({boundary})",
            "set `cell: {territory: …}`, or remove this key",
        )
    return True


def _is_served(name: str, cell: Cell | None) -> bool:
    return cell is None or cell.serves is None or name in cell.serves


def is_cell_inside(cell: Cell | None, boundary: Places) -> bool:
    """Return whether the gateway is known to run inside the boundary."""
    return cell is not None and Places(frozenset({cell.territory})).within(boundary)


def facts_outside(residency: Residency, boundary: Places) -> str:
    """Return which facts of a residency are outside a boundary, such as `stores in US`, or an empty text."""
    outside = {} if residency.stores.within(boundary) else {"stores": str(residency.stores)}
    outside |= {} if residency.processes.within(boundary) else {"processes": str(residency.processes)}
    return f"{' and '.join(outside)} in {' and '.join(dict.fromkeys(outside.values()))}" if outside else ""


def outside_boundary(region: Region, deployment: Deployment) -> str:
    """Return a message that explains how a deployment leaves the boundary of a region."""
    fact = facts_outside(deployment.residency, region.boundary)
    if deployment.proxy is not None and not deployment.proxy.territory.within(region.boundary):
        fact += f"{' and ' if fact else ''}is called through a proxy in {deployment.proxy.territory}"
    place = deployment.sign_in.outside(region.boundary) if deployment.sign_in is not None else None
    if place is not None and deployment.sign_in is not None:
        where = "which may be anywhere" if place.places.is_anywhere else f"in {place.places}"
        fix = f" (in `sign_ins.{deployment.sign_in.name}`, {place.fix})" if place.fix else ""
        fact += f"{' and ' if fact else ''}signs in at {place.host}, {where}{fix}"
    outside = f"outside the boundary of region {quoted(region.name)} ({region.boundary})"
    return f"{quoted(deployment.name)} {fact}, {outside}{_cause_at_site(region, deployment)}"


def _cause_at_site(region: Region, deployment: Deployment) -> str:
    """Return whether the site or the model is the cause, at a vendor that keeps some models in narrower places."""
    sites = deployment.adapter.sites.values()
    if not any(site.scopes for site in sites) or not facts_outside(deployment.residency, region.boundary):
        return ""
    if fitting := [it.name for it in sites if it.residency_of(deployment.model).within(region.boundary)]:
        return f"; the site is the cause: this model stays inside at {', '.join(fitting)}"
    inside = [
        f"{', '.join(scope.models)} at {site.name}"
        for site in sites
        for scope in site.scopes
        if scope.residency.within(region.boundary)
    ]
    return f"; the model is the cause: {'; '.join(inside)} stay inside" if inside else ""


def boundary_fix(region: Region, deployments: Mapping[str, Deployment]) -> str:
    """Return the hint for a deployment that leaves the boundary."""
    inside = [name for name, other in deployments.items() if other.within(region.boundary)]
    if inside:
        return f"use one that stays inside: {', '.join(inside[:4])}"
    return f"use a site inside the boundary, or widen `regions.{region.name}.boundary`"


def _territories(findings: Findings, path: KeyPath, words: list[str]) -> Places | None:
    territories = read_territories(findings, path, words)
    if territories is None:
        return None
    if territories.included is None and len(words) > 1:
        message = '"*" means every territory that no other region names, and must be the only entry'
        findings.error(path, message, "to leave some out, give them a region of their own or list them in `blocked`")
        return None
    if territories.excluded:
        message = f"{listed(territories.excluded)} can't be excluded: a part belongs to its country's region"
        findings.error(path, message, "list it in another region or in `blocked` instead")
        return None
    return territories


def _transit_of_cell(
    findings: Findings, name: str, boundary: Places, accepted: frozenset[str], cell: Cell | None
) -> Places:
    """Return the territory of the cell if it is outside the boundary; report that `transit` does not accept it."""
    path = ("regions", name)
    own = cell.territory if cell is not None and _is_served(name, cell) else None
    outside = own is not None and not Places(frozenset({own})).within(boundary)
    for code in sorted(accepted - {own}):
        reason = f"is not where this cell runs ({own})" if own else "has no effect: no cell serves the region"
        findings.warn((*path, "transit"), f"{code} {reason}", "remove it")
    if own in accepted and not outside:
        findings.warn((*path, "transit"), f"{own} is already inside the boundary", "remove it")
    if outside and own not in accepted:
        message = f"the gateway itself runs in {own}, outside this region's boundary ({boundary})"
        findings.error(path, message, f"accept it with `transit: [{own}]`, or leave the region out of `cell.serves`")
    return Places(frozenset({own})) if own is not None and outside else NOWHERE


def _add_territories(
    findings: Findings,
    path: KeyPath,
    section: RegionSection,
    region: Region,
    by_territory: dict[str, Region],
    blocked: Places,
) -> None:
    """Add the region's territories to `by_territory`. Report each word with blocked territories or with taken ones."""
    for index, word in enumerate(section.territories):
        if word.startswith("!"):
            continue
        named = read_territories(findings, (*path, index), [word])
        own = (region.territories.included or frozenset()) & ((named and named.included) or frozenset())
        if blocked_codes := {code for code in own if blocked.contains(code)}:
            line = findings.line(("blocked",))
            message = f"{listed(blocked_codes)} is blocked (line {line})"
            hint = "remove it there or here"
            if word.startswith("@"):
                hint = f'remove it there, or exclude it here: "!{min(blocked_codes)}"'
            findings.error((*path, index), message, hint)
        taken: dict[str, set[str]] = {}
        for code in own:
            holder = by_territory.setdefault(code, region)
            if holder is not region:
                taken.setdefault(holder.name, set()).add(code)
        for other, codes in taken.items():
            line = findings.line(("regions", other, "territories"))
            message = f"{listed(codes)} is already in region '{other}' (line {line})"
            findings.error((*path, index), message, "a territory is in one region; remove it from one of them")


def check_place(draft: Draft, path: KeyPath, territory: str, regions: Regions, keeps: str) -> None:
    """Report each region of this cell whose metadata would be kept outside its boundary.

    Of a region with `transit`, the ledger is kept in the territory of the cell.

    `keeps` is the kind of data, as the beginning of the message, such as `rows about`. If the draft's cell is invalid,
    nothing is reported.
    """
    if draft.is_broken("cell"):
        return
    place, cell = Places(frozenset({territory})), regions.cell
    for name, region in regions.by_name.items():
        is_served = cell is None or cell.serves is None or name in cell.serves
        is_accepted = region.transit.included is not None and region.transit.contains(territory)
        if is_served and not is_accepted and not place.within(region.boundary):
            message = f"{keeps} requests of region {quoted(name)} would be kept in {territory}, outside its boundary"
            hint = "use a server inside the boundary, or leave the region to another cell (`cell.serves`)"
            draft.error(path, f"{message} ({region.boundary})", hint)
