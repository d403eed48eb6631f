"""One server has one set of facts, whichever section of a config names it, and however its address is spelt."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.config.findings import Findings
from gateway.config.problems import Path, quoted
from providers.sites import Residency

__all__ = ["StatedFacts", "server_of"]

# Whoever connects to the address of no interface reaches this machine.
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104  # nobody listens there


def server_of(origin: str) -> str:
    """The origin, with one name for those that this machine has for itself."""
    parts = urlsplit(origin)
    if parts.hostname not in _OWN_NAMES:
        return origin
    return f"{parts.scheme}://localhost" + (f":{parts.port}" if parts.port is not None else "")


@dataclass(slots=True)
class StatedFacts:
    """Where the operator says that each server stores and processes, and the section that said so first."""

    findings: Findings
    _stated: dict[str, tuple[Path, Residency]] = field(default_factory=dict)

    def agree(self, section: Path, origin: str, residency: Residency) -> bool:
        """Whether nobody has stated other facts of this server; an error if somebody has."""
        first, facts = self._stated.setdefault(server_of(origin), (section, residency))
        if facts == residency:
            return True
        kind, name = first[0], str(first[1])
        where = f"{str(kind).removesuffix('s')} {quoted(name)} (line {self.findings.line(first)})"
        message = f"{origin} stores and processes elsewhere in {where}"
        hint = "one server has one set of facts; state the same in both"
        self.findings.error((*section, "endpoint"), message, hint)
        return False
