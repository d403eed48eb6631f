"""`gateway audit verify`: whether the trail is as it was written."""

from __future__ import annotations

import argparse
import sys

from gateway.commands.options import settings_of
from gateway.commands.plan import directory_of, opened
from gateway.terminal import CommandError

__all__ = ["verify"]

_OK, _REFUSED = 0, 1


def verify(options: argparse.Namespace) -> int:
    """Say whether the audit trail is as it was written."""
    from gateway.state.audit import Head, verify_trail
    from gateway.state.errors import StateError

    settings = settings_of(options)
    heads: dict[str, Head | str] = {"--head": options.head} if options.head is not None else {}
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
