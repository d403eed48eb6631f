"""`gateway history`, `diff`, `rollback` and `audit verify`."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.plan import client_of, directory_of, opened, plan_between, state_named
from gateway.cli.terminal import settings_of
from gateway.files import read_file_or_pipe
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.changes.change_log import ChangeLog, PinnedRollback
    from gateway.changes.compile_job import CompiledState
    from gateway.settings import Settings
    from gateway.state.history import Activation, History


def verify_audit(options: argparse.Namespace) -> int:
    """Say whether the audit trail is as it was written."""
    from gateway.operator_errors import StateError
    from gateway.state.audit import TrailHead, verify_trail

    settings = settings_of(options)
    heads: dict[str, TrailHead | str] = {"--head": options.head} if options.head is not None else {}
    try:
        try:
            with opened(settings) as kept:
                heads["history.db"] = kept.audit_head()
        except StateError as error:
            if not heads:
                raise
            print(f"gateway: {error}; the trail is held to --head alone", file=sys.stderr)
        verdict = verify_trail(directory_of(settings), heads)
    except StateError as error:
        raise CommandError(str(error)) from None
    if verdict.fault is not None:
        print(f"line {verdict.fault.line} {verdict.fault.reason}")
        return _REFUSED
    print(f"{verdict.lines} lines, as they were written; the last is {verdict.head.number}, {verdict.head.hash}")
    if verdict.unconfirmed:
        told = f"gateway: history.db doesn't know of the switch in line {verdict.unconfirmed[0]}"
        print(f"{told}: unless a gateway is just making it, that table was never served", file=sys.stderr)
    return _OK


_OK, _REFUSED = 0, 1


# --- history --------------------------------------------------------------------------------------


def history(options: argparse.Namespace) -> int:
    """List the tables that were active, the newest first, or show one."""
    from gateway.operator_errors import StateError

    settings = settings_of(options)
    if options.text and not options.version:
        raise CommandError("--text prints the config of one version: say which (`gateway history` lists them)")
    try:
        with opened(settings) as kept:
            return _show_one(kept, options) if options.version else _list(kept, options)
    except StateError as error:
        raise CommandError(str(error)) from None


def _list(kept: History, options: argparse.Namespace) -> int:
    pointer = kept.pointer()
    found = kept.activations(options.number)
    # A version may have been switched to more than once: the last time is the one that holds.
    holds = next((item for item in found if pointer is not None and item.version == pointer.version), None)
    if options.json:
        told = [{**_activation(item), "active": item is holds} for item in found]
        overrides = bool(pointer and pointer.overrides)
        print(json.dumps({"file_active": not overrides, "activations": told}, indent=2, ensure_ascii=False))
        return _OK
    for item in found:
        who = f" by {item.who}" if item.who else ""
        print(f"{'*' if item is holds else ' '} {item.version}  {_when(item.at_s)}  {item.cause}{who}: {item.summary}")
    if pointer is not None and pointer.overrides:
        print("the config file is not active, since a rollback; its next edit wins")
    return _OK


def _show_one(kept: History, options: argparse.Namespace) -> int:
    from gateway.operator_errors import StateError

    version = kept.find(options.version)
    if options.text:
        if version.text is None:
            raise StateError(f"the text of version {version.version} is not kept: {version.why_not}")
        sys.stdout.write(version.text.decode("utf-8", "replace"))
        return _OK
    last = kept.last_activation(version.version)
    told = {**(_activation(last) if last else {}), "content": version.content, "plan": last.plan if last else None}
    print(json.dumps(told, indent=2, ensure_ascii=False))
    return _OK


def _activation(item: Activation) -> dict[str, object]:
    names = ("version", "previous", "cause", "who", "summary")
    told = {name: getattr(item, name) for name in names}
    return {**told, "at": _when(item.at_s)}


def _when(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def diff(options: argparse.Namespace) -> int:
    """Say what one version has otherwise than another."""
    from gateway.changes.plan_text import plan_data, plan_text
    from gateway.config.check_report import render_problems
    from gateway.config.problems import ConfigRejected

    settings = settings_of(options)
    try:
        old, new = (state_named(word, settings, secrets=False) for word in (options.before, options.after))
    except ConfigRejected as error:
        raise CommandError(f"it can't be compiled, and so not compared:\n{render_problems(error.problems)}") from None
    if options.text:
        sys.stdout.writelines(_lines_between(old, new))
        return _OK
    made = replace(plan_between(old, new, False), checks=())
    print(json.dumps(plan_data(made), indent=2, ensure_ascii=False) if options.json else plan_text(made))
    return _OK


def _lines_between(old: CompiledState, new: CompiledState) -> Iterable[str]:
    from difflib import unified_diff

    return unified_diff(_lines_of(old), _lines_of(new), old.config.version, new.config.version)


def _lines_of(state: CompiledState) -> list[str]:
    text = state.written.text if state.written is not None else b""
    return text.decode("utf-8", "replace").splitlines(keepends=True)


# --- rollback -------------------------------------------------------------------------------------


def rollback(options: argparse.Namespace) -> int:
    """Make an earlier version active: in the running gateway, or for the next one that starts."""
    from gateway.state.lock import holder_of

    settings = settings_of(options)
    who: str = options.operator or _user()
    if not who.isprintable():
        raise CommandError("--as must be printable characters: it is shown in the history")
    signature = _read_given(options.signature)
    url, config = options.admin, ""
    if url is None and settings.state_dir is not None:
        holder = holder_of(settings.state_dir)
        if holder is not None:
            url, config = str(holder.get("admin") or "") or None, str(holder.get("config") or "")
            if url is None:
                raise CommandError("a gateway is just starting with this state directory; try again")
            if options.version is not None:
                _expect(options.version, settings)
    if url is None:
        return _roll_back_at_rest(options.version, who, signature, settings)
    return _roll_back_running(url, options.version, who, signature, settings, config)


def _expect(version: str, settings: Settings) -> None:
    """A word that is no version is told as such, with the same status, whether a gateway runs or not."""
    from gateway.operator_errors import StateError

    try:
        with opened(settings) as kept:
            kept.find(version)
    except StateError as error:
        raise CommandError(str(error)) from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return ""


def _read_given(path: Path | None) -> str | None:
    from gateway.changes.change_log import MOST_SIGNATURE_BYTES

    if path is None:
        return None
    try:
        found = read_file_or_pipe(path, MOST_SIGNATURE_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise CommandError(f"--signature: {path} can't be read ({error.strerror})") from None
    if not found:
        raise CommandError(f"--signature: {path} is empty")
    return found


def _roll_back_running(
    url: str, version: str | None, who: str, signature: str | None, settings: Settings, config: str
) -> int:
    from gateway.cli.admin_client import NotReached

    content = {name: value for name, value in (("version", version), ("signature", signature)) if value is not None}
    try:
        _, answer = client_of(url, settings).post("/rollback", content, who)
    except NotReached as error:
        raise CommandError(str(error)) from None
    is_done = answer["result"] == "activated"
    findings = answer.get("findings")
    for finding in findings if isinstance(findings, list) else []:
        if is_done or finding.get("severity") == "error":
            place = finding.get("path") or finding.get("file")
            told = f"{place}: {finding.get('message')}" if place else finding.get("message")
            print(f"gateway: {'warning: ' if is_done else ''}{told}", file=sys.stderr)
    if not is_done:
        again = "; nothing is wrong with that version: try it again" if answer.get("retriable") else ""
        print(f"gateway: not rolled back; {answer.get('table')} stays active{again}", file=sys.stderr)
        return CommandError.status if answer.get("missing") else _REFUSED
    print(f"{answer.get('table')} is active")
    if behind := answer.get("workers_behind"):
        print(f"workers that have not confirmed it yet: {behind}")
    _say_file(config, bool(answer.get("file_active")))
    return _OK


def _roll_back_at_rest(version: str | None, who: str, signature: str | None, settings: Settings) -> int:
    from gateway.changes.change_log import ChangeLog
    from gateway.operator_errors import StateError

    directory = directory_of(settings)
    try:
        with opened(settings):
            pass  # what isn't there must not be made by looking for it
        with closing(ChangeLog(directory)) as change_log:
            config = _served_last(settings, change_log)
            pinned = _switched_at_rest(change_log, version, who, signature, settings, config)
    except StateError as error:
        raise CommandError(str(error)) from None
    if pinned is None:
        return _REFUSED
    print(f"no gateway runs with {directory}; the next one serves {pinned.version.version}")
    _say_file(config, not pinned.overrides)
    return _OK


def _served_last(settings: Settings, change_log: ChangeLog) -> Path:
    """The config that is put aside: the last gateway's, where none is named. In the place of another it would count as
    edited, and the next gateway would take it back."""
    if "config" in settings.model_fields_set or not change_log.lock.config:
        return settings.config
    return Path(change_log.lock.config)


def _switched_at_rest(
    change_log: ChangeLog, version: str | None, who: str, signature: str | None, settings: Settings, config: Path
) -> PinnedRollback | None:
    """What the next gateway serves; None where that can't be, which is told. Raises StateError."""
    from gateway.changes.change_log import NotSigned
    from gateway.changes.compile_job import CompiledState, distinct_warnings
    from gateway.changes.initial_config import compile_in_child, review_from
    from gateway.changes.pickling import unpack
    from gateway.config.check_report import render_problems

    pointer = change_log.pointer()
    if pointer is None:
        raise CommandError(f"{settings.state_dir} has no history: no gateway has run with it as GATEWAY_STATE_DIR")
    pinned = change_log.rollback_target(version, pointer.version, config)
    if not pinned.file and "config" not in settings.model_fields_set:
        raise CommandError(
            f"{config} isn't there: name the file that the next gateway is to be started with (--config)"
        )
    name = f"version {pinned.version.version}"
    outcome = compile_in_child(pinned.version.text or b"", name, config, secrets=True)
    if outcome.problems:
        # Of a version that is taken they are warnings: a key that is unset by now, an approval that has ended since.
        print(render_problems(outcome.problems), file=sys.stderr)
    if outcome.packed is None:
        return None
    new = CompiledState(unpack(outcome.packed), outcome.written, distinct_warnings(outcome.problems))
    before = change_log.history.find_exactly(pointer.version)
    try:
        reviewed = review_from(before, new, config, signature)
    except NotSigned as error:
        change_log.record_rejection("rollback", who, pointer.version, [str(error)], unsigned=True)
        print(f"gateway: {error}", file=sys.stderr)
        return None
    change_log.record_switch(reviewed, new, "rollback", who, pinned.overrides)
    return pinned


def _say_file(config: str | Path, is_active: bool) -> None:
    if not is_active:
        print(f"{config or 'the config file'} is not active any more; its next edit wins")
