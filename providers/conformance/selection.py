"""Select the subjects, cases and fixtures of a run from the command-line options."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import pytest

from providers.adapter import Adapter, StatesConfirmation
from providers.conformance.cases import answer_cases, request_cases
from providers.conformance.recordings import RecordedVendor, WireCase, WireError, find_wire_cases
from providers.conformance.subject import Subject, subjects_of
from providers.registry import check_adapter, load_registry
from providers.testkit.simulator import Simulator, check_simulator, load_simulators

_WIRE_ARGUMENTS = {"wire_request": "request.json", "wire_answer": "response.json", "wire_stream": "stream.txt"}


@dataclass(frozen=True)
class Selection:
    """A subject for each model family of each adapter, and the folder of recorded fixtures (`wire`), or None."""

    families: tuple[Subject, ...]
    wire: Path | None

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """The model with the most features for each adapter and API. All models of an API answer in the same form.

        An invented model represents an adapter only if the adapter knows no models.
        """
        most_capable: dict[tuple[str, str], Subject] = {}
        for family in sorted(self.families, key=lambda family: family.is_invented):
            key = (family.adapter.name, family.facts.api)
            if key in most_capable and family.is_invented:
                continue
            if key not in most_capable or len(family.features) > len(most_capable[key].features):
                most_capable[key] = family
        return tuple(most_capable.values())

    def parameters(self, names: frozenset[str]) -> Mapping[str, Sequence[object]]:
        """Return the values of each test argument in `names` that the kit provides."""
        values: dict[str, Sequence[object]] = {}
        if "subject" in names:
            values["subject"] = self.subjects
        if "sse_subject" in names:
            values["sse_subject"] = [one for one in self.subjects if one.streams_text]
        if "family" in names:
            values["family"] = self.families
        if "request_case" in names:
            values["request_case"] = self._request_cases
        if "answer_case" in names:
            values["answer_case"] = self._answer_cases
        if "recorded_vendor" in names:
            values["recorded_vendor"] = self._recorded_vendors
        for name, kind in _WIRE_ARGUMENTS.items():
            if name in names:
                values[name] = [case for case in self._wire_cases if case.path(kind).exists()]
        return values

    @cached_property
    def _request_cases(self) -> Sequence[object]:
        return [case for family in self.families for case in request_cases(family)]

    @cached_property
    def _answer_cases(self) -> Sequence[object]:
        """The answers of the most capable models, and of other models for the features that are still missing."""
        cases = [case for subject in self.subjects for case in answer_cases(subject)]
        tested = {(subject.adapter.name, feature) for subject in self.subjects for feature in subject.features}
        for family in self.families:
            claims = {(family.adapter.name, feature) for feature in family.features}
            cases += [case for case in answer_cases(family) if (family.adapter.name, case.feature) in claims - tested]
            tested |= claims
        return cases

    @property
    def _recorded_vendors(self) -> Sequence[RecordedVendor]:
        first = {subject.adapter.name: subject for subject in reversed(self.subjects)}
        return [
            RecordedVendor(subject, tuple(case for case in self._wire_cases if case.adapter.name == name))
            for name, subject in first.items()
            if isinstance(subject.adapter, StatesConfirmation)
        ]

    @cached_property
    def _wire_cases(self) -> Sequence[WireCase]:
        if self.wire is None:
            return ()
        try:
            return find_wire_cases(self.wire, self.subjects)
        except WireError as error:
            raise pytest.UsageError(str(error)) from error


def select(
    adapters: Sequence[str], simulators: Sequence[str], wire: Path, *, wire_is_given: bool, folder: Path | None = None
) -> Selection:
    """Load the adapters and simulators that the options name.

    A `wire` that was given must exist. The `folder` is added to the import path, as `python -m` does: an adapter in
    development is not installed. Raises pytest.UsageError for a wrong option, or without an adapter with a simulator.
    """
    if adapters and folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if wire_is_given and not wire.is_dir():
        raise pytest.UsageError(f"--wire: {wire} is not a folder")
    pairs = [_named(name, index, simulators) for index, name in enumerate(adapters)] if adapters else _registered()
    return Selection(tuple(subject for pair in pairs for subject in pair), wire if wire.is_dir() else None)


def _named(name: str, index: int, simulators: Sequence[str]) -> tuple[Subject, ...]:
    try:
        adapter = check_adapter(_load(name, "--adapter"))
        if index < len(simulators):
            return subjects_of(adapter, check_simulator(_load(simulators[index], "--simulator")))
        return subjects_of(adapter, _default_simulator(name, adapter))
    except TypeError as error:
        raise pytest.UsageError(f"{name}: {error}") from error


def _default_simulator(name: str, adapter: Adapter) -> Simulator:
    """Return the simulator that is registered for the adapter, or else `SIMULATOR` in the adapter's module."""
    simulator = load_simulators().simulators.get(adapter.name)
    if simulator is None:
        module = import_module(name.partition(":")[0])
        in_module = getattr(module, "SIMULATOR", None)
        if in_module is None:
            raise pytest.UsageError(
                f"--adapter {name}: no simulator is registered for '{adapter.name}'; name one with --simulator"
            )
        simulator = check_simulator(in_module)
    return simulator


def _registered() -> list[tuple[Subject, ...]]:
    simulators = load_simulators().simulators
    adapters = load_registry().adapters
    pairs = [subjects_of(adapter, simulators[name]) for name, adapter in adapters.items() if name in simulators]
    if not pairs:
        raise pytest.UsageError("no adapter with a simulator is installed; name one with --adapter and --simulator")
    return pairs


def _load(name: str, option: str) -> object:
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise pytest.UsageError(f"{option} '{name}': must have the form MODULE:NAME, such as my_package:ADAPTER")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise pytest.UsageError(f"{option} {name}: {error}") from error
    except Exception as error:  # a third-party module can raise any exception at import
        raise pytest.UsageError(f"{option} {name}: {type(error).__name__}: {error}") from error
