"""This installation: where it stands, which regions it serves, and where the others are served."""

from __future__ import annotations

from gateway.config.findings import Findings
from gateway.config.places import read_territory
from gateway.config.problems import choice_hint, quoted
from gateway.config.validate import Draft
from gateway.model.table import Cell
from providers.sites import OriginError, parse_origin

__all__ = ["compile_cell"]


def compile_cell(draft: Draft, findings: Findings, *, demo: bool) -> Cell | None:
    """The cell, None where none is described or it is unsound."""
    section = draft.config.cell
    if section is None:
        if not demo and not draft.is_broken("cell"):
            message = "no `cell` is described: the gateway's own place is not counted against any boundary"
            findings.warn((), message, "write cell: {territory: …}")
        return None
    territory = read_territory(findings, ("cell", "territory"), section.territory)
    regions = draft.names("regions")
    for index, name in enumerate(section.serves or ()):
        if name not in regions and not draft.is_broken("regions"):
            findings.error(("cell", "serves", index), f"unknown region {quoted(name)}", choice_hint(name, regions))
    homes = {name: _home(draft, findings, name, url) for name, url in section.homes.items()}
    serves = frozenset(section.serves) if section.serves is not None else None
    for name in homes:
        if name in regions and (serves is None or name in serves):
            findings.warn(("cell", "homes", name), f"this cell serves {quoted(name)} itself", "remove it")
    if territory is None:
        draft.broken.add(("cell",))
        return None
    return Cell(territory, serves, homes)


def _home(draft: Draft, findings: Findings, name: str, url: str) -> str:
    path = ("cell", "homes", name)
    regions = draft.names("regions")
    if name not in regions and not draft.is_broken("regions"):
        findings.error(path, f"unknown region {quoted(name)}", choice_hint(name, regions), key=True)
    try:
        origin, base = parse_origin(url)
    except OriginError as error:
        findings.error(path, f"the URL {error}")
        return ""
    if not origin.startswith("https://"):
        findings.error(path, "the URL must start with https://: clients send their keys there")
    return f"{origin}{base or ''}"
