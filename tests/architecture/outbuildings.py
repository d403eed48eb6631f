"""The outbuildings: rooms that a reader of the core need not know, and the files of the core that open each of them.

A file of the core opens an outbuilding if it imports a module of it, of any kind of import. `DOORS` has the most files
that may do so.

python -m tests.architecture.outbuildings
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tests.architecture.source_tree import ROOT, Module, modules, our_imports


@dataclass(frozen=True)
class Outbuilding:
    """The rooms of an outbuilding, as a pattern of the paths of its files, and the most files of the core that open it.

    An outbuilding has a room in each layer that it needs: the section that it compiles is in `config`.
    """

    rooms: str
    doors: int


OUTBUILDINGS = {
    "vendors": Outbuilding(r"providers/vendors/(anthropic|bedrock|dashscope|gemini)/", 0),
    "dialects": Outbuilding(r"gateway/api/dialects/(completions|(gemini|messages|responses)/)", 1),
    "features": Outbuilding(
        r"gateway/features/(?!__init__|feature\.|running|configuration)|gateway/cli/(marks|redact)\.py", 2
    ),
    "evaluation": Outbuilding(r"evaluation/|gateway/cli/evaluate", 0),
    "doctor": Outbuilding(r"gateway/cli/(doctor|asked_capabilities|check_result|installed_files)", 0),
    "litellm": Outbuilding(r"gateway/litellm/", 1),
    "cell": Outbuilding(
        r"gateway/cell/|gateway/changes/cell|gateway/config/stores|gateway/cli/(cell|database)"
        r"|gateway/features/duties/shared_times",
        6,
    ),
    "console": Outbuilding(r"gateway/console/|gateway/server/demo|gateway/api/front_page", 2),
    "websocket": Outbuilding(r"gateway/(api/websocket/|server/websocket|model/websocket)", 4),
    "inputs": Outbuilding(
        r"providers/inputs/|gateway/(inputs|api/inputs)/|gateway/config/input_routes"
        r"|providers/testkit/simulated_(inputs|audio)|providers/conformance/test_(inputs|decisions|audio)",
        6,
    ),
    "identity": Outbuilding(
        r"gateway/identity/|providers/sign_in/|gateway/model/(sign_in|client_token)\.py"
        r"|gateway/config/(sign_ins|client_tokens|schema/sign_in)\.py|providers/testkit/issuers",
        7,
    ),
    "handover": Outbuilding(r"gateway/server/(handover|takeover)|gateway/cli/restart", 2),
    "kit": Outbuilding(
        r"providers/(conformance|testkit)/|providers/.*simulat|gateway/server/(simulation|fault_switch)", 3
    ),
    "evidence": Outbuilding(
        r"gateway/(state|assembly|cli)/(receipts|audit)|gateway/cli/(evidence|approval_file|past_requests)", 6
    ),
}
MOST_DOORS = 40
"""The most files of the core that open any of them, together."""
MOST_CORE_LINES = 80_158


def place_of(module: Module) -> str:
    """Return the outbuilding to which a module belongs, or `core`."""
    path = str(module.path.relative_to(ROOT))
    return next((name for name, it in OUTBUILDINGS.items() if re.match(it.rooms, path)), "core")


@cache
def doors() -> Mapping[str, frozenset[str]]:
    """Return the modules of the core that open each outbuilding."""
    found: dict[str, set[str]] = {name: set() for name in OUTBUILDINGS}
    for here, there, _ in our_imports():
        if place_of(here) == "core" and (place := place_of(there)) != "core":
            found[place].add(here.name)
    return {name: frozenset(openers) for name, openers in found.items()}


def lines_of(place: str) -> int:
    """Return the lines of Python of an outbuilding, or of the core."""
    return sum(module.lines for module in modules().values() if place_of(module) == place)


def main() -> int:
    """Print the table."""
    print(f"{'outbuilding':12} {'doors':>5} {'most':>5} {'lines':>7}  opened by")
    for name, it in OUTBUILDINGS.items():
        openers = doors()[name]
        print(f"{name:12} {len(openers):5} {it.doors:5} {lines_of(name):7,}  {', '.join(sorted(openers))}")
    every = sum(map(len, doors().values()))
    print(f"{'together':12} {every:5} {MOST_DOORS:5}  the core has {lines_of('core'):,} lines of {MOST_CORE_LINES:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
