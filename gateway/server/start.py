"""Start serving from settings and a compiled config: bind the listeners, build the live config, start the workers."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Protocol, TypeAlias

from gateway.api.admin_control import SimulatorFaults
from gateway.api.admin_guard import Guard
from gateway.assembly.receipts import check_receipts
from gateway.changes.compile_job import CompileJob
from gateway.changes.pickling import pack
from gateway.model.config_version import ConfigVersion
from gateway.model.stored_client import Role
from gateway.operator_errors import CommandError
from gateway.server.descriptors import raise_file_limit
from gateway.server.handover import Given, Handover
from gateway.server.host import BuildOperatorConsole, ConsoleListener, Host, Operators
from gateway.server.keepers import Keepers, keeping, recording_the_end
from gateway.server.service_manager import ServiceManager, sockets_by_name
from gateway.server.takeover import Takeover
from gateway.server.uvicorn_server import BindError, bind, grace_s_of, run, url_of
from gateway.server.workers import WorkerProcesses, Workers, WorkerSettings
from gateway.settings import Settings, versions_of
from gateway.telemetry.log import logger
from gateway.usage.quota_store import QuotaStore

if TYPE_CHECKING:
    from gateway.changes.initial_config import InitialConfig

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SOCKETS = {
    "public": ("host", "port"),
    "admin": ("admin_host", "admin_port"),
    "console": ("console_host", "console_port"),
}
"""The names of sockets that systemd or an earlier gateway may open, and the settings that their addresses replace."""


class RunningSimulators(Protocol):
    """The running simulators of a config, with the version to serve and the job that compiles later ones."""

    @property
    def initial(self) -> InitialConfig:
        """The version to serve."""

    @property
    def job(self) -> CompileJob:
        """The job that compiles later versions."""

    def faults(self, current: Callable[[], ConfigVersion]) -> SimulatorFaults:
        """Return the switch of their faults."""

    def announce(self, faults: SimulatorFaults) -> None:
        """Log where each simulator listens, and its faults."""


Simulate: TypeAlias = "Callable[[InitialConfig, CompileJob], AbstractContextManager[RunningSimulators]]"
"""Runs simulated providers in place of the real ones."""


def serve_config(
    settings: Settings,
    initial: InitialConfig,
    takeover: Takeover | None = None,
    build_console: BuildOperatorConsole | None = None,
    simulate: Simulate | None = None,
) -> None:
    """Serve a config until the process is stopped, with one process or several.

    Raises CommandError, and SystemExit if the workers fail.

    takeover: The connection to the running gateway that this one replaces.
    build_console: Builds the console, if `GATEWAY_CONSOLE_PORT` is set.
    simulate: Runs simulated providers in place of the real ones.
    """
    given = takeover.sockets if takeover is not None else sockets_by_name()
    job = CompileJob(str(settings.config), written=initial.change_log is not None, simulated=simulate is not None)
    with ExitStack() as stack:
        simulation = stack.enter_context(simulate(initial, job)) if simulate is not None else None
        if simulation is not None:
            initial, job = simulation.initial, simulation.job
        stack.enter_context(recording_the_end(initial))
        settings = _at_addresses_of(given, settings)
        if (reason := _serving_problem(settings, initial.config)) is not None:
            raise CommandError(reason)
        check_receipts(settings)
        console = _console_listener(settings, build_console, given.get("console"))
        listener, operators = listeners(settings, given=given)
        raise_file_limit()
        problem_of = functools.partial(_activation_problem, settings, initial.config)
        with keeping(settings.state_dir, initial, operators.admin, job, problem_of) as keepers:
            operators = operators.with_tokens(keepers.live.clients, console)
            if status := _serve(settings, initial, keepers, listener, operators, takeover, simulation):
                raise SystemExit(status)


def _serve(
    settings: Settings,
    initial: InitialConfig,
    keepers: Keepers,
    listener: socket.socket,
    operators: Operators,
    takeover: Takeover | None,
    simulation: RunningSimulators | None,
) -> int:
    """Run the host and its workers; return the exit status."""
    live, outcome = keepers.live, initial.outcome
    service = takeover.service if takeover is not None else ServiceManager()
    consent_key = takeover.consent_key if takeover is not None else secrets.token_bytes(32)
    serves = WorkerSettings.of(settings, consent_key)
    sockets = {"public": listener, "admin": operators.admin}
    sockets |= {"console": operators.console.listener} if operators.console is not None else {}
    handover = Handover(Given(sockets, consent_key, service), keepers, settings.state_dir, takeover)
    faults = simulation.faults(lambda: live.config) if simulation is not None else None
    is_alone = settings.workers == 1 or outcome.packed is None

    # Now, because a gateway that is stopped while its last worker becomes ready has closed them.
    urls = {"url" if name == "public" else name: url_of(one) for name, one in sockets.items()}

    async def listening() -> None:
        more = {} if is_alone else {"workers": settings.workers}
        config = {"config": str(settings.config), "config_version": live.config.version}
        if faults is not None and simulation is not None:
            simulation.announce(faults)
        logger().info("listening", **urls, **config, **more)
        handover.note_serving()

    workers: Workers
    if is_alone:
        from gateway.server.worker import OwnWorker, Worker

        workers = OwnWorker(Worker(0, live.config, serves, QuotaStore()), listener)
    else:
        packed = outcome.packed if live.config is initial.config and outcome.packed is not None else pack(live.config)
        workers = WorkerProcesses(listener, settings.workers, live.config, packed, serves, lambda: live.lock_descriptor)
    # The next process would have other simulators, and another state directory.
    host = Host(
        workers, keepers, operators, settings, service, handover.is_done_before if faults is None else None, faults
    )
    status = run(host.run(listening)) if is_alone else asyncio.run(host.run(listening))
    if keepers.ledger is not None and host.stopped_at is not None:
        keepers.ledger.waits_until_s = host.stopped_at + grace_s_of(settings.grace_s, live.config)
    return status


def _serving_problem(settings: Settings, config: ConfigVersion) -> str | None:
    """Return why this version can't be served with these settings, or None if it can."""
    if settings.state_dir is None and (key := config.needs_state_dir):
        return f"{key} needs a state directory, which keeps the counts and the ledger: set GATEWAY_STATE_DIR"
    if config.clients or config.clients_source == "database" or is_loopback(settings.host):
        return None
    return (
        f"this config has no clients, so it serves this machine only, and {settings.host} is open to others: "
        "add `clients` (gateway key new makes a key), or bind 127.0.0.1"
    )


def _activation_problem(settings: Settings, first: ConfigVersion, config: ConfigVersion) -> str | None:
    """Return why this version can't replace the active one, or None if it can."""
    if config.demo:
        return "`demo: true` takes any key, so it can't be switched on while serving; start it as a demo"
    if config.stores != first.stores:
        return "`stores` can't be changed while serving: restart the gateway with this version"
    if config.has_shared_clients != first.has_shared_clients:
        return "with `stores`, `clients_source` can't be changed while serving: restart the gateway with this version"
    return _serving_problem(settings, config)


def listeners(
    settings: Settings, *, or_a_free_port: bool = False, given: Mapping[str, socket.socket] | None = None
) -> tuple[socket.socket, Operators]:
    """Return the public listener, and the admin listener with its guard; raises CommandError if one can't be bound.

    given: Sockets that systemd has opened, by name. They are used instead of new ones.
    """
    given = given or {}
    listener = given.get("public") or bind(settings.host, settings.port)
    try:
        return listener, Operators(*_admin(settings, or_a_free_port=or_a_free_port, given=given.get("admin")))
    except CommandError:
        listener.close()
        raise


def _console_listener(
    settings: Settings, build: BuildOperatorConsole | None, given: socket.socket | None
) -> ConsoleListener | None:
    """Return the listener of the console, or None without `GATEWAY_CONSOLE_PORT`. Raises CommandError."""
    if settings.console_port is None or build is None:
        return None
    host, url = settings.console_host, settings.console_url
    if not is_loopback(host) and (url is None or not url.startswith("https://")):
        raise CommandError(
            f"the console on {host} is open to others: set GATEWAY_CONSOLE_URL to its public address, which must begin "
            "with https://, or bind it to 127.0.0.1 (GATEWAY_CONSOLE_HOST)"
        )
    return ConsoleListener(given or bind(host, settings.console_port, "console"), build)


def _at_addresses_of(given: Mapping[str, socket.socket], settings: Settings) -> Settings:
    """Return the settings with the addresses of sockets that systemd has opened. Raises CommandError."""
    if unknown := given.keys() - _SOCKETS.keys():
        reason = f"`FileDescriptorName` must be `public`, `admin` or `console`, not {min(unknown)!r}"
        raise CommandError(f"systemd has opened a socket with an unknown name: {reason}")
    changes: dict[str, object] = {}
    for name, listener in given.items():
        if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
            raise CommandError(f"the socket `{name}` of systemd must listen on TCP: write `ListenStream=` with a port")
        changes |= dict(zip(_SOCKETS[name], listener.getsockname()[:2], strict=True))
    return settings.model_copy(update=changes)


def _admin(
    settings: Settings, *, or_a_free_port: bool = False, given: socket.socket | None = None
) -> tuple[socket.socket, Guard]:
    """The admin listener's socket and guard; raises CommandError."""
    host, chosen = settings.admin_host, "admin_port" in settings.model_fields_set
    admins, viewers = versions_of(settings.admin_token), versions_of(settings.viewer_token)
    own = (*((it, Role.ADMIN) for it in admins), *((it, Role.VIEWER) for it in viewers))
    if viewers and not admins:
        raise CommandError("GATEWAY_VIEWER_TOKEN needs GATEWAY_ADMIN_TOKEN, which the other commands send")
    if not own and not is_loopback(host):
        raise CommandError(
            f"the admin listener on {host} is open to others: set GATEWAY_ADMIN_TOKEN, which its callers must send, "
            "or bind it to 127.0.0.1 (GATEWAY_ADMIN_HOST)"
        )
    # With any free port for clients, as in tests, the admin listener must not use a fixed port either.
    port = 0 if settings.port == 0 and not chosen else settings.admin_port
    names = _THIS_MACHINE | {f"[{host}]" if ":" in host else host.lower()}
    if given is not None:
        return given, Guard(own, names)
    if or_a_free_port and not chosen:
        try:
            return bind(host, port, "admin"), Guard(own, names)
        except BindError:
            port = 0
    return bind(host, port, "admin"), Guard(own, names)


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
