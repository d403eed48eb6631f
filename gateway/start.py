"""From settings and a compiled config to a process that serves: its listeners, its live config, its workers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path

from gateway.api.admin import Guard
from gateway.channel import Serve
from gateway.commands import CommandError, compile_file
from gateway.compiling import Order
from gateway.config.compile import Compiled
from gateway.live import Live
from gateway.model.table import Table
from gateway.packing import TableNotPortable, pack
from gateway.serve import BindError, bind, run, url_of
from gateway.settings import Settings
from gateway.telemetry.log import configure, logger

__all__ = ["serve_demo", "serve_table"]

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})


def serve_table(settings: Settings, compiled: Compiled) -> None:
    """Serve a config to the end, as one process or several; raises CommandError, SystemExit with a worker's failure."""
    table = compiled.table
    if (reason := _why_not(settings, table)) is not None:
        raise CommandError(reason)
    listener, admin_listener, guard = _listeners(settings)
    live = Live(Order(str(settings.config)), compiled, why_not=lambda table: _why_not_from_now_on(settings, table))

    def listening(**more: int) -> None:
        told = {"url": url_of(listener), "admin": url_of(admin_listener), "config": str(settings.config)}
        logger().info("listening", **told, table=table.version, **more)

    if settings.workers > 1:
        _serve_with_workers(settings, table, listener, live, (admin_listener, guard), listening)
        return

    async def started() -> None:
        listening()

    from gateway.app import Gateway, transport_named
    from gateway.single import serve_single

    gateway = Gateway(table, transport_named(settings.transport))
    run(serve_single(gateway, listener, settings.grace_s, live, (admin_listener, guard), started))


def _serve_with_workers(
    settings: Settings,
    table: Table,
    listener: socket.socket,
    live: Live,
    admin: tuple[socket.socket, Guard],
    listening: Callable[..., None],
) -> None:
    from gateway.supervisor import supervise

    try:
        packed = pack(table)
    except TableNotPortable as error:
        raise CommandError(f"{error}, or serve without --workers") from None
    serve = Serve(packed, settings.transport, settings.grace_s, settings.log_format, settings.log_level)
    status = supervise(listener, settings.workers, serve, live, admin, lambda: listening(workers=settings.workers))
    if status:
        raise SystemExit(status)


def serve_demo(settings: Settings, path: Path) -> None:
    """Serve simulated providers to the end."""
    from gateway.demo import run_demo, simulated_sites

    sites = simulated_sites(compile_file(path, demo=True).table)
    listener, admin_listener, guard = _listeners(settings, or_a_free_port=True)
    demo = run_demo(
        listener,
        (admin_listener, guard),
        sites,
        lambda origins: compile_file(path, demo=True, simulators=origins),
        lambda origins: Order(str(path), True, origins),
        settings.grace_s,
        lambda text: print(text, flush=True),
        lambda: configure(settings.log_format, settings.log_level),
    )
    run(demo)


def _why_not(settings: Settings, table: Table) -> str | None:
    """Why this table can't be served with these settings."""
    if table.clients or _is_loopback(settings.host):
        return None
    return (
        f"this config has no clients, so it serves this machine only, and {settings.host} is open to others: "
        "add `clients` (gateway key new makes a key), or bind 127.0.0.1"
    )


def _why_not_from_now_on(settings: Settings, table: Table) -> str | None:
    """Why this table can't take the place of the one that is served."""
    if table.demo:
        return "`demo: true` takes any key and any peer, so it can't be switched on while serving; start it as a demo"
    return _why_not(settings, table)


def _listeners(settings: Settings, *, or_a_free_port: bool = False) -> tuple[socket.socket, socket.socket, Guard]:
    """The public listener, the admin listener and its guard; raises CommandError where one of them can't be had."""
    listener = _bind(settings.host, settings.port)
    try:
        return listener, *_admin(settings, or_a_free_port=or_a_free_port)
    except CommandError:
        listener.close()
        raise


def _bind(host: str, port: int, option: str = "port") -> socket.socket:
    try:
        return bind(host, port, option)
    except BindError as error:
        raise CommandError(str(error)) from None


def _admin(settings: Settings, *, or_a_free_port: bool = False) -> tuple[socket.socket, Guard]:
    """The admin listener's socket and guard; raises CommandError."""
    host, chosen = settings.admin_host, "admin_port" in settings.model_fields_set
    token = settings.admin_token.get_secret_value() if settings.admin_token is not None else None
    if token is None and not _is_loopback(host):
        raise CommandError(
            f"the admin listener on {host} is open to others: set GATEWAY_ADMIN_TOKEN, which its callers must send, "
            "or bind it to 127.0.0.1 (GATEWAY_ADMIN_HOST)"
        )
    # Who takes whatever port is free for clients, as tests do, doesn't want a fixed one here either.
    port = 0 if settings.port == 0 and not chosen else settings.admin_port
    names = _THIS_MACHINE | {f"[{host}]" if ":" in host else host.lower()}
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
