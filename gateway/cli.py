"""The `gateway` command. Heavy imports wait until a command needs them, so that `--help` is quick."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.compile import Compiled
    from gateway.settings import Settings

__all__ = ["main"]

_OK, _FAILED, _USAGE = 0, 1, 2


class _CommandError(Exception):
    """Something the person at the terminal has to mend; shown as one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the value is the process's exit status: 0 done, 1 found wrong, 2 can't be run like that."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except _CommandError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return _USAGE
    except BrokenPipeError:
        sys.stderr.close()
        return _OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway", description="One chat endpoint for AI assistants, answered by region, inside its boundary."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a config")
    _add_config(serve)
    _add_listener(serve)
    serve.set_defaults(run=_serve)

    demo = commands.add_parser("demo", help="serve simulated providers: no key, no network")
    demo.add_argument("--config", type=Path, metavar="FILE", help="another demo config")
    _add_listener(demo)
    demo.set_defaults(run=_demo)

    init = commands.add_parser("init", help="write an annotated config to start from")
    init.add_argument("directory", nargs="?", type=Path, default=Path("."), metavar="DIR", help="where (default: here)")
    init.set_defaults(run=_init)

    check = commands.add_parser("check", help="say everything that is wrong with a config, and what it does")
    check.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default: GATEWAY_CONFIG or config/gateway.yaml"
    )
    check.add_argument("--strict", action="store_true", help="warnings are errors")
    check.add_argument("--no-secrets", action="store_true", help="don't look up ${…} references; for CI")
    check.set_defaults(run=_check)

    explain = commands.add_parser("explain", help="say who would answer a caller, and why")
    _add_config(explain)
    explain.add_argument("--assistant", metavar="NAME", help="the only one, if there is one")
    explain.add_argument("--from", dest="territory", metavar="CN", help="the country that an edge would tell")
    explain.add_argument("--client", metavar="NAME", help="as this client of the config")
    explain.add_argument("--json", action="store_true", help="for programs")
    explain.set_defaults(run=_explain)

    schema = commands.add_parser("schema", help="print the config's JSON Schema, for editors")
    schema.set_defaults(run=_schema)

    key = commands.add_parser("key", help="client keys")
    key_commands = key.add_subparsers(required=True, metavar="COMMAND")
    key_new = key_commands.add_parser("new", help="make a key, and the hash of it that goes into the config")
    key_new.set_defaults(run=_key_new)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the config (default: GATEWAY_CONFIG or config/gateway.yaml)"
    )


def _add_listener(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="ADDRESS", help="the address to bind (default: GATEWAY_HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="the port (default: GATEWAY_PORT or 8080; 0: a free one)")


def _version() -> str:
    from gateway import __version__

    return __version__


def _settings(options: argparse.Namespace) -> Settings:
    from pydantic import ValidationError

    from gateway.settings import Settings

    given = {name: getattr(options, name, None) for name in ("config", "host", "port")}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise _CommandError(f"GATEWAY_{name.upper()} (or --{name}): {first['msg']}") from None


def _compile(
    path: Path,
    *,
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
    resolve_secrets: bool = True,
) -> Compiled:
    from gateway.config.compile import compile_config
    from gateway.config.load import load_document
    from providers.registry import load_registry

    if not path.exists():
        raise _CommandError(f"there is no config at {path}; `gateway init` writes one, `gateway demo` needs none")
    document = load_document(path, os.environ, secrets=resolve_secrets)
    return compile_config(document, registry=load_registry(), simulators=simulators, demo=demo)


def _serve(options: argparse.Namespace) -> int:
    from gateway.config.problems import ConfigRejected
    from gateway.config.report import render_problems
    from gateway.telemetry.log import configure, logger

    settings = _settings(options)
    configure(settings.log_format, settings.log_level)
    try:
        compiled = _compile(settings.config)
    except ConfigRejected as error:
        print(render_problems(error.problems), file=sys.stderr)
        return _FAILED
    if compiled.table.demo:
        return _serve_demo(settings, settings.config)
    for warning in compiled.warnings:
        logger().warning("config", detail=str(warning))
    _serve_table(settings, compiled)
    return _OK


def _serve_table(settings: Settings, compiled: Compiled) -> None:
    from gateway.app import Gateway
    from gateway.serve import GatewayServer, run, server_config
    from gateway.telemetry.log import logger

    table = compiled.table
    if not table.clients and not _is_loopback(settings.host):
        raise _CommandError(
            f"this config has no clients, so it serves this machine only, and {settings.host} is open to others: "
            "add `clients` (gateway key new makes a key), or bind 127.0.0.1"
        )
    listener = _bind(settings)
    host, port = listener.getsockname()[:2]

    async def started() -> None:
        logger().info("listening", url=f"http://{host}:{port}", config=str(settings.config), table=table.version)

    server = GatewayServer(server_config(Gateway(table), settings.grace_s), started)
    run(server.serve([listener]))


def _bind(settings: Settings):  # type: ignore[no-untyped-def]  # a socket, whose module --help does without
    from gateway.serve import BindError, bind

    try:
        return bind(settings.host, settings.port)
    except BindError as error:
        raise _CommandError(str(error)) from None


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _demo(options: argparse.Namespace) -> int:
    from gateway.config.examples import example_path
    from gateway.telemetry.log import configure

    path = options.config or example_path("demo.yaml")
    settings = _settings(options)
    configure(settings.log_format, "warning")
    return _serve_demo(settings, path)


def _serve_demo(settings: Settings, path: Path) -> int:
    from gateway.config.problems import ConfigRejected
    from gateway.config.report import render_problems
    from gateway.demo import run_demo, simulated_sites
    from gateway.serve import run
    from gateway.telemetry.log import configure

    try:
        sites = simulated_sites(_compile(path, demo=True).table)
    except ConfigRejected as error:
        print(render_problems(error.problems), file=sys.stderr)
        return _FAILED
    listener = _bind(settings)
    run(
        run_demo(
            listener,
            sites,
            lambda origins: _compile(path, demo=True, simulators=origins).table,
            settings.grace_s,
            lambda text: print(text, flush=True),
            lambda: configure(settings.log_format, settings.log_level),
        )
    )
    return _OK


def _init(options: argparse.Namespace) -> int:
    from gateway.config.examples import example_path

    directory: Path = options.directory
    written = {name: directory / name for name in ("gateway.yaml", "gateway.schema.json", "env.example")}
    taken = [str(path) for path in written.values() if path.exists()]
    if taken:
        raise _CommandError(f"{', '.join(taken)} exists already; nothing was written")
    directory.mkdir(parents=True, exist_ok=True)
    for name, path in written.items():
        path.write_bytes(example_path(name).read_bytes())
        print(f"wrote {path}")
    print(f"\nNext: set the keys of {written['env.example']} in the environment, then")
    print(f"  gateway check {written['gateway.yaml']}\n  gateway serve --config {written['gateway.yaml']}")
    return _OK


def _check(options: argparse.Namespace) -> int:
    from gateway.config.problems import ConfigRejected
    from gateway.config.report import render_matrix, render_problems

    path = options.file or _settings(options).config
    try:
        compiled = _compile(path, resolve_secrets=not options.no_secrets)
    except ConfigRejected as error:
        print(render_problems(error.problems), file=sys.stderr)
        return _FAILED
    if compiled.warnings:
        print(render_problems(compiled.warnings), file=sys.stderr)
    print(render_matrix(compiled.table))
    return _FAILED if options.strict and compiled.warnings else _OK


def _explain(options: argparse.Namespace) -> int:
    from gateway.config.problems import ConfigRejected
    from gateway.config.report import render_problems
    from gateway.policy.location import EdgeReport, Sighting
    from gateway.service.explain import explain, explain_text
    from gateway.service.journey import AssistantNotFound, find_assistant

    try:
        table = _compile(_settings(options).config).table
    except ConfigRejected as error:
        print(render_problems(error.problems), file=sys.stderr)
        return _FAILED
    clients = {client.name: client for client in table.clients.values()}
    if options.client is not None and options.client not in clients:
        raise _CommandError(f"there is no client {options.client!r}; there are: {', '.join(sorted(clients)) or 'none'}")
    client = clients.get(options.client) if options.client is not None else None
    names = sorted({assistant.name for assistant in table.assistants.values()})
    if options.assistant is None and len(names) != 1:
        raise _CommandError(f"say which --assistant: {', '.join(names)}")
    try:
        assistant = find_assistant(table, client, options.assistant or names[0])
    except AssistantNotFound as error:
        hint = f"; did you mean {error.nearest}?" if error.nearest else ""
        raise _CommandError(f"there is no assistant {error.name!r}{hint}") from None
    sighting = Sighting(EdgeReport("--from", (options.territory,))) if options.territory else Sighting()
    if options.json:
        print(json.dumps(explain(table, client, sighting, assistant, {}), indent=2, ensure_ascii=False))
    else:
        print(explain_text(table, client, sighting, assistant))
    return _OK


def _schema(_: argparse.Namespace) -> int:
    from gateway.config.schema import schema_json

    print(schema_json())
    return _OK


def _key_new(_: argparse.Namespace) -> int:
    import hashlib
    import secrets

    key = f"gk-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    print(f"key   {key}\n      give it to the client app; it is shown only now\n")
    print(f"hash  sha256:{digest}\n      goes under clients.NAME.keys in the config")
    return _OK


if __name__ == "__main__":
    raise SystemExit(main())
