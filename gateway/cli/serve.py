"""The commands `gateway serve`, `demo` and `simulate`.

Large imports are inside the functions, so that a command imports only what it needs and `--help` starts fast.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gateway.cli.terminal import settings_of, tell
from gateway.files import path_exists
from gateway.operator_errors import CommandError, expect_file

if TYPE_CHECKING:
    from gateway.changes.compile_process import Child
    from gateway.config.real_deployment import RealDeployment
    from gateway.server.demo import BuildConsole
    from gateway.server.host import BuildOperatorConsole
    from gateway.server.simulation import Rehearsal
    from gateway.server.start import Simulate
    from gateway.server.takeover import Takeover
    from gateway.settings import Settings


_OK = 0


def serve(options: argparse.Namespace) -> int:
    """Serve a config (`gateway serve`)."""
    _exit_on_sigterm()
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until this process can hand over
    from gateway.changes.compile_process import Child
    from gateway.server.takeover import Takeover

    # A child process compiles the config, so that the serving process never holds the compiler in memory. The child
    # usually loads the compiler, and this process reads its settings and loads its own modules meanwhile.
    takeover = Takeover.of_environment()
    child = Child()
    child.prepare()
    try:
        if options.simulated is None:
            settings = settings_of(options)
            _expect_config(settings)
            return _serve(settings, child, takeover)
        if options.simulated is not True:
            if options.config is not None:
                raise CommandError("--simulated FILE names the config too: leave out --config")
            options.config = options.simulated
        settings = settings_of(options)
        _expect_config(settings)
        from gateway.server.simulation import Rehearsal, simulating_with

        return _serve(_apart(settings), child, simulate=simulating_with(Rehearsal()))
    except BaseException as error:  # the running gateway must know the reason
        if takeover is not None:
            takeover.report_failure(_reason_of(error))
        raise
    finally:
        child.discard()


def _reason_of(error: BaseException) -> str:
    match error:
        case CommandError():
            return str(error)
        case SystemExit():
            return "the next gateway has stopped: its log has the reason"
        case _:
            return f"{type(error).__name__}: {error}"


def _expect_config(settings: Settings) -> None:
    """Report a missing config file before anything starts. After a rollback, the history has the config instead."""
    if settings.state_dir is not None and not path_exists(settings.config):
        from gateway.state.history import has_history

        if has_history(settings.state_dir):
            return
    expect_file(settings.config)


def _serve(
    settings: Settings,
    child: Child | None = None,
    takeover: Takeover | None = None,
    *,
    simulate: Simulate | None = None,
) -> int:
    from gateway.changes.initial_config import InitialConfigLoader

    lock = takeover.lock if takeover is not None else None
    opening = InitialConfigLoader(settings, child, simulated=simulate is not None, inherited_lock=lock)
    from gateway.server import start
    from gateway.telemetry.background_writer import flush_all
    from gateway.telemetry.log import configure, logger

    configure(settings.log_format, settings.log_level)
    try:
        initial = opening.begin()
        if initial.config.demo:
            if settings.workers > 1:
                raise CommandError(
                    "a demo runs in one process with its simulators; leave out --workers (GATEWAY_WORKERS)"
                )
            from gateway.server.demo import serve_demo

            serve_demo(settings, initial, build_console=_console(settings))
            return _OK
        for warning in initial.outcome.problems:
            logger().warning("config", detail=str(warning))
        start.serve_config(settings, initial, takeover, _operator_console(settings), simulate)
    finally:
        # The reason of a failed start must be in the log before the process ends.
        flush_all()
    return _OK


def demo(options: argparse.Namespace) -> int:
    """Serve simulated providers (`gateway demo`)."""
    _exit_on_sigterm()
    settings = _demo_settings(options)
    from gateway.telemetry.log import configure

    configure(settings.log_format, "warning")
    _serve_simulated(options, settings)
    return _OK


def simulate(options: argparse.Namespace) -> int:
    """Serve a demo or a real config at simulated providers with faults and delays (`gateway simulate`)."""
    _exit_on_sigterm()
    settings = _demo_settings(options)
    from gateway.server.simulation import Rehearsal, SimulatedPace, simulating_with
    from gateway.telemetry.log import configure

    configure(settings.log_format, settings.log_level)
    pace = SimulatedPace(options.first_token, options.between_events, options.seed)
    rehearsal = Rehearsal(options.fault, [(name, fault) for name, fault in options.fault_at], pace)
    if not _is_demo(settings.config):
        return _serve(_apart(settings), simulate=simulating_with(rehearsal))
    _serve_simulated(options, settings, rehearsal)
    return _OK


def _is_demo(config: Path) -> bool:
    """Return whether a config states that it is a demo. One that cannot be read does not."""
    from gateway.config.loading import read_config
    from gateway.config.problems import ConfigRejected
    from gateway.config.yaml_document import parse_yaml

    try:
        return parse_yaml(read_config(config, waits=False), str(config)).values.get("demo") is True
    except ConfigRejected:
        return False


def _apart(settings: Settings) -> Settings:
    """Return the settings of a rehearsal, whose rows, receipts and history must not mix with those of real requests.

    Its state directory is the folder `simulated` of the usual one, or a folder of its own until the process ends.
    """
    state = settings.state_dir / "simulated" if settings.state_dir is not None else _own_folder("gateway-simulated-")
    return settings.model_copy(update={"state_dir": state, "receipt_key": None, "require_state": False})


def _own_folder(prefix: str) -> Path:
    """Return a new folder, which is removed when the process ends."""
    import atexit
    import tempfile

    folder = tempfile.TemporaryDirectory(prefix=prefix)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _demo_settings(options: argparse.Namespace) -> Settings:
    """Return the settings, with a copy of the built-in demo config if none is named. Raises CommandError.

    The copy is in a folder of its own until the process ends, so that edits of the page never reach the original.
    """
    settings = settings_of(options)
    if "config" not in settings.model_fields_set:
        import shutil

        from gateway.config.examples import example_path

        copied = Path(shutil.copy(example_path("demo.yaml"), _own_folder("gateway-demo-")))
        settings = settings.model_copy(update={"config": copied})
    if settings.console_port is not None:
        tell("GATEWAY_CONSOLE_PORT has no effect in a demo: its console is at / of the gateway itself, without sign-in")
    _expect_config(settings)
    return settings


def _serve_simulated(options: argparse.Namespace, settings: Settings, rehearsal: Rehearsal | None = None) -> None:
    from gateway.changes.initial_config import InitialConfigLoader

    real = _real_deployment(options.real) if options.real else None
    opening = InitialConfigLoader(settings, demo=True, real=real)
    from gateway.server.demo import serve_demo

    try:
        initial = opening.begin()
    except CommandError:
        if options.config is None and "config" in settings.model_fields_set:
            # The variable may be set for another gateway, so the message must name it.
            hint = "use `gateway serve` to serve that config, or unset the variable to run the built-in demo"
            tell(f"GATEWAY_CONFIG is {settings.config}: {hint}")
        raise
    serve_demo(settings, initial, rehearsal, options.territory, real, _console(settings, options.territory))


def _console(settings: Settings, territory: str | None = None) -> BuildConsole:
    """Return the function that puts the console in front of the demo. Jinja2 is loaded when the demo starts."""
    from gateway.console.application import Console
    from gateway.console.page import PageSettings

    shown = PageSettings(settings.config, territory)
    return lambda application, control: Console(application, control, shown)


def _operator_console(settings: Settings) -> BuildOperatorConsole | None:
    """Return the function that builds the console outside a demo, or None without its port."""
    if settings.console_port is None:
        return None
    from gateway.api.body import CloseUnread
    from gateway.console.operator_console import OperatorConsole
    from gateway.console.page import PageSettings
    from gateway.console.serving import WorldPage
    from gateway.console.visitors import ConsoleAccess

    access = ConsoleAccess.of(settings)
    pages = PageSettings(settings.config)
    return lambda admin, guard, control: CloseUnread(
        OperatorConsole(admin, guard, access, WorldPage(control, pages, None))
    )


def _real_deployment(text: str) -> RealDeployment:
    """Return the real deployment that `--with` names. Raises CommandError if there is none, or no key for it."""
    from gateway.config.real_deployment import real_deployment
    from providers.registry import load_registry

    try:
        real = real_deployment(text, load_registry())
    except ValueError as error:
        raise CommandError(f"--with: {error}") from None
    if not os.environ.get(real.key_variable):
        reason = f"--with {text} needs a key of {real.provider} in {real.key_variable}, which is not set"
        raise CommandError(f"{reason}. Set it:\n  export {real.key_variable}=YOUR_KEY")
    return real


def _exit_on_sigterm() -> None:
    """Exit at a SIGTERM that arrives before the server handles signals. There is nothing to finish yet.

    The first process of a container ignores SIGTERM by default, so `docker stop` would wait and then kill a gateway
    that is still starting.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(_OK)
