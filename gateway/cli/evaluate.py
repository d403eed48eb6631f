"""The command `gateway evaluate`. Its libraries are in the extra `evaluate`, and only its functions import them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.terminal import compile_file, settings_of
from gateway.files import open_file
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from evaluation.run import Compile
    from gateway.model.config_version import ConfigVersion


_OK, _WORSE = 0, 1
_EXTRA = 'pip install "assistant-gateway[evaluate]"'
_LIBRARIES = frozenset({"jinja2", "jsonschema", "matplotlib", "numpy", "rich", "scipy"})


def evaluate(options: argparse.Namespace) -> int:
    """Measure candidates, score recorded shadow answers, or compare two runs (`gateway evaluate`)."""
    try:
        return _compare(*options.compare) if options.compare else _evaluate(options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        raise CommandError(f"evaluations need {error.name}: {_EXTRA}") from None


def _evaluate(options: argparse.Namespace) -> int:
    from evaluation.human_marks import MarksError
    from evaluation.run import OptionsError, first_exception
    from evaluation.run_store import StoreError
    from evaluation.simulation import SimulationFailed
    from gateway.config.problems import ConfigRejected

    config = settings_of(options).config

    def compile_with(origins: Mapping[tuple[str, str], str] | None) -> ConfigVersion:
        return compile_file(config, simulators=origins).config

    required = ("region", "out") if options.shadow else ("region", "candidates", "out")
    missing = [name for name in required if not getattr(options, name)]
    if missing:
        raise CommandError(f"--{missing[0]} is missing (`gateway evaluate --help` has an example)")
    try:
        return _run(options, config, compile_with)
    except ConfigRejected as error:
        raise CommandError(str(error)) from None
    except (MarksError, OptionsError, SimulationFailed, StoreError) as error:
        raise CommandError(str(error)) from None
    except ExceptionGroup as group:  # of the questions that were asked concurrently
        first = first_exception(group)
        if not isinstance(first, StoreError):
            raise
        raise CommandError(str(first)) from None


def _run(options: argparse.Namespace, config: Path, compile_with: Compile) -> int:
    from evaluation.run import EvaluateOptions, OptionsError, run_evaluation
    from evaluation.shadow_run import ShadowOptions, run_shadow
    from gateway.assembly.usage import command_accounting

    if options.shadow:
        if options.candidates or options.seed is not None:
            raise OptionsError("--shadow only reads recorded answers: leave out --candidates and --seed")
        if options.sheet or options.marks:
            raise OptionsError("people mark answers of candidates only: leave out --sheet and --marks, or --shadow")
        subject = (options.suite, options.region, options.assistant)
        usage = partial(command_accounting, options.shadow)
        shadow = ShadowOptions(options.shadow, *subject, options.out, options.dry_run, options.fresh, usage)
        return run_shadow(shadow, compile_with)
    if options.sheet_items < 1:
        raise OptionsError("--sheet-items must be at least 1")
    candidates = tuple(dict.fromkeys(name.strip() for name in options.candidates.split(",") if name.strip()))
    evaluate_options = EvaluateOptions(
        config,
        options.suite or options.region,
        options.region,
        options.assistant,
        candidates,
        options.out,
        options.seed,
        options.dry_run,
        options.fresh,
        options.sheet,
        options.sheet_items,
        options.marks,
        partial(command_accounting, settings_of(options).state_dir),
    )
    return run_evaluation(evaluate_options, compile_with)


def _compare(old: Path, new: Path) -> int:
    from evaluation.comparison import NotComparable, compare_runs, comparison_text
    from evaluation.visible_text import visible_text

    try:
        differences = compare_runs(_report(old), _report(new))
    except NotComparable as error:
        raise CommandError(f"the two runs can't be compared: {error}") from None
    print(visible_text(comparison_text(differences)))
    return _WORSE if any(one.significant and one.worse for one in differences) else _OK


def _report(path: Path) -> dict[str, Any]:
    file = path / "report.json" if path.is_dir() else path
    try:
        with open_file(file) as opened:
            value = json.loads(opened.read())
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{file} is not a report of an evaluation") from None
    if not isinstance(value, dict):
        raise CommandError(f"{file} is not a report of an evaluation")
    return value
