"""The commands `gateway init`, `check`, `explain` and `schema`.

Large imports are inside the functions, so that a command imports only what it needs and `--help` starts fast.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from shlex import quote
from urllib.parse import urlencode

from gateway.cli import terminal
from gateway.config.check_report import check_document, rejected_config, render_matrix, render_problems, sound_text
from gateway.config.examples import example_names, schema_file, starting_files
from gateway.config.loading import Document, read_config
from gateway.config.problems import ConfigRejected, visible
from gateway.config.sensitive_keys import secrets_in_clear
from gateway.features.configuration import schema_json
from gateway.files import path_exists
from gateway.model.approval import begun_everywhere, days_at
from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import AddressReport, Reports
from gateway.model.stored_client import LISTENER_CLOSED
from gateway.operator_errors import CommandError, StateError
from gateway.settings import Settings
from gateway.state.history import has_history
from providers.registry import load_registry
from providers.territories import TerritoryError
from providers.value import replace

_OK, _REFUSED = 0, 1
_STRICT = "--strict: the warnings are treated as errors"


def init(options: argparse.Namespace) -> int:
    """Write a starting config, its JSON Schema and the list of keys (`gateway init`)."""
    if options.source is not None:
        return _init_from(options)
    if options.to is not None:
        raise CommandError("--to belongs to --from; name the directory alone: gateway init DIR")
    directory: Path = options.directory or Path()
    if options.example not in (None, *example_names()):
        raise CommandError(f"there is no example {options.example!r}; the examples are: {', '.join(example_names())}")
    files = starting_files(options.example)
    terminal.write_new(directory, files)
    example = directory / "env.example"
    config, keys = quote(str(directory / "gateway.yaml")), quote(os.path.join(".", example))
    print(f"\nNext: write your keys into {example}. In gateway.yaml, set the deployments and routes, the")
    print("clients (`gateway key new`) and the signals of a caller's location (`location`). Then run\n")
    print(f"  set -a; . {keys}; set +a\n  gateway check {config}\n  gateway serve --config {config}")
    return _OK


def _init_from(options: argparse.Namespace) -> int:
    """Write the files that a config of LiteLLM, or our own with ended providers, becomes; print what is missing."""
    from gateway.config.ended_providers import successors_written
    from gateway.litellm.conversion import convert_litellm

    if options.example is not None:
        raise CommandError("--from and --example both name a config to start from: give only one of them")
    if options.to is not None and options.directory is not None:
        raise CommandError("DIR and --to both name the directory: give only one of them")
    source: Path = options.source
    directory: Path = options.to or options.directory or Path()
    if not path_exists(source):
        raise CommandError(f"there is no file {source}")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    try:
        data = read_config(source)
        if (own := successors_written(data, source.name)) is not None:
            text, changes = own
            if not changes:
                raise CommandError(f"{source} names no provider that has ended: there is nothing to change")
            print(f"\nchanged: {len(changes)}", *changes, sep="\n  ")
            print()
            terminal.write_new(directory, {"gateway.yaml": text, **schema_file()})
            written = quote(str(directory / "gateway.yaml"))
            print(f"\nNext: set the keys of the new providers, and run\n  gateway check {written}")
            return _OK
        converted = convert_litellm(data, source.name, load_registry(), today)
    except ConfigRejected as error:
        raise rejected_config(error.problems) from None
    for title, lines in {"gaps to fill": converted.gaps, **converted.report}.items():
        print(f"\n{title}: {len(lines)}", *lines, sep="\n  ")
    if converted.opened and not options.accept:
        print("\nNo file was written: what is closed there would be open here. Change the source, or add --accept")
        return _REFUSED
    print()
    terminal.write_new(directory, converted.files)
    print(f"\nNext: fill the lines `# GAP` in {directory / 'gateway.yaml'}, and run")
    print(f"  gateway check --no-secrets {quote(str(directory / 'gateway.yaml'))}")
    return _OK


def check(options: argparse.Namespace) -> int:
    """Print the problems of a config or, if it has none, its routes by region (`gateway check`)."""
    if options.file is not None and options.config is not None:
        raise CommandError("FILE and --config both name the config: give only one of them")
    settings = terminal.settings_of(options)
    path = options.file or settings.config
    terminal.print_pinned_version(settings)
    now_s = time.time() if options.at is None else begun_everywhere(options.at)
    document, compiled = terminal.compile_document(
        path, resolve_secrets=not options.no_secrets, every_warning=options.all, clock=lambda: now_s
    )
    if any(problem.fails_check for problem in compiled.warnings):
        problems = [
            replace(problem, severity="error") if problem.fails_check else problem for problem in compiled.warnings
        ]
        raise rejected_config(tuple(problems), every_warning=options.all)
    _print_unkept(document)
    is_unknown = _print_unknown_predecessor(settings, compiled.config)
    _print_closed_listener(settings, compiled.config)
    needs = compiled.config.needs_state_dir if settings.state_dir is None else ""
    if needs:
        word = "warning: " if options.no_secrets else ""
        terminal.tell(
            f"{word}{needs} needs a state directory: set GATEWAY_STATE_DIR, without which `gateway serve` refuses this "
            "file"
        )
    refused_by_strict = options.strict and bool(compiled.warnings or is_unknown)
    refused = bool(needs and not options.no_secrets) or refused_by_strict
    if compiled.warnings:
        print(render_problems(compiled.warnings, every_warning=options.all), file=sys.stderr)
    missing_simulators = _missing_simulators(compiled.config) if compiled.config.demo else []
    for reason in missing_simulators:
        terminal.tell(reason)
    if options.json:
        print(terminal.json_text(check_document(compiled.config, compiled.warnings)))
    else:
        print(render_matrix(compiled.config, days_at(now_s), now_s, every_territory=options.all))
    refused = refused or bool(missing_simulators)
    verdict = _STRICT if refused_by_strict else "refused: see the messages above"
    # The last line states whether there was an error. The only output of --json is the document.
    last = verdict if refused else sound_text(compiled.warnings)
    print(f"\n{last}", file=sys.stderr if options.json else sys.stdout)
    return _REFUSED if refused else _OK


def _print_unkept(document: Document) -> None:
    """Print a warning if the history will not keep the text of this config."""
    if keys := secrets_in_clear(document.source.values):
        terminal.tell(
            f"warning: this configuration will not be in the history, because a secret is written in it "
            f"({', '.join(keys[:3])}): `gateway rollback` cannot return to it, and `gateway evidence` cannot show it"
        )


def _print_unknown_predecessor(settings: Settings, config: ConfigVersion) -> bool:
    """Print and return whether regions are protected that the state directory can compare with nothing."""
    protected = [name for name, region in config.regions.items() if region.protected]
    has_database = config.stores is not None and config.stores.database is not None
    if not protected or has_database or settings.state_dir is None or has_history(settings.state_dir):
        return False
    terminal.tell(
        f"warning: {', '.join(protected)}: protected, and {settings.state_dir} has no earlier version, so the "
        "next start checks no signature; GATEWAY_REQUIRE_STATE=true refuses such a start"
    )
    return True


def _print_closed_listener(settings: Settings, config: ConfigVersion) -> None:
    """Print a note if a gateway with this config and state directory would have a closed admin listener."""
    from gateway.state.client_store import ClientStore, has_clients

    if settings.state_dir is None or settings.admin_token or config.gives_roles or not has_clients(settings.state_dir):
        return
    try:
        with closing(ClientStore(settings.state_dir)) as store:
            is_closed = store.is_closed() and not store.tokens()
    except StateError as error:
        terminal.tell(error)
        return
    if is_closed:
        terminal.tell(LISTENER_CLOSED)


def _missing_simulators(config: ConfigVersion) -> list[str]:
    """Return a message for each provider without a simulator. A demo can't start without it."""
    from providers.testkit.simulator import NoSimulator, load_simulators

    reasons = []
    for provider in sorted({deployment.provider for deployment in config.deployments.values()}):
        try:
            load_simulators().named(provider)
        except NoSimulator as error:
            reasons.append(str(error))
    return reasons


def explain(options: argparse.Namespace) -> int:
    """Print which deployments would answer a caller, and why (`gateway explain`)."""
    from gateway.service.explain import PlainRequest, explain_text
    from gateway.service.explain import explain as explanation_of

    if options.request is not None:
        from gateway.cli.past_requests import explain_past

        return explain_past(options)
    if options.log is not None:
        raise CommandError("--log belongs to a request that has ended: add --request ID")
    settings = terminal.settings_of(options)
    if options.admin is not None:
        print(_explained_there(options, settings))
        return _OK
    terminal.print_pinned_version(settings)
    config = _at_running_shares(
        terminal.compile_file(settings.config, resolve_secrets=not options.no_secrets).config, settings
    )
    client = _client(config, options.client)
    assistant = _assistant(config, client, options.assistant).for_use(options.use or "chat")
    if options.intent is not None:
        known = [intent.name for intent in assistant.intents]
        if options.intent not in (*known, "default"):
            raise CommandError(f"there is no intent {options.intent!r}; the intents are: {', '.join(known) or 'none'}")
        assistant = assistant.for_intent(options.intent)
    reports = _reports(config, options.territory, options.age_band)
    if options.ip is not None:
        reports = reports.with_report("geoip", _address_report(config, options.ip))
    request = PlainRequest(config, client, reports, assistant, time.time(), user=options.user, prefer=options.prefer)
    print(terminal.json_text(explanation_of(request)) if options.json else explain_text(request))
    return _OK


def _explained_there(options: argparse.Namespace, settings: Settings) -> str:
    """Return how the running gateway would route a request, as its admin listener explains it. Raises CommandError."""
    if options.ip is not None:
        raise CommandError("--ip is looked up here, in the database of a config: leave out --admin, or name a --from")
    names = "assistant territory client user intent prefer age_band use".split()
    query: dict[str, object] = {name: value for name in names if (value := getattr(options, name)) is not None}
    client = terminal.admin_client(options.admin, settings)
    if options.json:
        return terminal.json_text(client.report("/explain", query, ("location", "outcome", "considered")))
    text = client.get(f"/explain?{urlencode({**query, 'form': 'text'})}")
    return "\n".join(map(visible, text.splitlines()))


def _at_running_shares(config: ConfigVersion, settings: Settings) -> ConfigVersion:
    """Return the config with the shares of its canary schedules in the state directory, if there is one."""
    if settings.state_dir is None or not path_exists(settings.state_dir / "canary.db"):
        return config

    from gateway.changes.schedules import with_stored_shares
    from gateway.state.schedules import ScheduleStore

    with closing(ScheduleStore(settings.state_dir)) as store:
        return with_stored_shares(config, store)


def _address_report(config: ConfigVersion, text: str) -> AddressReport:
    """Return what the database of the config has about an address."""
    import asyncio

    from gateway.policy.location.geoip import AddressQuestion, GeoIpRules
    from gateway.policy.location.trusted_edge import parse_address
    from gateway.service.address_database import AddressDatabase

    rules, address = config.location.rules.of(GeoIpRules), parse_address(text)
    if address is None:
        raise CommandError(f"--ip: {text!r} is not an address, such as 203.0.113.9 or 2001:db8::9")
    if rules is None:
        raise CommandError("--ip needs a database of addresses: write `location.geoip`")
    if "geoip" not in config.location.rules.signals:
        terminal.tell("--ip has no effect: `geoip` is not among `location.signals`")
    database = AddressDatabase(rules, None, None, terminal.tell, time.time, time.monotonic)
    return asyncio.run(database.answer(AddressQuestion(address)))


def schema(options: argparse.Namespace) -> int:
    """Print the config's JSON Schema, or a page of its keys (`gateway schema`)."""
    from gateway.config.reference import reference_page

    if options.catalogue:
        from gateway.config.operator_catalogue import catalogue_schema_json

        print(catalogue_schema_json())
        return _OK
    print(reference_page(schema_json()) if options.markdown else schema_json(), end="" if options.markdown else "\n")
    return _OK


def _client(config: ConfigVersion, name: str | None) -> Client | None:
    if name is None:
        return None
    clients = {client.name: client for client in config.clients.values()}
    if name not in clients:
        raise CommandError(f"there is no client {name!r}; the clients are: {', '.join(sorted(clients)) or 'none'}")
    return clients[name]


def _assistant(config: ConfigVersion, client: Client | None, name: str | None) -> Assistant:
    from gateway.service.assistants import AssistantNotFound, assistants_of, find_assistant

    names = sorted({assistant.name for assistant in assistants_of(config, client).values()})
    if name is None and len(names) != 1:
        raise CommandError(f"--assistant is missing; the assistants are: {', '.join(names)}")
    try:
        return find_assistant(config, client, name or names[0])
    except AssistantNotFound as error:
        near = " or ".join(error.nearest)
        hint = f"did you mean {near}?" if near else f"the assistants are: {', '.join(names)}"
        raise CommandError(f"there is no assistant {error.name!r}; {hint}") from None


def _reports(config: ConfigVersion, territory: str | None, age_band: str | None) -> Reports:
    """Return what a signal such as a trusted edge would report. Prints a note if the config has no such signal."""
    from gateway.service.explain import reports_from, why_not_supposed

    if territory is None:
        return Reports()
    try:
        reports = reports_from(territory, age_band)
    except TerritoryError as error:
        raise CommandError(f"--from: {error}") from None
    if reason := why_not_supposed(config, territory):
        terminal.tell(f"--from has no effect: {reason}")
    return reports
