"""What each command of the `gateway` command line does, once its options are read; the value is its exit status.

Heavy imports stand inside the functions: a command imports what it needs, and `--help` nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.compile import Compiled
    from gateway.config.problems import Problem
    from gateway.model.table import Assistant, Client, Table
    from gateway.policy.location import Sighting
    from gateway.settings import Settings

__all__ = [
    "CommandError",
    "check",
    "compile_file",
    "compiled_table",
    "config_path",
    "demo",
    "explain",
    "init",
    "key_new",
    "schema",
    "serve",
    "settings_of",
    "simulate",
    "write_new",
]

_OK, _REFUSED = 0, 1
_SETTINGS = ("config", "host", "port", "admin_port", "workers", "state_dir")


class CommandError(Exception):
    """The command can't be run like that; the person at the terminal is told how to mend it."""

    status = 2

    @property
    def shown(self) -> str:
        """What is printed."""
        return f"gateway: {self}"


class _Rejected(CommandError):
    """The config is wrong; every problem is told at its place in the file."""

    status = 1

    @property
    def shown(self) -> str:
        return str(self)


def serve(options: argparse.Namespace) -> int:
    """Serve a config."""
    settings = settings_of(options)
    _expect(settings.config)
    from gateway.beginning import Opening

    opening = Opening(settings)
    # While the config is compiled apart, so that nothing of the compiler stays in the process that serves.
    from gateway import start
    from gateway.telemetry.log import configure, logger
    from gateway.telemetry.outlet import finish_all

    configure(settings.log_format, settings.log_level)
    try:
        begun = opening.begin()
        if begun.table.demo:
            if settings.workers > 1:
                raise CommandError("a demo is one process with its simulators; leave out --workers (GATEWAY_WORKERS)")
            start.serve_demo(settings, settings.config)
            return _OK
        for warning in begun.outcome.problems:
            logger().warning("config", detail=str(warning))
        start.serve_table(settings, begun)
    finally:
        # Why it can't be served is the last that is read.
        finish_all()
    return _OK


def demo(options: argparse.Namespace) -> int:
    """Serve simulated providers."""
    from gateway import start
    from gateway.config.examples import example_path
    from gateway.telemetry.log import configure

    settings = settings_of(options)
    configure(settings.log_format, "warning")
    start.serve_demo(settings, options.config or example_path("demo.yaml"))
    return _OK


def simulate(options: argparse.Namespace) -> int:
    """Serve simulated providers that fail as they are told to."""
    from gateway import start
    from gateway.config.examples import example_path
    from gateway.rehearsal import Pace
    from gateway.telemetry.log import configure

    settings = settings_of(options)
    configure(settings.log_format, settings.log_level)
    pace = Pace(options.first_token, options.between_events, options.seed)
    path = options.config or example_path("demo.yaml")
    start.serve_demo(settings, path, options.fault, [(name, fault) for name, fault in options.fault_at], pace)
    return _OK


def init(options: argparse.Namespace) -> int:
    """Write a config to start from."""
    from gateway.config.examples import example_names, starting_files

    directory: Path = options.directory
    if options.example not in (None, *example_names()):
        raise CommandError(f"there is no example {options.example!r}; the examples are: {', '.join(example_names())}")
    files = starting_files(options.example)
    write_new(directory, files)
    example = directory / "env.example"
    config, keys = quote(str(directory / "gateway.yaml")), quote(os.path.join(".", example))
    print(f"\nNext: write your keys into {example}, say in gateway.yaml who answers where, then\n")
    print(f"  set -a; . {keys}; set +a\n  gateway check {config}\n  gateway serve --config {config}")
    return _OK


def check(options: argparse.Namespace) -> int:
    """Say what is wrong with a config, and what it does."""
    from gateway.config.report import render_matrix, render_problems
    from gateway.model.approval import days_at

    path = options.file or settings_of(options).config
    compiled = compile_file(path, resolve_secrets=not options.no_secrets)
    refused = options.strict and compiled.warnings
    if compiled.warnings:
        print(render_problems(compiled.warnings), file=sys.stderr)
        print("--strict: the warnings count as errors" if refused else "", file=sys.stderr)
    print(render_matrix(compiled.table, days_at(time.time())))
    return _REFUSED if refused else _OK


def explain(options: argparse.Namespace) -> int:
    """Say who would answer a caller, and why."""
    from gateway.service.explain import explain as explained
    from gateway.service.explain import explain_text

    table = compile_file(settings_of(options).config, resolve_secrets=not options.no_secrets).table
    client = _client(table, options.client)
    assistant = _assistant(table, client, options.assistant)
    sighting = _sighting(table, options.place)
    if options.json:
        told = explained(table, client, sighting, assistant, {}, time.time(), user=options.user)
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print(explain_text(table, client, sighting, assistant, time.time(), options.user))
    return _OK


def schema(options: argparse.Namespace) -> int:
    """Print the config's JSON Schema, or a page of its keys."""
    from gateway.config.reference import reference_page
    from gateway.config.schema import schema_json

    if options.catalogue:
        from gateway.config.catalogue_schema import catalogue_schema_json

        print(catalogue_schema_json())
        return _OK
    print(reference_page() if options.markdown else schema_json(), end="" if options.markdown else "\n")
    return _OK


def key_new(options: argparse.Namespace) -> int:
    """Make a client key, or a pair that signs."""
    import hashlib
    import secrets

    if options.ed25519 is not None:
        from gateway.receipt_commands import new_key_pair

        return new_key_pair(options.ed25519)
    key = f"gk-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    print(f"key   {key}\n      for the client app; it is shown only now\n")
    print(f"hash  sha256:{digest}\n      for the config, under clients.NAME.keys")
    return _OK


# --- what several commands need -------------------------------------------------------------------


def compiled_table(options: argparse.Namespace) -> Table:
    """The table of `--config`; raises CommandError."""
    return compile_file(settings_of(options).config).table


def config_path(options: argparse.Namespace) -> Path:
    """The file of `--config`, or of the settings; raises CommandError."""
    return settings_of(options).config


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of the environment, with the options before them; raises CommandError."""
    from gateway.settings import SettingsError, read_settings

    given = {name: getattr(options, name, None) for name in _SETTINGS}
    try:
        return read_settings({name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        raise CommandError(str(error)) from None


def write_new(directory: Path, files: Mapping[str, str]) -> None:
    """Write files that aren't there yet, all or none; raises CommandError."""
    written = {directory / name: text for name, text in files.items()}
    if taken := [str(path) for path in written if path.exists()]:
        verb = "exists" if len(taken) == 1 else "exist"
        raise CommandError(f"{', '.join(taken)} {verb} already; nothing was written")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text, "utf-8")
            print(f"wrote {path}")
    except OSError as error:
        raise CommandError(f"can't write to {directory}: {error.strerror}; name another directory") from None


def compile_file(
    path: Path,
    *,
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
    resolve_secrets: bool = True,
) -> Compiled:
    """The compiled config; raises CommandError for one that isn't there or can't be used."""
    from gateway.config.compile import compile_config
    from gateway.config.load import load_document
    from gateway.config.problems import ConfigRejected
    from providers.registry import load_registry

    _expect(path)
    try:
        document = load_document(path, os.environ, secrets=resolve_secrets)
        return compile_config(document, registry=load_registry(), simulators=simulators, demo=demo)
    except ConfigRejected as error:
        raise rejected(error.problems) from None


def _expect(path: Path) -> None:
    if not path.exists():
        raise CommandError(f"there is no config at {path}; `gateway init` writes one, `gateway demo` needs none")


def rejected(problems: tuple[Problem, ...]) -> CommandError:
    """What is told of a config with these problems."""
    from gateway.config.report import render_problems

    return _Rejected(render_problems(problems))


def _client(table: Table, name: str | None) -> Client | None:
    if name is None:
        return None
    clients = {client.name: client for client in table.clients.values()}
    if name not in clients:
        raise CommandError(f"there is no client {name!r}; there are: {', '.join(sorted(clients)) or 'none'}")
    return clients[name]


def _assistant(table: Table, client: Client | None, name: str | None) -> Assistant:
    from gateway.service.journey import AssistantNotFound, assistants_of, find_assistant

    names = sorted({assistant.name for assistant in assistants_of(table, client).values()})
    if name is None and len(names) != 1:
        raise CommandError(f"say which --assistant: {', '.join(names)}")
    try:
        return find_assistant(table, client, name or names[0])
    except AssistantNotFound as error:
        near = " or ".join(error.nearest)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(names)}"
        raise CommandError(f"there is no assistant {error.name!r}; {hint}") from None


def _sighting(table: Table, place: str | None) -> Sighting:
    """What a trusted edge would bring, with a note where no edge could."""
    from gateway.policy.location import Sighting
    from gateway.service.explain import sighting_from
    from providers.territories import TerritoryError

    if place is None:
        return Sighting()
    try:
        sighting = sighting_from(place, "--from")
    except TerritoryError as error:
        raise CommandError(f"--from: {error}") from None
    if "edge_header" not in table.location.signals:
        print("gateway: --from has no effect: `edge_header` is not among `location.signals`", file=sys.stderr)
    elif not table.location.edges:
        print("gateway: this config trusts no edge (`location.edges`), so no request can bring --from", file=sys.stderr)
    return sighting
