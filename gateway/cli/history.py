"""The commands `gateway history`, `diff` and `rollback`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli import terminal
from gateway.cli.cell import cell_activations, opened_cell, share_pin
from gateway.files import read_file_or_pipe
from gateway.model.status import FOLLOWS
from gateway.model.units import at_second
from gateway.operator_errors import CommandError, StateError, expect_file
from gateway.settings import Settings
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.cell.cell_record import CellRecord
    from gateway.changes.change_log import ChangeLog
    from gateway.changes.compile_job import CompiledState
    from gateway.model.config_version import ConfigVersion
    from gateway.policy.territory_answers import RegionAnswer
    from gateway.state.history import Activation, History


_OK, _REFUSED, _WAITING = 0, 1, 3


def history(options: argparse.Namespace) -> int:
    """List the versions that were active, newest first, or show one (`gateway history`)."""

    settings = terminal.settings_of(options)
    if options.text and not options.version:
        raise CommandError("--text needs a VERSION to print (`gateway history` lists them)")
    with opened_cell(settings) as database:
        if database is not None:
            from gateway.cell.cell_record import CellRecord

            record = CellRecord(database)
            return _show_one(record, options) if options.version else _list_cell(record, options)
    with terminal.opened_history(settings) as versions:
        return _show_one(versions, options) if options.version else _list(versions, options)


def _list(versions: History, options: argparse.Namespace) -> int:
    pointer = versions.pointer()
    activations = versions.activations(options.number)
    # A version may have been activated several times. Only its last activation is marked as active.
    active = next((item for item in activations if pointer is not None and item.version == pointer.version), None)
    pinned = pointer.version if pointer is not None and pointer.overrides else None
    _print_activations([(None, item) for item in activations], active, pinned, options)
    return _OK


def _list_cell(record: CellRecord, options: argparse.Namespace) -> int:
    activations, pinned = cell_activations(record, options.number)
    _print_activations(activations, activations[0][1] if activations else None, pinned, options)
    return _OK


def _print_activations(
    activations: Iterable[tuple[str | None, Activation]],
    active: Activation | None,
    pinned: str | None,
    options: argparse.Namespace,
) -> None:
    """Print activations, each with the id of its instance if they belong to a cell."""
    from gateway.changes.change_review import activations_data

    if options.json:
        items = activations_data(activations, active)
        details = {"file_active": pinned is None, "pinned": pinned, "activations": items}
        print(terminal.json_text(details))
        return
    for instance, item in activations:
        mark, operator = "*" if item is active else " ", f" by {item.who}" if item.who else ""
        at = f" at {instance}" if instance else ""
        print(f"{mark} {item.version}  {at_second(item.at_s)}  {item.cause}{operator}{at}: {item.summary}")
    if pinned is not None:
        print(f"{pinned} is pinned by a rollback; `gateway rollback --release` activates the config file")


def _show_one(versions: History | CellRecord, options: argparse.Namespace) -> int:
    from gateway.changes.change_review import activation_data
    from gateway.changes.stored_versions import verified

    version = versions.find(options.version)
    if options.text:
        if version.text is None:
            raise StateError(f"the text of version {version.version} is not stored: {version.why_not}")
        try:
            verified(version)
        except StateError as error:
            terminal.tell(error)
        sys.stdout.write(version.text.decode("utf-8", "replace"))
        return _OK
    last = versions.last_activation(version.version)
    details = {
        **(activation_data(last) if last else {}),
        "content": version.content,
        "plan": last.plan if last else None,
    }
    print(terminal.json_text(details))
    return _OK


def diff(options: argparse.Namespace) -> int:
    """Print the differences between two versions or files (`gateway diff`)."""
    from gateway.changes.plan_text import plan_data, plan_text
    from gateway.cli.plan import named_state, plan_between
    from gateway.config.check_report import render_problems
    from gateway.config.problems import ConfigRejected

    settings = terminal.settings_of(options)
    try:
        old, new = (named_state(name, settings, secrets=False) for name in (options.before, options.after))
    except ConfigRejected as error:
        raise CommandError(f"a config with errors can't be compared:\n{render_problems(error.problems)}") from None
    if options.text:
        from difflib import unified_diff

        sys.stdout.writelines(unified_diff(_lines_of(old), _lines_of(new), old.config.version, new.config.version))
        return _OK
    changes = replace(plan_between(old, new), checks=())
    print(terminal.json_text(plan_data(changes)) if options.json else plan_text(changes))
    return _OK


def _lines_of(state: CompiledState) -> list[str]:
    text = state.written.text if state.written is not None else b""
    return text.decode("utf-8", "replace").splitlines(keepends=True)


def rollback(options: argparse.Namespace) -> int:
    """Activate an earlier version, in the running gateway or for the next one that starts (`gateway rollback`)."""
    from gateway.state.lock import holder_of

    settings = terminal.settings_of(options)
    operator: str = terminal.operator_of(options)
    if not operator.isprintable():
        raise CommandError("--as must have printable characters only, because the history shows it")
    if options.release and options.version is not None:
        raise CommandError("--release activates the config file: leave out VERSION")
    signature = _read_signature(options.signature)
    url, config = options.admin, ""
    if url is None and settings.state_dir is not None and (holder := holder_of(settings.state_dir)) is not None:
        url, config = str(holder.get("admin") or "") or None, str(holder.get("config") or "")
        if url is None:
            raise CommandError("a gateway is starting with this state directory; try again")
        if options.version is not None:
            from gateway.changes.stored_versions import verified

            with terminal.opened_history(settings) as versions:
                verified(versions.find(options.version))
    if url is None:
        return _switch_at_rest(_Wanted(options.version, options.release, operator, signature), settings)
    content = {"version": options.version, "signature": signature, "release": options.release or None}
    return _switch_running(url, content, operator, settings, config)


def _read_signature(path: Path | None) -> str | None:
    from gateway.changes.change_log import MOST_SIGNATURE_BYTES

    if path is None:
        return None
    try:
        signature = read_file_or_pipe(path, MOST_SIGNATURE_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise CommandError(f"--signature: {path} can't be read ({error.strerror})") from None
    if not signature:
        raise CommandError(f"--signature: {path} is empty")
    return signature


class _Wanted(Value, frozen=True):
    """The arguments of `gateway rollback`, which activates `version` or the version before, or releases the pin."""

    version: str | None
    release: bool
    operator: str
    signature: str | None


def _switch_running(url: str, content: Mapping[str, object], operator: str, settings: Settings, config: str) -> int:
    content = {name: value for name, value in content.items() if value is not None}
    _, answer = terminal.admin_client(url, settings).post("/rollback", content, operator)
    is_done = answer["result"] == "activated"
    findings = answer.get("findings")
    for finding in findings if isinstance(findings, list) else []:
        if is_done or finding.get("severity") == "error":
            source = finding.get("path") or finding.get("file")
            message = f"{source}: {finding.get('message')}" if source else finding.get("message")
            terminal.tell(f"{'warning: ' if is_done else ''}{message}")
    if not is_done:
        hint = "; the version itself is valid: try again" if answer.get("retriable") else ""
        failure = "the pin stays" if content.get("release") else "not rolled back"
        terminal.tell(f"{failure}; {answer.get('config_version')} stays active{hint}")
        return CommandError.status if answer.get("missing") else _REFUSED
    print(f"{answer.get('config_version')} is active")
    alone = "this changes one instance: without `stores.database`, change the others too"
    print(FOLLOWS.get(str(answer.get("scope")), alone))
    if unconfirmed := answer.get("workers_behind"):
        print(f"workers that have not confirmed it yet: {unconfirmed}")
    pinned = None if content.get("release") else str(answer.get("config_version"))
    _print_pin(config, pinned, file_is_active=bool(answer.get("file_active")))
    answers = answer.get("answers")
    _print_answers(one.get("text") for one in (answers if isinstance(answers, list) else []))
    return _WAITING if answer.get("scope") == "waiting" else _OK


def _switch_at_rest(wanted: _Wanted, settings: Settings) -> int:
    from gateway.changes.change_log import ChangeLog

    directory = terminal.state_directory(settings)
    with terminal.opened_history(settings):
        pass  # report a missing history; ChangeLog would create one
    with closing(ChangeLog(directory)) as change_log:
        config, before = _last_config(settings, change_log), change_log.pointer()
        with opened_cell(settings) as database:
            last = database.last_commands()[1] if database is not None else None  # else nothing is changed
            new = _record_at_rest(change_log, wanted, settings, config)
            if database is not None and new is not None:
                version = "" if wanted.release else new.version
                share_pin(database, directory, last, version, wanted.operator, wanted.signature)
        released = before.version if wanted.release and before is not None else None
        answers = _answers_at_rest(new, directory, released) if new is not None else ()
    if new is None:
        return _REFUSED
    print(f"no gateway runs with {directory}; the next one serves {new.version}")
    if database is not None:
        print("every running instance of the cell follows within two seconds")
    _print_pin(config, None if wanted.release else new.version)
    _print_answers(answers)
    return _OK


def _last_config(settings: Settings, change_log: ChangeLog) -> Path:
    """Return the config file that the rollback overrides: the named one, or else that of the last gateway.

    With any other file, the next gateway would see an edited config and undo the rollback.
    """
    if "config" in settings.model_fields_set or not change_log.lock.config:
        return settings.config
    return Path(change_log.lock.config)


def _record_at_rest(change_log: ChangeLog, wanted: _Wanted, settings: Settings, config: Path) -> ConfigVersion | None:
    """Make the next gateway serve the wanted version, and return it.

    Prints the reasons and returns None if it can't be served. Raises StateError.
    """
    from gateway.changes.change_log import NotSigned
    from gateway.changes.compile_job import state_of
    from gateway.changes.initial_config import compile_in_child, review_from
    from gateway.config.check_report import render_problems

    pointer = change_log.pointer()
    if pointer is None:
        raise CommandError(
            f"{settings.state_dir} has no history: no config was ever served with it as GATEWAY_STATE_DIR"
        )
    if wanted.release:
        if not pointer.overrides:
            raise CommandError("no version is pinned by a rollback: the config file is already active")
        expect_file(config)
        cause, overrides, name, text, catalogues = "release", "", str(config), None, ""
    else:
        pinned = change_log.rollback_target(wanted.version, pointer.version, config)
        if not pinned.file and "config" not in settings.model_fields_set:
            raise CommandError(
                f"there is no config at {config}: name the config file of the next gateway with --config"
            )
        version = pinned.version
        name, text, catalogues = f"version {version.version}", version.text or b"", version.catalogues
        cause, overrides = "rollback", pinned.overrides
    outcome = compile_in_child(text, name, config, secrets=True, catalogues=catalogues)
    if outcome.problems:
        # If the version compiles, these are warnings, such as an unset key or an approval that has ended.
        print(render_problems(outcome.problems), file=sys.stderr)
    if (new := state_of(outcome)) is None:
        return None
    before = change_log.active_version()
    try:
        reviewed = review_from(before, new, config, wanted.signature)
    except NotSigned as error:
        change_log.record_rejection(cause, wanted.operator, pointer.version, [str(error)], unsigned=True)
        terminal.tell(error)
        return None
    change_log.record_switch(reviewed, new, cause, wanted.operator, overrides)
    for note in reviewed.plan.notes:
        terminal.tell(note)
    return new.config


def _answers_at_rest(config: ConfigVersion, directory: Path, released: str | None) -> tuple[RegionAnswer, ...]:
    """Return who will answer in each region when the next gateway serves this version. Raises StateError.

    `released` is the version whose pin is released: its schedules go on if this version has the same ones. None if this
    version is pinned.
    """
    from gateway.changes.schedules import Scheduler
    from gateway.policy.territory_answers import region_answers
    from gateway.state.schedules import ScheduleStore

    with closing(ScheduleStore(directory)) as store:
        scheduler = Scheduler(store)
        if released is None:
            staged = scheduler.stage(config, is_pinned=True)
        else:
            staged = scheduler.stage_released(config, released)
            asyncio.run(scheduler.stop())  # saves the progress for the next gateway
        return region_answers(staged, time.time())


def _print_answers(answers: Iterable[object]) -> None:
    for answer in answers:
        print(f"answered by  {answer}")


def _print_pin(config: str | Path, pinned: str | None, *, file_is_active: bool = False) -> None:
    file = config or "the config file"
    if pinned is None:
        print(f"no version is pinned any more; {file} is active, and its edits are activated")
        return
    if not file_is_active:
        print(f"{file} is no longer active")
    print(f"{pinned} is pinned: edits of {file} are checked and reported, but not activated,")
    print("until `gateway rollback --release`")
