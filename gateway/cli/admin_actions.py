"""Run actions on stored clients: in the database of a state directory, or through a running gateway's admin API."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlencode

from gateway.changes.stored_clients import ClientDatabase, state_pepper
from gateway.cli.terminal import admin_client, compile_file, operator_of, settings_of
from gateway.config.problems import visible
from gateway.files import path_exists
from gateway.installation import client_store
from gateway.model.config_version import ConfigVersion
from gateway.model.stored_client import ConfigFacts, facts_of
from gateway.operator_errors import CommandError
from gateway.service.admin_operations import Given, Operation
from gateway.service.client_admin import AdminRefused, ClientAdmin, FileClients, Json, clients_in_file
from gateway.settings import Settings
from gateway.state.client_store import ClientStore, has_clients
from gateway.state.lock import InUse, holder_of
from gateway.telemetry.log import configure
from providers.auth import Secret
from providers.value import replace

_PATH = "/v1/admin"


class RemoteActions:
    """The actions of a running gateway, through its admin API."""

    def __init__(self, url: str, settings: Settings, operator: str) -> None:
        self._client = admin_client(url, settings)
        self._operator = operator

    def run(self, operation: Operation, given: Given) -> Json:
        path = operation.path.format_map({name: quote(str(value), safe="") for name, value in given.items()})
        rest = {it.name: given[it.name] for it in operation.fields if f"{{{it.name}}}" not in operation.path}
        rest = {name: value for name, value in rest.items() if value is not None}
        if operation.method == "GET":
            return self._call("GET", path + (f"?{urlencode(rest)}" if rest else ""))
        return self._call(operation.method, path, {**rest, **given.get("definition", {})} or None)

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        status, answer = self._client.call(method, _PATH + path, body, self._operator)
        problem = answer.get("error")
        if isinstance(problem, dict):
            raise AdminRefused(status, str(problem.get("code")), visible(str(problem.get("message"))), problem)
        return dict(answer)


class LocalActions(ClientAdmin):
    """The actions on the files of a state directory. A gateway may run with it."""

    def __init__(self, store: ClientStore, config: _Config, operator: str) -> None:
        super().__init__(store, config.facts, lambda: config.pepper(config.facts()), operator)
        self._config = config

    def run(self, operation: Operation, given: Given) -> Json:
        names_user = given.get("user") is not None
        config = self._config.version(resolve_secrets=names_user) if operation.uses_config else None
        return operation.run(operation.on(self, config), given)


class FileActions(FileClients):
    """The operations that show the clients of the config file."""

    def run(self, operation: Operation, given: Given) -> Json:
        return operation.run(self, given)


Actions = LocalActions | RemoteActions | FileActions


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Actions]:
    """Provide the actions of `--admin`, or of the state directory. Raises CommandError."""
    settings = settings_of(options)
    operator = operator_of(options)
    if not operator.isprintable():
        raise CommandError("--as must have printable characters only, because the audit trail shows it")
    if options.admin is not None:
        yield RemoteActions(options.admin, settings, operator)
        return
    if settings.state_dir is None:
        if hasattr(options, "section") and path_exists(settings.config):
            version = compile_file(settings.config, resolve_secrets=False).config
            if _shows_file(options, facts := facts_of(version, str(settings.config.absolute()))):
                yield FileActions(version)
                return
            _expect_database(options, facts)
        if options.command in ("budgets show", "quotas") and path_exists(settings.config):
            version = compile_file(settings.config, resolve_secrets=False).config
            if version.stores is not None and version.stores.valkey is not None:
                # The counts are in Valkey. Nothing is written to this directory that is needed later.
                with TemporaryDirectory() as folder:
                    yield from _opened_directory(options, settings, Path(folder), operator)
                return
        raise CommandError("name the state directory of the gateway with --state, or its admin listener with --admin")
    yield from _opened_directory(options, settings, settings.state_dir, operator)


def _opened_directory(
    options: argparse.Namespace, settings: Settings, directory: Path, operator: str
) -> Iterator[Actions]:
    # Lines of the log must not be a part of the output, which may be JSON.
    configure(settings.log_format, "warning", sys.stderr)
    config = _Config(options, settings, directory)
    if hasattr(options, "section"):  # a command about clients, projects or keys
        if _shows_file(options, config.facts()):
            yield FileActions(config.in_file())
            return
        # Nothing is created before this check.
        _expect_database(options, config.facts())
    of_every_key = hasattr(options, "operation") and options.operation.is_of_every_key
    with closing(config.opened_store(of_every_key=of_every_key)) as store:
        yield LocalActions(store, config, operator)
        if store.is_writable:
            config.remember(store)
            append_entries(store, directory)


def _shows_file(options: argparse.Namespace, facts: ConfigFacts) -> bool:
    return facts.source == "file" and bool(options.operation.shows_file)


def _expect_database(options: argparse.Namespace, facts: ConfigFacts) -> None:
    """Raise AdminRefused for a command about clients that are in the config file."""
    if facts.source == "file" and not options.operation.of_file:
        name = getattr(options, "client", None) or getattr(options, "name", None) or "NAME"
        raise clients_in_file(options.command, name, facts)


def append_entries(store: ClientStore, directory: Path) -> None:
    """Append the entries of the changes to the audit trail, unless a gateway runs, which does this itself."""
    from gateway.changes.change_log import ChangeLog

    if not store.has_entries():
        return
    try:
        with closing(ChangeLog(directory)) as change_log:
            store.move_entries(lambda entry: change_log.note(entry.event, entry.fields))
    except InUse:
        return


class _Config:
    """The config that the stored clients belong to."""

    def __init__(self, options: argparse.Namespace, settings: Settings, directory: Path) -> None:
        self._directory = directory
        self._is_named = options.config is not None
        self._is_chosen = "config" in settings.model_fields_set
        self._path = settings.config
        self._facts: ConfigFacts | None = None

    def facts(self) -> ConfigFacts:
        """Return the facts of the active config: as a running gateway stored them, or of the config file itself."""
        self._facts = self._facts or self._read_facts()
        return self._facts

    def _read_facts(self) -> ConfigFacts:
        known = None
        if has_clients(self._directory):
            with closing(ClientStore(self._directory)) as store:
                known = store.facts()
        if known is not None and holder_of(self._directory) is not None:
            self._path = Path(known.config)
            return known
        if not self._is_named and known is not None:
            self._path = Path(known.config)
        if known is None and not self._is_chosen:  # a config in the current folder may be that of another gateway
            raise CommandError(
                f"no gateway has used the state directory {self._directory} yet, so its config is not known: name the "
                "config file of the gateway with --config"
            )
        if not path_exists(self._path):
            if known is not None:
                return known
            raise CommandError(f"there is no config at {self._path}: name the config file of the gateway with --config")
        try:
            return facts_of(compile_file(self._path, resolve_secrets=False).config, str(self._path.absolute()))
        except CommandError:
            if known is not None and not self._is_named:
                return known
            raise

    def opened_store(self, *, of_every_key: bool) -> ClientStore:
        """Open the database of the clients, or of every key. Raises CommandError if its password can't be read here."""
        if self.facts().is_shared or (of_every_key and self._compiled().stores is not None):
            return client_store(self._resolved("`stores.database`"), self._directory)
        return ClientStore(self._directory)

    def _compiled(self) -> ConfigVersion:
        self.facts()
        return compile_file(self._path, resolve_secrets=False).config

    def _resolved(self, needed: str) -> ConfigVersion:
        """Return the config version with its secrets. Raises CommandError if they cannot be read here."""
        try:
            return compile_file(self._path).config
        except CommandError as error:
            hint = "set the variables of the gateway here too, or use --admin URL"
            raise CommandError(f"{needed} needs secrets, and the config has errors here; {hint}:\n{error}") from None

    def remember(self, store: ClientStore) -> None:
        """Store the facts of the config file for later commands, unless a gateway runs, which does this itself."""
        if self._facts is not None and holder_of(self._directory) is None:
            store.store_facts(self._facts)

    def version(self, *, resolve_secrets: bool) -> ConfigVersion:
        """Return the config version with the stored clients, secrets and passwords."""
        config = self._compiled()
        if resolve_secrets or config.stores is not None:
            config = self._resolved("`stores`" if config.stores is not None else "the pseudonym of an end user")
        store = client_store(config, self._directory)
        with closing(store):
            return ClientDatabase(self._directory, config_path=str(self._path.absolute()), store=store).stage(config)

    def in_file(self) -> ConfigVersion:
        """Return the config version of the file, with the blocks of keys that the state directory has."""
        config = self._compiled()
        if not has_clients(self._directory):
            return config
        with closing(ClientStore(self._directory)) as store:
            return replace(config, blocked_keys=store.last_blocked())

    def pepper(self, facts: ConfigFacts) -> Secret:
        """Return the newest pepper. Raises CommandError if it is in the config and cannot be read here."""
        if facts.pepper == "state":
            return state_pepper(self._directory)
        return self._resolved("a new key").secrets.pepper[0]
