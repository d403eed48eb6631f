"""`gateway plan`: what a config would change, and what speaks against it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.terminal import settings_of
from gateway.files import path_exists
from gateway.operator_errors import CommandError, expect_file

if TYPE_CHECKING:
    from gateway.changes.compile_job import CompiledState
    from gateway.changes.plan import ChangePlan, Traffic
    from gateway.cli.admin_client import AdminClient
    from gateway.settings import Settings
    from gateway.state.history import History


_OK, _REFUSED, _CHANGES = 0, 1, 3


def plan(options: argparse.Namespace) -> int:
    """Say what a config would change, and what speaks against it."""
    from gateway.changes.plan import ChangePlan
    from gateway.changes.plan_checks import compiles
    from gateway.config.problems import ConfigRejected

    settings = settings_of(options)
    path: Path = options.file or settings.config
    before = _before(options, settings)
    try:
        after = compiled_file(path, secrets=not options.no_secrets)
    except ConfigRejected as error:
        mistakes = [str(problem) for problem in error.problems if problem.severity == "error"]
        known = before.config.version if before is not None else ""
        _show(options, ChangePlan(known, "", checks=(compiles(mistakes),)))
        return _REFUSED
    made = plan_between(before, after, options.strict)
    if options.admin is not None:
        made = _with_traffic(made, options.admin, settings)
    made = _signed(made, before, after, path, options)
    _show(options, made)
    if not made.ok:
        return _REFUSED
    return _CHANGES if options.exit_code and not made.is_empty else _OK


def _before(options: argparse.Namespace, settings: Settings) -> CompiledState | None:
    """What is active now: a version or file that is named, the last one of the history, the config file."""
    from gateway.config.check_report import render_problems
    from gateway.config.problems import ConfigRejected

    secrets = not options.no_secrets
    try:
        if options.since is not None:
            return state_named(options.since, settings, secrets=secrets)
        if options.state_dir is not None and not path_exists(options.state_dir):
            raise CommandError(
                f"there is no state directory {options.state_dir}; leave out --state to compare with a config"
            )
        if (known := _active(settings)) is not None:
            return state_named(known, settings, secrets=secrets)
        # One that is named must be there: without it, a slip of the pen would make everything new.
        is_meant = options.config is not None or path_exists(settings.config)
        return compiled_file(settings.config, secrets=secrets) if is_meant else None
    except ConfigRejected as error:
        told = render_problems(error.problems)
        raise CommandError(f"what is active can't be compiled, so nothing can be compared with it:\n{told}") from None


def _active(settings: Settings) -> str | None:
    """The version that the state directory says is active; None where there is no directory, or nothing in it.

    A history that is there and can't be read may know of another version than the config: nothing may stand in for it.
    """
    from gateway.operator_errors import StateError
    from gateway.state.history import has_history

    if settings.state_dir is None or not has_history(settings.state_dir):
        return None
    try:
        with opened(settings) as kept:
            pointer = kept.pointer()
    except StateError as error:
        raise CommandError(f"{error}; to compare with a file, name it with --from") from None
    return pointer.version if pointer is not None else None


def state_named(word: str, settings: Settings, *, secrets: bool) -> CompiledState:
    """The config in a file of that name, or the version of the history."""
    from gateway.operator_errors import StateError

    if path_exists(word) and not os.path.isdir(word):
        return compiled_file(Path(word), secrets=secrets)
    if settings.state_dir is None:
        raise CommandError(f"there is no file {word!r}, and no state directory to look for a version in (--state)")
    try:
        with opened(settings) as kept:
            found = kept.find(word)
        if found.text is None:
            raise StateError(f"version {found.version} can't be compiled again: {found.why_not}")
    except StateError as error:
        raise CommandError(f"{error}; and there is no file {word!r}") from None
    return _compiled_text(found.text, f"version {found.version}", settings.config, secrets=secrets)


def compiled_file(path: Path, *, secrets: bool) -> CompiledState:
    """The config in a file; raises ConfigRejected, CommandError where there is none."""
    from gateway.config.loading import read_config

    expect_file(path)
    return _compiled_text(read_config(path), str(path), path, secrets=secrets)


def _compiled_text(text: bytes, name: str, beside: Path, *, secrets: bool) -> CompiledState:
    from gateway.changes.compile_job import CompiledState, distinct_warnings
    from gateway.config.compile import compile_config
    from gateway.config.loading import parse_document
    from providers.registry import load_registry

    document = parse_document(text, name, os.environ, relative_to=str(beside), secrets=secrets)
    compiled = compile_config(document, registry=load_registry())
    return CompiledState(compiled.table, compiled.written, distinct_warnings(compiled.warnings))


def plan_between(before: CompiledState | None, after: CompiledState, strict: bool) -> ChangePlan:
    """What leads from the one to the other, with its checks. before: None where nothing was active."""
    from gateway.changes.plan import NO_CONFIG_VERSION, changed_keys, plan_of
    from gateway.changes.plan_checks import checks_of, compiles

    old = before.config if before is not None else NO_CONFIG_VERSION
    made = plan_of(old, after.config, tuple(changed_keys(_values(before), _values(after))))
    known = before.warnings if before is not None else ()
    news = [warning for warning in after.warnings if warning not in known]
    checks = [compiles(()), *checks_of(old, after.config, news, time.time())]
    if strict and after.warnings:
        checks[-1] = replace(checks[-1], ok=False, findings=after.warnings)
    return replace(made, checks=tuple(checks))


def _values(state: CompiledState | None) -> Mapping[str, object]:
    return state.written.values if state is not None and state.written is not None else {}


def _with_traffic(made: ChangePlan, url: str, settings: Settings) -> ChangePlan:
    from gateway.changes.plan import with_traffic
    from gateway.cli.admin_client import NotReached
    from gateway.telemetry.exposition import read_requests

    try:
        traffic: Traffic = read_requests(client_of(url, settings).get("/metrics"))
    except (NotReached, ValueError) as error:
        reason = error if isinstance(error, NotReached) else f"{url} answers no metrics"
        print(f"gateway: the share of traffic is left out: {reason}", file=sys.stderr)
        return made
    if not sum(traffic.values()):
        print("gateway: the share of traffic is left out: no request has been counted yet", file=sys.stderr)
    return with_traffic(made, traffic)


def _signed(
    made: ChangePlan, before: CompiledState | None, after: CompiledState, path: Path, options: argparse.Namespace
) -> ChangePlan:
    """With the check of protected regions; with `--sign`, the signature is written first."""
    from gateway.changes.change_log import NotSigned, read_signature, review_change, signature_file
    from gateway.changes.plan import Check
    from gateway.changes.plan_checks import protected_changes

    protected = protected_changes(before.config, after.config, made) if before is not None else {}
    if options.sign is not None:
        _sign(made, before, after, path, options)
    if before is None or not protected:
        return made
    try:
        beside = signature_file(path)
        judged = review_change(before, after, time.time(), lambda: read_signature(beside))
        check = Check("protected", True, (f"signed by the admin key {judged.signer}: {', '.join(judged.protected)}",))
    except NotSigned as error:
        check = Check("protected", False, (str(error),))
    return replace(made, checks=(*made.checks, check))


def _sign(
    made: ChangePlan, before: CompiledState | None, after: CompiledState, path: Path, options: argparse.Namespace
) -> None:
    from gateway.changes.change_log import signature_file
    from gateway.signing import KeyUnusable, Signer, sign_plan

    if not made.ok:
        raise CommandError("a plan whose checks fail is not signed; leave out --sign to see it")
    if before is None or before.written is None or after.written is None:
        raise CommandError("there is nothing before this config, so there is no step to sign")
    try:
        jws = sign_plan(Signer.read(options.sign), before.written.content, after.written.content)
        signature_file(path).write_text(f"{jws}\n", "ascii")
    except KeyUnusable as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{signature_file(path)} can't be written: {error.strerror}") from None
    print(f"gateway: wrote {signature_file(path)}, for {made.before} -> {made.after} alone", file=sys.stderr)


def _show(options: argparse.Namespace, made: ChangePlan) -> None:
    from gateway.changes.plan_text import plan_data, plan_markdown, plan_text

    if options.json:
        print(json.dumps(plan_data(made), indent=2, ensure_ascii=False))
    else:
        print(plan_markdown(made) if options.markdown else plan_text(made))


# --- what other commands need too -----------------------------------------------------------------


def directory_of(settings: Settings) -> Path:
    """The state directory; raises CommandError where none is set."""
    if settings.state_dir is None:
        raise CommandError("there is no state directory: set GATEWAY_STATE_DIR, or give --state")
    return settings.state_dir


class opened:
    """The history of the state directory, closed at the end; raises StateError where there is none."""

    def __init__(self, settings: Settings) -> None:
        from gateway.state.history import open_history

        self._history = open_history(directory_of(settings), make=False)

    def __enter__(self) -> History:
        return self._history

    def __exit__(self, *_: object) -> None:
        self._history.close()


def client_of(url: str, settings: Settings) -> AdminClient:
    """Who asks the running gateway, with the token of the environment."""
    from gateway.cli.admin_client import AdminClient

    token = settings.admin_token.get_secret_value() if settings.admin_token is not None else None
    return AdminClient(url.rstrip("/"), token)
