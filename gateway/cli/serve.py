"""`gateway serve`, `demo` and `simulate`: from the options to a process that serves.

Heavy imports stand inside the functions: a command imports what it needs, and `--help` nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from gateway.cli.terminal import settings_of
from gateway.files import path_exists
from gateway.operator_errors import CommandError, expect_file

if TYPE_CHECKING:
    from gateway.changes.compile_process import Child
    from gateway.settings import Settings


_OK = 0


def serve(options: argparse.Namespace) -> int:
    """Serve a config."""
    _end_when_told()
    settings = settings_of(options)
    _expect_config(settings)
    from gateway.changes.compile_process import Child

    # The config is compiled apart, so that nothing of the compiler stays in the process that serves. Most of that time
    # goes into loading the compiler, while we load the rest of ourselves.
    child = Child()
    child.prepare()
    try:
        return _serve(settings, child)
    finally:
        child.discard()


def _expect_config(settings: Settings) -> None:
    """Told before anything is begun; a rollback that holds needs no file, and the history knows of that."""
    if settings.state_dir is not None and not path_exists(settings.config):
        from gateway.state.history import has_history

        if has_history(settings.state_dir):
            return
    expect_file(settings.config)


def _serve(settings: Settings, child: Child) -> int:
    from gateway.changes.initial_config import InitialConfigLoader

    opening = InitialConfigLoader(settings, child)
    from gateway.server import start
    from gateway.telemetry.background_writer import flush_all
    from gateway.telemetry.log import configure, logger

    configure(settings.log_format, settings.log_level)
    try:
        begun = opening.begin()
        if begun.table.demo:
            if settings.workers > 1:
                raise CommandError("a demo is one process with its simulators; leave out --workers (GATEWAY_WORKERS)")
            start.serve_demo(settings, begun)
            return _OK
        for warning in begun.outcome.problems:
            logger().warning("config", detail=str(warning))
        start.serve_table(settings, begun)
    finally:
        # Why it can't be served is the last that is read.
        flush_all()
    return _OK


def demo(options: argparse.Namespace) -> int:
    """Serve simulated providers."""
    _end_when_told()
    settings = _demo_settings(options)
    from gateway.telemetry.log import configure

    configure(settings.log_format, "warning")
    _serve_simulated(options, settings)
    return _OK


def simulate(options: argparse.Namespace) -> int:
    """Serve simulated providers that fail as they are told to."""
    _end_when_told()
    settings = _demo_settings(options)
    from gateway.telemetry.log import configure

    configure(settings.log_format, settings.log_level)
    pace = options.first_token, options.between_events, options.seed
    _serve_simulated(options, settings, options.fault, [(name, fault) for name, fault in options.fault_at], pace)
    return _OK


def _demo_settings(options: argparse.Namespace) -> Settings:
    """The settings, with the demo that comes with us where no config is named; raises CommandError."""
    settings = settings_of(options)
    if "config" not in settings.model_fields_set:
        from gateway.config.examples import example_path

        settings = settings.model_copy(update={"config": example_path("demo.yaml")})
    _expect_config(settings)
    return settings


def _serve_simulated(
    options: argparse.Namespace,
    settings: Settings,
    faults: Sequence[str] = (),
    faults_at: Sequence[tuple[str, str]] = (),
    pace: tuple[float, float, int] | None = None,
) -> None:
    from gateway.changes.initial_config import InitialConfigLoader

    opening = InitialConfigLoader(settings, demo=True)
    from gateway.server import start

    try:
        begun = opening.begin()
    except CommandError:
        if options.config is None and "config" in settings.model_fields_set:
            # Who has it set for another gateway doesn't look for it here.
            told = "`gateway serve` serves it as it is; unset it for the demo that comes with the gateway"
            print(f"gateway: GATEWAY_CONFIG names {settings.config}: {told}", file=sys.stderr)
        raise
    from gateway.server.demo import SimulatedPace

    start.serve_demo(settings, begun, faults, faults_at, SimulatedPace(*pace) if pace is not None else None)


def _end_when_told() -> None:
    """End at a SIGTERM that comes before the server takes signals over: it has nothing to finish yet.

    The first process of a container has no action by default, so that `docker stop` would be lost on a gateway that is
    still starting, and have to kill it.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(_OK)
