"""`gateway init`, `check`, `explain` and `schema`: a config to start from, what is wrong with one, and what it does.

Heavy imports stand inside the functions: a command imports what it needs, and `--help` nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from gateway.cli.terminal import compile_file, settings_of, write_new
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.model.config_version import Assistant, Client, ConfigVersion
    from gateway.model.location import Reports


_OK, _REFUSED = 0, 1


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
    print(f"\nNext: write your keys into {example}, and say in gateway.yaml who answers where, who may")
    print("call (`gateway key new`), and what tells where a caller is (`location`). Then\n")
    print(f"  set -a; . {keys}; set +a\n  gateway check {config}\n  gateway serve --config {config}")
    return _OK


def check(options: argparse.Namespace) -> int:
    """Say what is wrong with a config, and what it does."""
    from gateway.config.check_report import render_matrix, render_problems
    from gateway.model.approval import days_at

    if options.file is not None and options.config is not None:
        raise CommandError("FILE and --config name the same thing: give one")
    compiled = compile_file(options.file or settings_of(options).config, resolve_secrets=not options.no_secrets)
    refused = options.strict and compiled.warnings
    if compiled.warnings:
        print(render_problems(compiled.warnings), file=sys.stderr)
        print("--strict: the warnings count as errors" if refused else "", file=sys.stderr)
    lacking = _lacking_simulators(compiled.table) if compiled.table.demo else []
    for reason in lacking:
        print(f"gateway: {reason}", file=sys.stderr)
    print(render_matrix(compiled.table, days_at(time.time())))
    return _REFUSED if refused or lacking else _OK


def _lacking_simulators(table: ConfigVersion) -> list[str]:
    """Why a demo of it can't start."""
    from providers.testkit.simulator import NoSimulator, load_simulators

    reasons = []
    for provider in sorted({deployment.provider for deployment in table.deployments.values()}):
        try:
            load_simulators().named(provider)
        except NoSimulator as error:
            reasons.append(str(error))
    return reasons


def explain(options: argparse.Namespace) -> int:
    """Say who would answer a caller, and why."""
    from gateway.service.explain import PlainRequest, explain_text
    from gateway.service.explain import explain as explained

    table = compile_file(settings_of(options).config, resolve_secrets=not options.no_secrets).table
    client = _client(table, options.client)
    assistant = _assistant(table, client, options.assistant)
    request = PlainRequest(table, client, _reports(table, options.place), assistant, time.time(), user=options.user)
    if options.json:
        print(json.dumps(explained(request), indent=2, ensure_ascii=False))
    else:
        print(explain_text(request))
    return _OK


def schema(options: argparse.Namespace) -> int:
    """Print the config's JSON Schema, or a page of its keys."""
    from gateway.config.reference import reference_page
    from gateway.config.schema.file import schema_json

    if options.catalogue:
        from gateway.config.operator_catalogue import catalogue_schema_json

        print(catalogue_schema_json())
        return _OK
    print(reference_page() if options.markdown else schema_json(), end="" if options.markdown else "\n")
    return _OK


def _client(table: ConfigVersion, name: str | None) -> Client | None:
    if name is None:
        return None
    clients = {client.name: client for client in table.clients.values()}
    if name not in clients:
        raise CommandError(f"there is no client {name!r}; there are: {', '.join(sorted(clients)) or 'none'}")
    return clients[name]


def _assistant(table: ConfigVersion, client: Client | None, name: str | None) -> Assistant:
    from gateway.service.assistants import AssistantNotFound, assistants_of, find_assistant

    names = sorted({assistant.name for assistant in assistants_of(table, client).values()})
    if name is None and len(names) != 1:
        raise CommandError(f"say which --assistant: {', '.join(names)}")
    try:
        return find_assistant(table, client, name or names[0])
    except AssistantNotFound as error:
        near = " or ".join(error.nearest)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(names)}"
        raise CommandError(f"there is no assistant {error.name!r}; {hint}") from None


def _reports(table: ConfigVersion, place: str | None) -> Reports:
    """Return what a trusted edge would report, and print a note where no edge can."""
    from gateway.model.location import Reports
    from gateway.service.explain import reports_from
    from providers.territories import TerritoryError

    if place is None:
        return Reports()
    try:
        reports = reports_from(place)
    except TerritoryError as error:
        raise CommandError(f"--from: {error}") from None
    if "edge_header" not in table.location.rules.signals:
        print("gateway: --from has no effect: `edge_header` is not among `location.signals`", file=sys.stderr)
    elif not table.location.rules.edges:
        print("gateway: this config trusts no edge (`location.edges`), so no request can bring --from", file=sys.stderr)
    return reports
