"""What may be typed after `gateway plan`, `history`, `diff`, `rollback`, `audit` and `receipt`, in words."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from gateway.commands import plan as planning
from gateway.commands import receipts, switches, trail

__all__ = ["DEFAULT_CONFIG", "Group", "add_config", "add_no_secrets", "add_switching"]

DEFAULT_CONFIG = "default: GATEWAY_CONFIG, or config/gateway.yaml"
Group = argparse._SubParsersAction  # typeshed knows this class by no public name


def add_switching(group: Group[argparse.ArgumentParser]) -> None:
    """The commands of switching from one table to another, and of what is kept of that and of requests."""
    _add_plan(group)
    _add_history(group)
    _add_rollback(group)
    _add_audit(group)
    _add_receipt(group)


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the config ({DEFAULT_CONFIG})")


def add_no_secrets(parser: argparse.ArgumentParser) -> None:
    """`--no-secrets`."""
    text = "take every ${…} as set, without reading it; for CI"
    parser.add_argument("--no-secrets", action="store_true", help=text)


def _add_state(parser: argparse.ArgumentParser) -> None:
    text = "the state directory (default: GATEWAY_STATE_DIR)"
    parser.add_argument("--state", dest="state_dir", type=Path, metavar="DIR", help=text)


def _add_plan(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Say what a config would change against the one that is active, and which checks fail. What is active is the "
        "last version in the state directory, or without one the config. Exit status: 0 it may be applied, "
        "1 a check fails, "
        "2 there is nothing to compare; with --exit-code 3 if something changes."
    )
    plan = group.add_parser("plan", help="say what a config would change", description=text)
    plan.add_argument("file", nargs="?", type=Path, metavar="FILE", help=f"the new config ({DEFAULT_CONFIG})")
    add_config(plan)
    _add_state(plan)
    plan.add_argument("--from", dest="since", metavar="WHAT", help="compare with this version, or this file")
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--markdown", action="store_true", help="for a pull request")
    plan.add_argument("--exit-code", action="store_true", help="exit status 3 if something changes")
    plan.add_argument("--strict", action="store_true", help="warnings count as errors")
    add_no_secrets(plan)
    plan.add_argument("--admin", metavar="URL", help="the gateway to ask for the share of traffic that is touched")
    plan.add_argument("--sign", type=Path, metavar="KEYFILE", help="sign it, for protected regions: writes FILE.sig")
    plan.set_defaults(run=planning.plan)


def _add_history(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "List the tables that were active, the newest first: when, why, by whom, and what changed. The star is what "
        "is active now. With VERSION, its first four characters or more, show that one with its plan, as JSON. Exit "
        "status: 0, or 2 if there is no such history or version."
    )
    history = group.add_parser("history", help="list the tables that were active", description=text)
    history.add_argument("version", nargs="?", metavar="VERSION", help="show this one, with the plan that led to it")
    _add_state(history)
    history.add_argument("-n", dest="number", type=_count, default=20, metavar="N", help="how many (default: 20)")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--text", action="store_true", help="print the config that VERSION was, and nothing else")
    history.set_defaults(run=switches.history)
    text = (
        "Say how one table differs from another. Each is a version of the history (its first four characters will do) "
        "or a file."
    )
    diff = group.add_parser("diff", help="say what differs between two tables", description=text)
    diff.add_argument("before", metavar="A", help="a version or a file")
    diff.add_argument("after", metavar="B", help="the other version or file")
    _add_state(diff)
    form = diff.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--text", action="store_true", help="show the lines of the files that differ instead")
    diff.set_defaults(run=switches.diff)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _add_rollback(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Make an earlier table active again: in the gateway that runs, or for the next one that starts. The config "
        "file stays as it is, and is not active until its next edit. Exit status: 0 done, 1 that version can't be used "
        "(every reason is told), 2 there is no such version, or nobody to ask."
    )
    rollback = group.add_parser("rollback", help="make an earlier table active", description=text)
    rollback.add_argument(
        "version", nargs="?", metavar="VERSION", help="of `gateway history` (default: the one before the active one)"
    )
    add_config(rollback)
    _add_state(rollback)
    text = "the running gateway's admin listener (default: as the state directory says); its token: GATEWAY_ADMIN_TOKEN"
    rollback.add_argument("--admin", metavar="URL", help=text)
    text = "who you are, for the history and the audit trail (default: the user's name)"
    rollback.add_argument("--as", dest="operator", metavar="NAME", help=text)
    text = "the signature of an admin, if a protected region changes: `gateway plan --sign` writes it"
    rollback.add_argument("--signature", type=Path, metavar="FILE", help=text)
    rollback.set_defaults(run=switches.rollback)


def _add_audit(group: Group[argparse.ArgumentParser]) -> None:
    text = "The audit trail: a line for each start, switch, rejection and rollback, chained by hashes."
    audit = group.add_parser("audit", help="verify the audit trail", description=text)
    audit.set_defaults(parser=audit)
    verify = audit.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "verify",
        help="say whether a line was changed, moved or taken out",
        description=(
            "Read the whole trail. Exit status: 0 it is as it was written, 1 it isn't: the first such line, 2 there "
            "is none that can be read."
        ),
    )
    _add_state(verify)
    text = 'a hash from the gateway\'s log (`"event":"audit"`): with it, lines that are missing at the end show too'
    verify.add_argument("--head", type=_hash, metavar="HASH", help=text)
    verify.set_defaults(run=trail.verify)


def _hash(text: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise argparse.ArgumentTypeError("a hash has 64 hexadecimal digits")
    return text.lower()


def _add_receipt(group: Group[argparse.ArgumentParser]) -> None:
    text = "Receipts of requests, as GET /v1/receipts/{id} gives them."
    receipt = group.add_parser("receipt", help="verify the receipt of a request", description=text)
    receipt.set_defaults(parser=receipt)
    verify = receipt.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "verify",
        help="say whether a gateway signed it",
        description="Say whether a receipt is what was signed. Exit status: 0 it is, 1 it isn't, 2 it can't be read.",
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="the answer of GET /v1/receipts/{id}, or its JWS alone")
    verify.add_argument("--key", required=True, metavar="PUB", help="the public key, or a file that holds it")
    verify.set_defaults(run=receipts.verify)
