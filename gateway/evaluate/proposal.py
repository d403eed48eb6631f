"""The recommended mapping as a config: the operator's file with one route changed, compiled before it is written."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from gateway.config.compile import compile_config
from gateway.config.load import parse_document, read_config
from gateway.config.route_edit import with_route, without_schedule
from providers.registry import load_registry

__all__ = ["proposed_config", "shown_change"]


def proposed_config(path: Path, assistant: str, region: str, route: tuple[str, ...], *, demo: bool) -> str:
    """The text of the config with this route, and no schedule for it; raises ConfigRejected where the compiler refuses
    it."""
    text = read_config(path).decode("utf-8-sig")
    changed = with_route(text, str(path), assistant, region, list(route))
    changed = without_schedule(changed, str(path), assistant, region)
    document = parse_document(changed.encode(), str(path), os.environ)
    compile_config(document, registry=load_registry(), demo=demo)
    return changed


def shown_change(path: Path, changed: str) -> str:
    """The change in the form of `diff -u`."""
    before = read_config(path).decode("utf-8-sig").splitlines(keepends=True)
    after = changed.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, str(path), f"{path} (recommended)"))
