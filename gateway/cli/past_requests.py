"""`gateway explain --request ID`: show each attempt of a request that has ended, and the decision after it.

The source is the receipt of the request, or its line in a log. Both name the same things; a log also has the time of
each attempt and the error of the provider.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import quote

from gateway.cli.terminal import admin_client, json_text, settings_of
from gateway.config.problems import visible
from gateway.model.refusal_reason import REASON_BY_CODE
from gateway.operator_errors import CommandError, StateError

_OK = 0
_WIDTH = 100
_NO_RECEIPT = (
    ". A receipt exists after two seconds, and only for a request with a known region whose boundary has the gateway's "
    "own territory (not of one with `transit`). With `receipts.sample`, not each successful request has one; "
    "--log FILE reads a log"
)
_NO_LINE = ". With `log.sample`, not each successful request has a line"
_WORDS: Mapping[str, Mapping[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))

Past = Mapping[str, Any]
"""A receipt, or a log line of a request."""


def explain_past(options: argparse.Namespace) -> int:
    """Print what happened to a request that has ended."""
    for name, option in _WORDS["options"].items():
        if getattr(options, name) is not None:
            raise CommandError(f"{option} is for a request that is supposed: leave it out with --request")
    if options.log is not None and options.admin is not None:
        raise CommandError("--log reads a file, and --admin asks a running gateway: use one of them")
    if options.admin is not None:
        client = admin_client(options.admin, settings_of(options))
        path = f"/v1/admin/receipts/{quote(options.request, safe='')}"
        found, source = client.report(path, {}, ("receipts",))["receipts"], "the receipts"
    elif options.log is not None:
        found, source = _in_log(options.log, options.request), f"the log {options.log}"
    else:
        found, source = _in_receipts(options), "the receipts"
    if not found:
        raise CommandError(
            f"there is no request {options.request!r} in {source}; the id is in the header `x-request-id` of the answer"
            + (_NO_LINE if options.log is not None else _NO_RECEIPT)
        )
    print(json_text(found) if options.json else "\n\n".join(_text(past) for past in found))
    return _OK


def _in_receipts(options: argparse.Namespace) -> list[Past]:
    from gateway.state.receipts import find_receipts

    directory = settings_of(options).state_dir
    if directory is None:
        raise CommandError(
            "there are no receipts without a state directory: set GATEWAY_STATE_DIR, use --state DIR, or read a log "
            "with --log FILE"
        )
    try:
        return [*find_receipts(directory, options.request)]
    except StateError as error:
        raise CommandError(f"{error}; to read a log instead, use --log FILE") from None


def _in_log(name: str, request_id: str) -> list[Past]:
    if name == "-":
        return _lines_of(sys.stdin, request_id)
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as lines:
            return _lines_of(lines, request_id)
    except OSError as error:
        raise CommandError(f"the log {name} can't be read: {error.strerror}") from None


def _lines_of(lines: Iterable[str], request_id: str) -> list[Past]:
    """Return the lines of this request. Raises CommandError if the log has its id, but not as JSON."""
    found: list[Past] = []
    is_text = False
    for line in lines:
        if request_id not in line:
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            is_text = True
            continue
        if isinstance(fields, dict) and fields.get("event") == "request" and fields.get("request_id") == request_id:
            found.append(fields)
    if is_text and not found:
        raise CommandError("the log has this request, but not as JSON lines: set GATEWAY_LOG_FORMAT=json")
    return found


def _text(past: Past) -> str:
    code = past.get("code")
    reason = REASON_BY_CODE.get(str(code)) if code else None
    why = f", {code}" + (f" (reason: {reason})" if reason else "") if code else ""
    evidence = past.get("evidence") or past.get("why")
    region, use = past.get("region") or "none", past.get("use", "chat")
    lines = [
        f"request      {past.get('id') or past.get('request_id')}",
        f"ended        {past.get('at') or past.get('timestamp')}",
        f"client       {past.get('client') or 'none'}",
        f"assistant    {past.get('assistant') or 'none'}" + (f" ({use})" if use != "chat" else ""),
        f"region       {region}" + (f", decided by {evidence}" if evidence else ""),
        f"outcome      {past.get('outcome')}, status {past.get('status')}{why}",
        "",
        "attempts",
    ]
    attempts = _attempts_of(past)
    for number, attempt in enumerate(attempts, 1):
        lines += _wrapped(f"  {number}. ", _attempt_text(attempt))
        if followed := _decision_text(attempt):
            lines += _wrapped("     -> ", followed)
    others = _others_of(past)
    if not attempts:
        lines.append(f"  none: no {'other ' if others else ''}deployment got the request")
    if others:
        lines += ["", "also sent to", *others]
    skipped = past.get("passed_over") or past.get("skipped") or {}
    if skipped:
        lines += ["", "passed over"]
        for deployment, detail in skipped.items():
            lines += _wrapped("  - ", f"{deployment}: {detail}")
    return "\n".join(visible(line) for line in [*lines, "", f"config       {past.get('config_version')}"])


def _others_of(past: Past) -> list[str]:
    """Return a line for each judge, and for the shadow, that got the request."""
    others = [f"  - {_attempt_text(it)}, judge" for it in past.get("judges") or past.get("failed_judges") or ()]
    if shadow := past.get("shadow"):
        others.append(f"  - {shadow['deployment'] if isinstance(shadow, Mapping) else shadow}, shadow")
    return others


def _attempts_of(past: Past) -> list[Past]:
    if "tried" in past:
        return [*past["tried"]]
    if "attempts" in past:
        return [*past["attempts"]]
    # The line of a request whose only attempt answered does not list it.
    return [{"deployment": past["deployment"], "ms": past.get("provider_ms")}] if past.get("deployment") else []


def _attempt_text(attempt: Past) -> str:
    outcome = attempt.get("outcome") or attempt.get("kind") or ("lost" if attempt.get("lost") else "ok")
    rule = f" ({attempt['rule']})" if attempt.get("rule") else ""
    parts = [f"{attempt.get('deployment')}: {outcome}{rule}"]
    if attempt.get("status"):
        parts.append(f"status {attempt['status']}")
    if attempt.get("ms") is not None:
        parts.append(f"{attempt['ms']:g} ms")
    if attempt.get("retry_after_s") is not None:
        parts.append(f"the provider named a wait of {attempt['retry_after_s']:g} s")
    if attempt.get("detail"):
        parts.append(f"the provider's error: {attempt['detail']}")
    return ", ".join(parts)


def _decision_text(attempt: Past) -> str:
    """Return the decision after a failed attempt as text. Empty if there is none."""
    decision, reason = attempt.get("decision"), attempt.get("decision_reason")
    if not decision:
        return ""
    wait_s = attempt.get("wait_s")
    pause = f" after {wait_s:g} s" if wait_s else ""
    action = f"{_WORDS['actions'].get(decision, decision)}{pause}"
    why = _WORDS["reasons"].get(str(reason), str(reason))
    return f"{action}: {why}{_bound_text(attempt)}"


def _bound_text(attempt: Past) -> str:
    name, value = attempt.get("bound"), attempt.get("bound_value")
    if not name or value is None:
        return ""
    if name == "retry_budget":
        return f" ({name}: {value * 100:g}%)"
    unit = "" if name.startswith("attempts.") else "s"
    return f" ({name}: {value:g}{unit})"


def _wrapped(start: str, text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
