"""The command `gateway evaluate`. Its libraries are in the extra `evaluate`, and only its functions import them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.terminal import compile_file, read_report, settings_of
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.model.config_version import ConfigVersion


_OK, _WORSE = 0, 1
_COMMON = ("region", "assistant", "out", "dry_run", "fresh")
_EXTRA = "pip install jsonschema numpy rich scipy"
_LIBRARIES = frozenset({"jinja2", "jsonschema", "numpy", "rich", "scipy"})


def evaluate(options: argparse.Namespace) -> int:
    """Measure candidates, score recorded shadow answers, or compare two runs (`gateway evaluate`)."""
    try:
        return _compare(*options.compare) if options.compare else _evaluate(options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        raise CommandError(f"evaluations need {error.name}: {_EXTRA}") from None


def _evaluate(options: argparse.Namespace) -> int:
    from evaluation.run import Options, OptionsError, first_exception, run_evaluation
    from evaluation.sheets import SheetError
    from evaluation.simulation import SimulationFailed
    from evaluation.store import StoreError
    from gateway.assembly.usage import command_accounting
    from gateway.config.problems import ConfigRejected

    missing = [name for name in ("region", "out") if not getattr(options, name)]
    if missing:
        raise CommandError(f"--{missing[0]} is missing (`gateway evaluate --help` has an example)")
    try:
        if options.shadow:
            return _score_shadow(options)
        names = (name.strip() for name in (options.candidates or "").split(","))
        given = Options(
            config=settings_of(options).config,
            suite=options.suite or options.region or "",
            candidates=tuple(dict.fromkeys(filter(None, names))),
            usage=partial(command_accounting, settings_of(options).state_dir),
            **{name: getattr(options, name) for name in (*_COMMON, "seed", "sheet", "sheet_items", "marks")},
        )
        return run_evaluation(given, _compiler(options))
    except (ConfigRejected, OptionsError, SheetError, SimulationFailed, StoreError) as error:
        raise CommandError(str(error)) from None
    except ExceptionGroup as group:  # of the questions that were asked concurrently
        first = first_exception(group)
        if not isinstance(first, StoreError):
            raise
        raise CommandError(str(first)) from None


def _compiler(options: argparse.Namespace) -> Callable[[Mapping[tuple[str, str], str] | None], ConfigVersion]:
    config = settings_of(options).config
    return lambda origins: compile_file(config, simulators=origins).config


def _score_shadow(options: argparse.Namespace) -> int:
    from evaluation.recorded import ShadowOptions, run_shadow
    from gateway.assembly.usage import command_accounting

    if options.candidates or options.seed is not None:
        raise CommandError("--shadow only reads recorded answers: leave out --candidates and --seed")
    usage, common = partial(command_accounting, options.shadow), {name: getattr(options, name) for name in _COMMON}
    given = ShadowOptions(state=options.shadow, suite=options.suite, usage=usage, **common)
    return run_shadow(given, _compiler(options))


def _compare(old: Path, new: Path) -> int:
    from evaluation.drift import NotComparable, compare_runs
    from evaluation.texts import visible_text

    try:
        lines, is_worse = compare_runs(read_report(old), read_report(new))
    except NotComparable as error:
        raise CommandError(f"the two runs can't be compared: {error}") from None
    print(visible_text("\n".join(lines)))
    return _WORSE if is_worse else _OK
