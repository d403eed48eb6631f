"""`gateway audit verify`: verify the audit trail of a state directory, and the trails of its cell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection

from gateway.cli.cell import opened_cell, tell_chained, verify_cell
from gateway.cli.terminal import opened_history, settings_of, state_directory, tell
from gateway.operator_errors import CommandError, StateError
from gateway.settings import Settings

_OK, _REFUSED = 0, 1


def verify_audit(options: argparse.Namespace) -> int:
    """Verify the audit trail (`gateway audit verify`)."""
    settings = settings_of(options)
    try:
        with opened_cell(settings) as database:
            own = _OK if database is not None and settings.state_dir is None else _verify_own(options, settings)
            if database is None:
                return own
            from gateway.cell.cell_record import CellRecord

            return own if verify_cell(CellRecord(database)) else _REFUSED
    except StateError as error:
        raise CommandError(f"{error}; the trails of the cell were not verified") from None


def _verify_own(options: argparse.Namespace, settings: Settings) -> int:
    """Verify the audit trail of the state directory."""
    from gateway.changes.stored_versions import damaged_versions
    from gateway.state.audit import key_hashes, verify_trail
    from gateway.state.history import TrailHead

    damaged: dict[str, str] = {}
    keys: Collection[str] = ()
    heads: dict[str, TrailHead | str] = {"--head": options.head} if options.head is not None else {}
    try:
        try:
            with opened_history(settings) as versions:
                heads["history.db"] = versions.audit_head()
                damaged = damaged_versions(versions)
                keys = key_hashes(it.text for it in versions.versions())
        except StateError as error:
            if not heads:
                raise
            tell(f"{error}; the trail is compared with --head only")
        verdict = verify_trail(state_directory(settings), heads, keys)
    except StateError as error:
        raise CommandError(str(error)) from None
    for finding in (*verdict.findings(), *(f"version {name} of history.db: {it}" for name, it in damaged.items())):
        print(finding)
    tell_chained(verdict)
    if verdict.faults or damaged:
        return _REFUSED
    print(f"{verdict.lines} lines, as they were written; the last is {verdict.head.number}, {verdict.head.hash}")
    if verdict.unconfirmed:
        warning = f"gateway: history.db does not contain the change of line {verdict.unconfirmed[0]}"
        print(f"{warning}: unless a gateway is making it now, that version was never served", file=sys.stderr)
    return _OK
