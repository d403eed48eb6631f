"""The names of 1.x that no other frozen file holds: commands, paths and headers, faces of plug-ins, the database."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from gateway.api.admin_routes import ROUTES
from gateway.cli.arguments import command_parser
from gateway.features.running import PATHS
from gateway.public_names import REQUEST_HEADERS, RESPONSE_HEADERS, names_in
from scripts.api_pages import names_of
from tests.kit.doc_pages import ROOT

PLUG_IN_MODULES = ("providers.contract", "providers.testkit", "providers.compatible")


def commands() -> dict[str, list[str]]:
    """Return the arguments of each command, and what its help states of its exit status."""
    return dict(_arguments_of(command_parser(), "gateway"))


def _arguments_of(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, list[str]]]:
    groups = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    words = [it.option_strings[-1] if it.option_strings else it.dest for it in parser._actions if it not in groups]
    stated = re.findall("Exit status: .*", " ".join(f"{parser.description} {parser.epilog or ''}".split()))
    yield name, [*(word for word in words if word != "--help"), *stated]
    for group in groups:
        for word, below in group.choices.items():
            yield from _arguments_of(below, f"{name} {word}")


def http() -> dict[str, Any]:
    """Return the paths of both listeners, and the headers of the public one."""
    document = json.loads((ROOT / "gateway/api/openapi.json").read_text("utf-8"))
    return {
        "public": sorted({*_paths_in(document), *(path.path for path in PATHS)}),
        "admin": sorted(f"{route.method} {route.path}" for route in ROUTES),
        **{
            kind: sorted(names_in(rows))
            for kind, rows in (("request", REQUEST_HEADERS), ("response", RESPONSE_HEADERS))
        },
    }


def _paths_in(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(name, str) and name.startswith("/"):
                yield name
            yield from _paths_in(value)


def plug_in() -> dict[str, list[str]]:
    """Return the names that a plug-in may import."""
    return {name: sorted(names_of(name)) for name in PLUG_IN_MODULES}


def database() -> dict[str, str]:
    """Return the hash of each migration. A published one is never changed; a new one gets a line."""
    files = sorted((ROOT / "gateway/cell/migrations").glob("*.sql"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
