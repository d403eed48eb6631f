"""Start serving from settings and a compiled config: bind the listeners, build the live config, start the workers."""

from __future__ import annotations

import functools
import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.api.admin_guard import Guard
from gateway.assembly.receipts import ReceiptSettings, read_receipt_settings
from gateway.assembly.usage import keeping_ledger
from gateway.changes.compile_job import CompileJob
from gateway.changes.initial_config import with_simulators
from gateway.changes.live_config import LiveConfig
from gateway.changes.pickling import pack
from gateway.changes.schedules import Scheduler
from gateway.model.config_version import ConfigVersion
from gateway.model.version_names import version_fields
from gateway.operator_errors import CommandError, StateError
from gateway.server.channel import Serve
from gateway.server.handover import TOO_MANY, Given, Handover, Keepers
from gateway.server.operator_listeners import BuildOperatorConsole, ConsoleListener
from gateway.server.service_manager import ServiceManager, sockets_by_name
from gateway.server.uvicorn_server import BindError, DrainDelay, bind, raise_file_limit, run, url_of
from gateway.settings import Settings
from gateway.telemetry.log import configure, logger
from gateway.usage.quota_store import Seats

if TYPE_CHECKING:
    from gateway.changes.cell import CellMember
    from gateway.changes.change_log import ChangeLog
    from gateway.changes.initial_config import InitialConfig
    from gateway.changes.stored_clients import ClientDatabase
    from gateway.config.real_deployment import RealDeployment
    from gateway.server.demo import BuildConsole, Rehearsal
    from gateway.server.takeover import Takeover
    from gateway.state.schedules import ScheduleStore

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SOCKETS = {
    "public": ("host", "port"),
    "admin": ("admin_host", "admin_port"),
    "console": ("console_host", "console_port"),
}
"""The names of sockets that systemd or an earlier gateway may open, and the settings that their addresses replace."""
_NOT_SERVED = {"detail": "nothing was served"}


def take_state(takeover: Takeover) -> int | None:
    """Ask the running gateway for the state directory, and return its lock, or None without one.

    This module loads what the rest of the start needs, so the running gateway pauses for a short time.
    """
    takeover.take_state()
    return takeover.lock


def serve_config(
    settings: Settings,
    initial: InitialConfig,
    takeover: Takeover | None = None,
    build_console: BuildOperatorConsole | None = None,
) -> None:
    """Serve a config until the process is stopped, with one process or several.

    Raises CommandError, and SystemExit if the workers fail.

    takeover: The connection to the running gateway that this one replaces.
    build_console: Builds the console, if `GATEWAY_CONSOLE_PORT` is set.
    """
    detail = {}
    try:
        _serve_config(settings, initial, takeover, build_console)
    except CommandError:
        # A busy port or an unusable key. The audit trail already records the version as active.
        detail = _NOT_SERVED
        raise
    except StateError as error:
        detail = _NOT_SERVED
        raise CommandError(str(error)) from None
    finally:
        if initial.change_log is not None:
            _close(initial.change_log, detail, initial.cell)


def _close(change_log: ChangeLog, detail: Mapping[str, str], cell: CellMember | None = None) -> None:
    try:
        if not change_log.is_paused:  # otherwise the next gateway serves
            change_log.note("stopped", {"pid": os.getpid(), **detail})
    except StateError as error:
        logger().error("audit_failed", detail=str(error))
    if cell is not None:
        cell.close()
    change_log.close()


def _serve_config(
    settings: Settings,
    initial: InitialConfig,
    takeover: Takeover | None,
    build_console: BuildOperatorConsole | None,
) -> None:
    given = takeover.sockets if takeover is not None else sockets_by_name()
    settings = _at_addresses_of(given, settings)
    if (reason := _serving_problem(settings, initial.config)) is not None:
        raise CommandError(reason)
    receipt_settings = _receipt_settings(settings)
    console = _console_listener(settings, build_console, given.get("console"))
    sockets = _listeners(settings, given=given)
    raise_file_limit()
    with _scheduling(settings, initial.cell) as scheduler, _stored_clients(settings, initial) as clients:
        listener, admin_listener, guard = sockets
        sockets = listener, admin_listener, _with_tokens(guard, clients)
        _serve_live(settings, initial, receipt_settings, sockets, Staging(scheduler, clients, console), takeover)


def _serve_live(
    settings: Settings,
    initial: InitialConfig,
    receipt_settings: ReceiptSettings | None,
    sockets: tuple[socket.socket, socket.socket, Guard],
    staging: Staging,
    takeover: Takeover | None,
) -> None:
    admin_listener = sockets[1]
    job = CompileJob(str(settings.config), written=initial.change_log is not None)
    problem_of = functools.partial(_activation_problem, settings, initial.config)
    live = _live(job, initial, admin_listener, staging, problem_of)
    with keeping_ledger(settings.state_dir, lambda: live.config, initial.config.stores) as ledger:
        keepers = Keepers(live, staging.scheduler, ledger)
        _serve_processes(settings, initial, receipt_settings, sockets, keepers, takeover, staging.console)


def _serve_processes(
    settings: Settings,
    initial: InitialConfig,
    receipt_settings: ReceiptSettings | None,
    sockets: tuple[socket.socket, socket.socket, Guard],
    keepers: Keepers,
    takeover: Takeover | None,
    console: ConsoleListener | None,
) -> None:
    config, outcome, live, scheduler = initial.config, initial.outcome, keepers.live, keepers.scheduler
    listener, admin_listener, guard = sockets
    service = takeover.service if takeover is not None else ServiceManager()
    seats = Seats(settings.workers, takeover.quotas if takeover is not None else None)
    if len(seats.own) < settings.workers:
        raise CommandError(TOO_MANY)
    consent_key = takeover.consent_key if takeover is not None else secrets.token_bytes(32)
    shown = console.listener if console is not None else None
    given = Given((listener, admin_listener), seats, consent_key, service, shown)
    handover = Handover(given, keepers, settings.state_dir, takeover)

    def listening(**more: int) -> None:
        urls = {"url": url_of(listener), "admin": url_of(admin_listener), "config": str(settings.config)}
        urls |= {"console": url_of(console.listener)} if console is not None else {}
        logger().info("listening", **urls, **version_fields(live.config.version), **more)
        handover.note_serving()

    if settings.workers > 1 and outcome.packed is not None:
        packed = outcome.packed if live.config is config else pack(live.config)
        from gateway.server.supervisor import Lifecycle, supervise

        on_listening = functools.partial(listening, workers=settings.workers)
        delay = DrainDelay(settings.drain_delay_s)
        lifecycle = Lifecycle(on_listening, delay, service, settings.instance, seats, handover, console)
        serve = _serve_message(settings, packed, consent_key)
        if status := supervise(listener, settings.workers, serve, live, (admin_listener, guard), scheduler, lifecycle):
            raise SystemExit(status)
        return

    async def started() -> None:
        listening()

    from gateway.assembly.application import Gateway, transport_named
    from gateway.server.single import Process, serve_single

    gateway = Gateway(
        live.config,
        transport_named(settings.transport),
        seats.store,
        settings.state_dir,
        receipt_settings,
        consent_key,
        settings.max_requests,
    )
    seats.store.sharing.is_on = takeover is not None
    process = Process(
        gateway,
        live,
        scheduler,
        settings.grace_s,
        settings.drain_delay_s,
        service,
        settings.instance,
        handover=handover,
        console=console,
    )
    run(serve_single(process, listener, (admin_listener, guard), started))


def _live(
    job: CompileJob,
    initial: InitialConfig,
    admin_listener: socket.socket,
    staging: Staging,
    serving_problem: Callable[[ConfigVersion], str | None] = lambda _: None,
) -> LiveConfig:
    if initial.change_log is not None:
        initial.change_log.lock.write_info({"admin": url_of(admin_listener), "config": os.path.abspath(job.path)})
    scheduler, clients = staging.scheduler, staging.clients
    return LiveConfig(job, initial, serving_problem=serving_problem, stage=scheduler.stage, clients=clients)


def _serve_message(settings: Settings, packed: bytes, consent_key: bytes) -> Serve:
    receipt_paths = tuple(
        str(path) if path is not None else None for path in (settings.state_dir, settings.receipt_key)
    )
    options = settings.transport, settings.grace_s, settings.log_format, settings.log_level, settings.max_requests
    return Serve(packed, *options, consent_key.hex(), *receipt_paths)


@dataclass(frozen=True, slots=True)
class Staging:
    """The parts of the state directory that change each config version, and the listener of the console."""

    scheduler: Scheduler
    clients: ClientDatabase | None = None
    console: ConsoleListener | None = None


@contextmanager
def _stored_clients(settings: Settings, initial: InitialConfig) -> Iterator[ClientDatabase | None]:
    """Provide the stored clients, or None without a state directory. Raises CommandError."""
    if settings.state_dir is None:
        yield None
        return
    from gateway.changes.stored_clients import ClientDatabase
    from gateway.usage.installation import client_store

    try:
        store = client_store(initial.config, settings.state_dir)
        clients = ClientDatabase(settings.state_dir, initial.change_log, os.path.abspath(settings.config), store)
    except StateError as error:
        raise CommandError(str(error)) from None
    with closing(clients.store):
        yield clients


def _with_tokens(guard: Guard, clients: ClientDatabase | None) -> Guard:
    """Return the guard that also accepts the stored admin tokens."""
    return replace(guard, tokens=clients.tokens, is_closed=clients.is_closed) if clients is not None else guard


@contextmanager
def _scheduling(settings: Settings, cell: CellMember | None = None) -> Iterator[Scheduler]:
    """Provide the scheduler; it stores its state if there is a state directory. Raises CommandError.

    The store stays open until the event loop and its threads have ended, because a last write may be under way.
    """
    if settings.state_dir is None:
        yield Scheduler()
        return
    from gateway.state.schedules import ScheduleStore

    try:
        store = ScheduleStore(settings.state_dir)
    except StateError as error:
        raise CommandError(str(error)) from None
    with closing(store):
        try:
            scheduler = Scheduler(store) if cell is None else _cell_scheduler(store, cell)
        except StateError as error:
            raise CommandError(str(error)) from None
        yield scheduler


def _cell_scheduler(store: ScheduleStore, cell: CellMember) -> Scheduler:
    from gateway.changes.cell_schedules import CellScheduler

    return CellScheduler(store, cell.database)


def _receipt_settings(settings: Settings) -> ReceiptSettings | None:
    """Return where receipts are kept and the key that signs them; raises CommandError if the key is unusable."""
    if settings.state_dir is None:
        if settings.receipt_key is not None:
            logger().warning("receipts", detail="GATEWAY_RECEIPT_KEY has no effect: GATEWAY_STATE_DIR is not set")
        return None
    from gateway.signing import KeyUnusable
    from gateway.state.receipts import prepare

    try:
        prepare(settings.state_dir)
        return read_receipt_settings(
            str(settings.state_dir), str(settings.receipt_key) if settings.receipt_key else None
        )
    except KeyUnusable as error:
        raise CommandError(f"GATEWAY_RECEIPT_KEY: {error}") from None
    except StateError as error:
        raise CommandError(str(error)) from None


def serve_demo(
    settings: Settings,
    initial: InitialConfig,
    rehearsal: Rehearsal | None = None,
    territory: str | None = None,
    real: RealDeployment | None = None,
    build_console: BuildConsole | None = None,
) -> None:
    """Serve simulated providers until the process is stopped; raises CommandError.

    rehearsal: Their faults and speed; None for the plain demo.
    territory: The territory of callers whom no signal locates; None refuses them.
    real: The real deployment that is added.
    build_console: Puts the console in front of the application.
    """
    from gateway.server.demo import Demo, Rehearsal, RehearsalError, run_demo, why_unused
    from providers.testkit.simulator import NoSimulator, load_simulators

    if real is not None and not _is_loopback(settings.host):
        reason = f"with a real provider the demo serves this machine only, and {settings.host} is open to others"
        raise CommandError(f"{reason}: leave out --host (GATEWAY_HOST)")
    if real is not None and (unused := why_unused(initial.config, real)) is not None:
        raise CommandError(f"{unused}. `gateway init --example one-key` writes a config of your own")
    try:
        rehearsal = rehearsal or Rehearsal()
        scenarios = rehearsal.scenarios(initial.config)
        for provider, _ in scenarios:
            load_simulators().named(provider)
    except (NoSimulator, RehearsalError) as error:
        raise CommandError(str(error)) from None
    listener, admin_listener, guard = _listeners(settings, or_a_free_port=True)
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    if not (address.is_loopback or address.is_unspecified):
        listener.close()
        admin_listener.close()
        reason = f"a demo serves its own machine only, whose requests do not come to {settings.host} from loopback"
        raise CommandError(f"{reason}: leave out --host (GATEWAY_HOST)")
    with ExitStack() as ending:
        scheduler = ending.enter_context(_scheduling(settings))
        clients = ending.enter_context(_stored_clients(settings, initial))
        guard = _with_tokens(guard, clients)

        def live_with(origins: Mapping[tuple[str, str], str]) -> LiveConfig:
            is_written = initial.change_log is not None
            job = CompileJob(str(settings.config), True, territory, origins, written=is_written, real=real)
            ready = with_simulators(initial, job)
            if ready.change_log is not None:
                ending.callback(_close, ready.change_log, {})
            return _live(job, ready, admin_listener, Staging(scheduler, clients))

        demo = Demo(
            scenarios,
            live_with,
            is_rehearsal=rehearsal.pace is not None,
            territory=territory,
            real=real,
            print_text=lambda text: print(text, flush=True),
            on_shown=lambda: configure(settings.log_format, settings.log_level),
            build_console=build_console,
        )
        ending.enter_context(keeping_ledger(settings.state_dir, lambda: initial.config, initial.config.stores))
        run(run_demo(demo, listener, (admin_listener, guard), settings, _receipt_settings(settings), scheduler))


def _serving_problem(settings: Settings, config: ConfigVersion) -> str | None:
    """Return why this version can't be served with these settings, or None if it can."""
    if settings.state_dir is None and (key := config.needs_state_dir):
        return f"{key} needs a state directory, which keeps the counts and the ledger: set GATEWAY_STATE_DIR"
    if config.clients or config.clients_source == "database" or _is_loopback(settings.host):
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


def _listeners(
    settings: Settings, *, or_a_free_port: bool = False, given: Mapping[str, socket.socket] | None = None
) -> tuple[socket.socket, socket.socket, Guard]:
    """Return the public listener, the admin listener and its guard; raises CommandError if one can't be bound.

    given: Sockets that systemd has opened, by name. They are used instead of new ones.
    """
    given = given or {}
    listener = given.get("public") or _bind(settings.host, settings.port)
    try:
        return listener, *_admin(settings, or_a_free_port=or_a_free_port, given=given.get("admin"))
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
    if not _is_loopback(host) and (url is None or not url.startswith("https://")):
        raise CommandError(
            f"the console on {host} is open to others: set GATEWAY_CONSOLE_URL to its public address, which must begin "
            "with https://, or bind it to 127.0.0.1 (GATEWAY_CONSOLE_HOST)"
        )
    return ConsoleListener(given or _bind(host, settings.console_port, "console-port"), build)


def _bind(host: str, port: int, option: str = "port") -> socket.socket:
    try:
        return bind(host, port, option)
    except BindError as error:
        raise CommandError(str(error)) from None


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
    token = settings.admin_token.get_secret_value() if settings.admin_token is not None else None
    if token is None and not _is_loopback(host):
        raise CommandError(
            f"the admin listener on {host} is open to others: set GATEWAY_ADMIN_TOKEN, which its callers must send, "
            "or bind it to 127.0.0.1 (GATEWAY_ADMIN_HOST)"
        )
    # With any free port for clients, as in tests, the admin listener must not use a fixed port either.
    port = 0 if settings.port == 0 and not chosen else settings.admin_port
    names = _THIS_MACHINE | {f"[{host}]" if ":" in host else host.lower()}
    if given is not None:
        return given, Guard(token, names)
    if or_a_free_port and not chosen:
        try:
            return bind(host, port, "admin-port"), Guard(token, names)
        except BindError:
            port = 0
    return _bind(host, port, "admin-port"), Guard(token, names)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
