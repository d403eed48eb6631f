"""Which subjects, cases and fixtures the kit runs over, by the options of the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import pytest

from providers.adapter import Adapter
from providers.conformance.cases import answer_cases, request_cases
from providers.conformance.recordings import WireCase, WireError, find_wire_cases
from providers.conformance.subject import Subject, subjects_of
from providers.registry import check_adapter, load_registry
from providers.testkit.simulator import Simulator, check_simulator, load_simulators

__all__ = ["Selection", "select"]

_WIRE_ARGUMENTS = {"wire_request": "request.json", "wire_answer": "response.json", "wire_stream": "stream.txt"}


@dataclass(frozen=True)
class Selection:
    """families: every model family of every adapter. wire: the folder of recorded fixtures, None without one."""

    families: tuple[Subject, ...]
    wire: Path | None

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """The ablest model of each adapter and path of its API: answers look the same for every model there."""
        ablest: dict[tuple[str, str], Subject] = {}
        for family in self.families:
            key = (family.adapter.name, family.facts.api)
            if key not in ablest or len(family.features) > len(ablest[key].features):
                ablest[key] = family
        return tuple(ablest.values())

    def parameters(self, wanted: frozenset[str]) -> Mapping[str, Sequence[object]]:
        """The values of each argument by which a case of the kit asks to be run over something."""
        known: dict[str, Sequence[object]] = {}
        if "subject" in wanted:
            known["subject"] = self.subjects
        if "sse_subject" in wanted:
            known["sse_subject"] = [one for one in self.subjects if one.streams_text]
        if "family" in wanted:
            known["family"] = self.families
        if "asking" in wanted:
            known["asking"] = self._request_cases
        if "answering" in wanted:
            known["answering"] = self._answer_cases
        for name, kind in _WIRE_ARGUMENTS.items():
            if name in wanted:
                known[name] = [case for case in self._wire_cases if case.path(kind).exists()]
        return known

    @cached_property
    def _request_cases(self) -> Sequence[object]:
        return [case for family in self.families for case in request_cases(family)]

    @cached_property
    def _answer_cases(self) -> Sequence[object]:
        return [case for subject in self.subjects for case in answer_cases(subject)]

    @cached_property
    def _wire_cases(self) -> Sequence[WireCase]:
        if self.wire is None:
            return ()
        try:
            return find_wire_cases(self.wire, self.subjects)
        except WireError as error:
            raise pytest.UsageError(str(error)) from error


def select(
    adapters: Sequence[str], dialects: Sequence[str], wire: Path, *, wire_is_given: bool, folder: Path | None = None
) -> Selection:
    """What the options name; raises pytest.UsageError where that is nothing.

    folder: where modules are looked for too, as `python -m` does: an adapter in the making is installed nowhere.
    """
    if adapters and folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if wire_is_given and not wire.is_dir():
        raise pytest.UsageError(f"--wire: {wire} is no folder")
    pairs = [_named(name, index, dialects) for index, name in enumerate(adapters)] if adapters else _registered()
    return Selection(tuple(subject for pair in pairs for subject in pair), wire if wire.is_dir() else None)


def _named(name: str, index: int, dialects: Sequence[str]) -> tuple[Subject, ...]:
    try:
        adapter = check_adapter(_load(name, "--adapter"))
        if index < len(dialects):
            return subjects_of(adapter, check_simulator(_load(dialects[index], "--dialect")))
        return subjects_of(adapter, _usual_dialect(name, adapter))
    except TypeError as error:
        raise pytest.UsageError(f"{name}: {error}") from error


def _usual_dialect(name: str, adapter: Adapter) -> Simulator:
    """The dialect that is registered for the adapter, else the one that its own module calls `DIALECT`."""
    dialect = load_simulators().dialects.get(adapter.name)
    if dialect is None:
        beside = getattr(import_module(name.partition(":")[0]), "DIALECT", None)
        if beside is None:
            raise pytest.UsageError(
                f"--adapter {name}: no dialect is registered for '{adapter.name}'; name one by --dialect"
            )
        dialect = check_simulator(beside)
    return dialect


def _registered() -> list[tuple[Subject, ...]]:
    known = load_simulators().dialects
    pairs = [subjects_of(adapter, known[name]) for name, adapter in load_registry().adapters.items() if name in known]
    if not pairs:
        raise pytest.UsageError("no adapter with a dialect is installed; name one by --adapter and --dialect")
    return pairs


def _load(name: str, option: str) -> object:
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise pytest.UsageError(f"{option} takes MODULE:NAME, such as my_package:ADAPTER, not '{name}'")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise pytest.UsageError(f"{option} {name}: {error}") from error
    except Exception as error:  # a stranger's module can raise anything at import
        raise pytest.UsageError(f"{option} {name}: {type(error).__name__}: {error}") from error
