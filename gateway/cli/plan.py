"""The command `gateway plan`: show what a config would change, and which checks fail."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from gateway.changes.change_log import NotSigned, plan_with_checks, read_signature, review_change, signature_file
from gateway.changes.compile_job import CompiledState, distinct_warnings
from gateway.changes.plan import NO_CONFIG_VERSION, ChangePlan, Check, Traffic, with_traffic
from gateway.changes.plan_checks import compiles, protected_changes
from gateway.changes.plan_text import plan_data, plan_markdown, plan_text
from gateway.changes.stored_versions import verified
from gateway.cli.admin_client import NotReached
from gateway.cli.terminal import admin_client, json_text, opened_history, settings_of, tell
from gateway.config.check_report import render_problems
from gateway.config.loading import parse_document, read_config, stored_files
from gateway.config.problems import ConfigRejected
from gateway.features.configuration import compile_config
from gateway.files import path_exists
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import CommandError, StateError, expect_file
from gateway.settings import Settings
from gateway.state.history import Version, has_history
from providers.registry import load_registry
from providers.territories import TerritoryError, parse_territory, territory_data
from providers.value import replace

_OK, _REFUSED, _CHANGES = 0, 1, 3


def plan(options: argparse.Namespace) -> int:
    """Print what a config would change and which checks fail (`gateway plan`)."""
    settings = settings_of(options)
    path: Path = options.file or settings.config
    before = _active_state(options, settings)
    try:
        after = compiled_state(path, secrets=not options.no_secrets)
    except ConfigRejected as error:
        errors = [str(problem) for problem in error.problems if problem.severity == "error"]
        version = before.config.version if before is not None else ""
        _print_plan(options, ChangePlan(version, "", checks=(compiles(errors),)))
        return _REFUSED
    changes = plan_between(before, after, strict=options.strict, accepted=options.accept_loss, intent=options.intent)
    if options.since is None and before is not None:
        notes = _used_of_quotas(before.config, after.config, settings)
        changes = replace(changes, notes=(*changes.notes, *notes))
    if options.admin is not None:
        changes = _add_traffic(changes, options.admin, settings)
    changes = _add_signature_check(changes, before, after, path, options)
    _print_plan(options, changes)
    if not changes.ok:
        return _REFUSED
    return _CHANGES if options.exit_code and not changes.is_empty else _OK


def _used_of_quotas(before: ConfigVersion, after: ConfigVersion, settings: Settings) -> Iterator[str]:
    """Yield what is used of each limit of a quota that changes."""
    from gateway.service.budget_admin import in_gate
    from gateway.usage.journal import FOLDER
    from gateway.usage.quota_sums import read_uses

    changed = {name: it for name, it in after.quotas.items() if name in before.quotas and it != before.quotas[name]}
    if not changed or settings.state_dir is None or not path_exists(settings.state_dir / FOLDER):
        return
    config = replace(after, quotas=changed)
    try:
        uses = in_gate(config, settings.state_dir, lambda gate: read_uses(config, gate))
    except StateError as error:
        tell(f"what is used of the quotas is unknown: {error}")
        return
    yield from (f"quota {it.name}: {it.used} of {it.words} are used" for it in uses)


def _active_state(options: argparse.Namespace, settings: Settings) -> CompiledState | None:
    """Return the state to compare with: of `--from`, else the last version of the history, else the config file."""
    secrets = not options.no_secrets
    beside = options.file if "config" not in settings.model_fields_set else None
    try:
        if options.since is not None:
            return named_state(options.since, settings, secrets=secrets, beside=beside)
        if options.state_dir is not None and not path_exists(options.state_dir):
            raise CommandError(
                f"there is no state directory {options.state_dir}; leave out --state to compare with a config file"
            )
        if (version := _active_version(settings)) is not None:
            return named_state(version, settings, secrets=secrets, beside=beside)
        if options.state_dir is not None and "config" not in settings.model_fields_set:
            rehearsal = options.state_dir / "simulated"
            used = f" but in a rehearsal (--state {rehearsal})" if has_history(rehearsal) else ""
            raise CommandError(
                f"no gateway has used the state directory {options.state_dir} yet{used}: name the config to compare "
                "with by --from FILE or --config FILE"
            )
        # A file named with --config must exist. Otherwise a typing error would show the whole config as new.
        is_expected = options.config is not None or path_exists(settings.config)
        return compiled_state(settings.config, secrets=secrets) if is_expected else None
    except ConfigRejected as error:
        problems = render_problems(error.problems)
        raise CommandError(
            f"the active config has errors, so the new one can't be compared with it:\n{problems}"
        ) from None


def _active_version(settings: Settings) -> str | None:
    """Return the active version of the state directory, or None if there is no history. Raises CommandError."""
    if settings.state_dir is None or not has_history(settings.state_dir):
        return None
    try:
        with opened_history(settings) as versions:
            pointer = versions.pointer()
    except StateError as error:
        raise CommandError(f"{error}; to compare with a file, use --from FILE") from None
    return pointer.version if pointer is not None else None


def named_state(name: str, settings: Settings, *, secrets: bool, beside: Path | None = None) -> CompiledState:
    """Compile the file of this name, or else the version of the history. Raises CommandError, ConfigRejected.

    Paths in a version of the history are relative to the file `beside`, or else to the config file of the settings.
    """
    if path_exists(name) and not os.path.isdir(name):
        return compiled_state(Path(name), secrets=secrets)
    if settings.state_dir is None:
        raise CommandError(f"there is no file {name!r}, and no state directory with versions (set --state)")
    try:
        with opened_history(settings) as versions:
            version = versions.find(name)
        return compiled_version(version, beside or settings.config, secrets=secrets)
    except StateError as error:
        raise CommandError(f"{error}; and there is no file {name!r}") from None


def compiled_version(version: Version, config_path: Path, *, secrets: bool) -> CompiledState:
    """Compile a recorded version, whose paths are relative to the config file. Raises StateError, ConfigRejected."""
    if verified(version).text is None:
        raise StateError(f"version {version.version} can't be compiled again: {version.why_not}")
    name = f"version {version.version}"
    return _compile_text(version.text or b"", name, config_path, version.catalogues, secrets=secrets)


def compiled_state(path: Path, *, secrets: bool) -> CompiledState:
    """Compile a config file. Raises CommandError if it is missing, ConfigRejected if it has errors."""
    expect_file(path)
    return _compile_text(read_config(path), str(path), path, secrets=secrets)


def _compile_text(text: bytes, name: str, config_path: Path, catalogues: str = "", *, secrets: bool) -> CompiledState:
    document = parse_document(
        text, name, os.environ, relative_to=str(config_path), stored_catalogues=catalogues, secrets=secrets
    )
    compiled = compile_config(document, registry=load_registry())
    return CompiledState(compiled.config, compiled.written, distinct_warnings(compiled.warnings))


def plan_between(
    before: CompiledState | None,
    after: CompiledState,
    *,
    strict: bool = False,
    accepted: Iterable[str] = (),
    intent: str | None = None,
) -> ChangePlan:
    """Return the changes from one state to the other, with their checks, which are about all intents.

    `accepted` are the values of `--accept-loss`: territories whose users may lose their answer, separated by commas.
    Raises CommandError for a word that is not a territory.
    """
    old = before if before is not None else CompiledState(NO_CONFIG_VERSION, None, ())
    words = _accepted(accepted, {*old.config.regions, *after.config.regions})
    changes = plan_with_checks(old, after, time.time(), accepted=words)
    if _catalogues(before) != _catalogues(after):
        changes = replace(changes, sections=(*changes.sections, "catalogue files"))
    answers, checks = changes.answers, [compiles(()), *changes.checks]
    if strict and after.warnings:
        checks[-1] = replace(checks[-1], ok=False, findings=after.warnings)
    if intent is not None:
        answers = tuple(change for change in answers if change.assistant.endswith(f" ({intent})"))
    return replace(changes, answers=answers, checks=tuple(checks))


def _accepted(texts: Iterable[str], regions: Collection[str]) -> set[str]:
    """Return the territories and regions of `--accept-loss`. A region stands for its callers without a territory."""
    data = territory_data()
    words = set(filter(None, (word.strip() for word in ",".join(texts).split(","))))
    if "*" in words:
        return {*data.names, *regions}
    accepted = words & set(regions)
    for word in words:
        code = data.aliases.get(word.upper(), word.upper())
        try:
            accepted |= data.groups[code] if code in data.groups else {parse_territory(code)}
        except TerritoryError as error:
            if word not in accepted:
                raise CommandError(f"--accept-loss: {error}") from None
    return accepted


def _catalogues(state: CompiledState | None) -> object:
    return stored_files(state.written.catalogues)[0] if state is not None and state.written is not None else None


def _add_traffic(changes: ChangePlan, url: str, settings: Settings) -> ChangePlan:
    from gateway.telemetry.exposition import read_requests

    try:
        traffic: Traffic = read_requests(admin_client(url, settings).get("/metrics"))
    except (NotReached, ValueError) as error:
        reason = error if isinstance(error, NotReached) else f"{url} does not return metrics"
        tell(f"the share of traffic is unknown: {reason}")
        return changes
    if not sum(traffic.values()):
        tell("the share of traffic is unknown: the gateway has not counted a request yet")
    return with_traffic(changes, traffic)


def _add_signature_check(
    changes: ChangePlan, before: CompiledState | None, after: CompiledState, path: Path, options: argparse.Namespace
) -> ChangePlan:
    """Return the plan with the check of protected regions. With `--sign`, write the signature first."""
    protected = protected_changes(before.config, after.config, changes) if before is not None else {}
    if options.sign is not None:
        _sign(changes, before, after, path, options)
    if before is None or not protected:
        return changes
    try:
        signature_path = signature_file(path)
        judged = review_change(before, after, time.time(), lambda: read_signature(signature_path))
        check = Check("protected", True, (f"signed by the admin key {judged.signer}: {', '.join(judged.protected)}",))
    except NotSigned as error:
        check = Check("protected", False, (str(error),))
    return replace(changes, checks=(*changes.checks, check))


def _sign(
    changes: ChangePlan, before: CompiledState | None, after: CompiledState, path: Path, options: argparse.Namespace
) -> None:
    from gateway.signing import KeyUnusable, Signer, sign_plan

    if not changes.ok:
        raise CommandError("a plan with failed checks can't be signed; leave out --sign to see the plan")
    if before is None or before.written is None or after.written is None:
        raise CommandError("there is no earlier config, so there is no change to sign")
    try:
        jws = sign_plan(Signer.read(options.sign), before.written.content, after.written.content)
        signature_file(path).write_text(f"{jws}\n", "ascii")
    except KeyUnusable as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{signature_file(path)} can't be written: {error.strerror}") from None
    tell(f"wrote {signature_file(path)}, for {changes.before} -> {changes.after} only")


def _print_plan(options: argparse.Namespace, changes: ChangePlan) -> None:
    text_of = plan_markdown if options.markdown else plan_text
    print(json_text(plan_data(changes)) if options.json else text_of(changes))
