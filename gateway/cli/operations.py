"""Commands for a gateway in production: `gateway status`, `reload`, `restart`, `drain`, `backup` and others."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from gateway.cli.admin_client import AdminAnswer, AdminClient, NotReached, error_message
from gateway.cli.terminal import admin_client, json_text, operator_of, settings_of, state_directory, tell
from gateway.config.problems import visible
from gateway.free_space import FreeSpace
from gateway.model.status import FOLLOWS, callers_text
from gateway.operator_errors import CommandError, RejectedConfig
from gateway.release import release_name
from gateway.state.lock import holder_of
from gateway.telemetry.traffic import times_in_words

_OK, _REFUSED, _STILL_RUNNING, _PROBLEMS, _WAITING = 0, 1, 3, 3, 3
_POLL_S = 0.25


def drain(options: argparse.Namespace) -> int:
    """Let clients go elsewhere, and wait until no request runs (`gateway drain`)."""
    client = _client_of(options)
    status, answer = client.call("POST", "/drain", {}, "")
    if status != 200:
        raise CommandError(f"{client.url} refuses to drain: {error_message(answer)}")
    delay_s = float(str(answer["delay_s"]))
    print("draining: /readyz answers 503, and each answer closes its connection")
    time.sleep(delay_s)
    ends_at = time.monotonic() + options.timeout
    last = None
    while (running := _running(client)) > 0:
        if running != last:
            print(f"{running} {'request runs' if running == 1 else 'requests run'}", file=sys.stderr)
            last = running
        if time.monotonic() >= ends_at:
            tell(f"{running} still run after {options.timeout:g} s")
            return _STILL_RUNNING
        time.sleep(_POLL_S)
    print("no request runs")
    return _OK


def reload(options: argparse.Namespace) -> int:
    """Activate the changed configuration file of a running gateway (`gateway reload`)."""
    client = _client_of(options)
    answer: Any
    code, answer = client.call("POST", "/reload", {}, operator_of(options))
    if "result" not in answer:
        raise CommandError(f"{client.url} answers {code}: {error_message(answer)}")
    is_done = answer["result"] == "activated"
    for finding in answer["findings"] or ():
        if is_done or finding["severity"] == "error":
            place = f"{finding['file']}:{finding['line']}: {finding['path']}"
            hint = f"; {finding['hint']}" if finding["hint"] else ""
            text = f"{place}: {'warning: ' if is_done else ''}{finding['message']}{hint}"
            tell(visible(text))
    if not is_done:
        reason = f": {error_message(answer)}" if "error" in answer else ""
        tell(f"nothing has changed, {answer['config_version']} stays active{reason}")
        return _REFUSED
    changes: dict[str, Any] = {**(answer["changes"] or {})}
    answers = changes.pop("answers", [])
    print(f"{answer['config_version']} is active" + ("" if changes or answers else ", and nothing has changed"))
    for kind, names in changes.items():
        print(f"{kind}: {', '.join(map(visible, names))}")
    for one in answers:
        counted = f"{one['count']} territories" if one["count"] else "callers without a known territory"
        print(visible(f"{one['assistant']}/{one['region']}: {counted}: {one['before']} -> {one['after']}"))
    if (follows := FOLLOWS.get(answer["scope"])) is not None:
        print(follows)
    return _WAITING if answer["scope"] == "waiting" else _OK


def resume(options: argparse.Namespace) -> int:
    """Use a deployment again that is in a cooldown or has an open breaker (`gateway deployments resume`)."""
    named = {"deployment": options.deployment}
    return _act(options, "/v1/admin/deployments/resume", named, f"{options.deployment} is used again")


def stop_schedule(options: argparse.Namespace) -> int:
    """Stop a canary schedule in a running gateway (`gateway schedules stop`)."""
    route = {"assistant": options.assistant, "region": options.region}
    done = f"the schedule of {options.assistant}/{options.region} has stopped: its candidate gets no users"
    return _act(options, "/v1/admin/schedules/stop", route, done)


def _act(options: argparse.Namespace, path: str, body: Mapping[str, object], done: str) -> int:
    """Call an action of a running gateway, and print that it is done or why not."""
    code, answer = _client_of(options).call("POST", path, body, operator_of(options))
    if code != HTTPStatus.OK:
        tell(error_message(answer))
        return _REFUSED if code == HTTPStatus.NOT_FOUND else CommandError.status
    print(visible(done))
    return _OK


def status(options: argparse.Namespace) -> int:
    """Show who answers now, and what is wrong (`gateway status`)."""
    from gateway.cli.cell import status_of_cell

    settings = settings_of(options)
    try:
        document = status_of_cell(settings) if options.config is not None and options.admin is None else None
    except RejectedConfig:
        raise CommandError(
            f"{settings.config} has errors, so the database of its cell is not known: `gateway check "
            f"{settings.config}` lists them; --admin URL shows an instance"
        ) from None
    if document is None:
        client = _client_of(options)
        code, document = client.call("GET", "/status", None, "")
        if code != HTTPStatus.OK:
            raise CommandError(f"{client.url} answers {code}: {error_message(document)}")
    document = AdminAnswer(document)
    print(json_text(document) if options.json else "\n".join(status_lines(document)))
    return _PROBLEMS if document["problems"] else _OK


def status_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a status document, which may lack any member: see `AdminAnswer`."""
    release = f", release {document['release']}" if document["release"] else ""
    change, took = document["last_change"], ""
    if change:
        seconds, waited = ((change[name] or 0) / 1000 for name in ("duration_ms", "waited_ms"))
        took = f", {seconds:.1f} s after the {change['cause']} ({waited:.1f} s of it without a core)"
    yield f"config {document['version']} since {document['since']}{took}{release}"
    if document["simulated"]:
        yield "simulated: no answer is of a model, and no request leaves the machine"
    for member, lines in _STATUS_LINES.items():
        yield from lines(document[member] or ())


def _traffic_lines(traffic: Any) -> Iterator[str]:
    """Yield the requests of each region. `!` stands before a region of whose last requests half failed, or more."""
    if not traffic:
        return
    regions = _inside(traffic, "regions")
    minutes = f" in the last {traffic['seconds'] // 60} minutes" if traffic["seconds"] else ""
    yield f"{traffic['running'] or 0} running;{minutes}:{'' if regions else ' none'}"
    for region, counts in regions.items():
        words = [f"{counts['requests'] or 0} requests, {counts['errors'] or 0} errors"]
        if now := _inside(traffic, "recent", "regions", region):
            seconds = traffic["recent"]["seconds"]
            words.append(f"last {seconds} s: {now['requests'] or 0}, {now['errors'] or 0} errors")
        taken = _inside(traffic, "times", region)
        if (end_s := taken.get("end_p95_s")) is not None:
            ago_s = _inside(taken, "hour_ago").get("end_p95_s")
            ago = f" ({ago_s:.2f} s an hour ago)" if ago_s is not None else ""
            words.append(f"95 % {times_in_words(taken['first_p95_s'], end_s, ', ')}{ago}")
        last = _inside(traffic, "last", "regions", region)
        is_failing = bool(last.get("errors")) and 2 * last["errors"] >= (last.get("requests") or 0)
        yield f"{'!' if is_failing else ' '} {region or 'no region':12} {'; '.join(words)}"


def _inside(answer: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the object at a path of members, or an empty one."""
    for name in path:
        answer = answer.get(name) or {}
    return answer


def _region_lines(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "who answers:"
    for entry in entries:
        use = "" if entry["use"] in ("chat", None) else f" ({entry['use']})"
        first, *others = [_step(entry, name) for name in (entry["answers"], *(entry["then"] or ()))]
        then = f", then {', '.join(others)}" if others else ""
        asked = ", if the user agrees" if entry["consent"] else ""
        who = f"{first}{then}{asked}"
        yield f"  {entry['region'] or '':12} {entry['assistant']}{use}: {who}"
        for off in entry["off"] or ():
            yield f"  {'':12} off: {off['deployment']}: {off['reason']}"


def _step(entry: Mapping[str, Any], name: str | None) -> str:
    """Return the name of a step, with how many callers alone are not answered by it."""
    callers = (entry["not_for"] or {}).get(name)
    return f"{name or 'no deployment'}{f' (not for {callers_text(callers)})' if callers else ''}"


def _instance_lines(instances: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for instance in instances:
        when = "waited at its last sign" if instance["state"] == "silent" else "wait for the ledger"
        rows = "" if instance["rows_waiting"] is None else f", {instance['rows_waiting']} rows {when}"
        serves = "" if len(instances) == 1 else f", config {instance['version']} since {instance['since']}"
        yield f"instance {instance['name']}: {instance['state']}{serves}{rows}"


def _websocket_lines(sockets: Any) -> Iterator[str]:
    if sockets and sockets["connections"]:
        yield f"websocket: {sockets['connections']} connections, {sockets['state_bytes']} bytes of answers kept"


def _space_lines(space: Any) -> Iterator[str]:
    if space:
        yield f"state directory: {FreeSpace(space['free_bytes'] or 0, space['size_bytes'] or 0)}"


def _each(line: str) -> Callable[[Iterable[Any]], Iterator[str]]:
    """Return what yields such a line for each item of a list."""
    return lambda items: (line.format(it=it) for it in items)


_STATUS_LINES: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "traffic": _traffic_lines,
    "websocket": _websocket_lines,
    "regions": _region_lines,
    "stores": lambda stores: (f"store {kind}: {stores[kind]}" for kind in stores),
    "instances": _instance_lines,
    "state_directory": _space_lines,
    "ends": lambda ends: (f"{it.get('deployment') or it['label']}: {it['detail']}" for it in ends),
    "problems": _each("problem: {it}"),
    "warnings": _each("warning: {it}"),
}
"""How each member of a status document is shown, in this order."""


def backup(options: argparse.Namespace) -> int:
    """Write an archive of the state directory, also while a gateway uses it (`gateway backup`)."""
    from gateway.state.backup import write_backup

    directory = state_directory(settings_of(options))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    written = write_backup(directory, options.to, release_name(), created, with_keys=options.with_keys)
    print(f"wrote {options.to}: {len(written.files)} files of {directory}")
    if written.missing_keys:
        print(f"not in it: {', '.join(written.missing_keys)}; keep copies of these, or use --with-keys")
    return _OK


def restore(options: argparse.Namespace) -> int:
    """Restore an archive into an empty state directory (`gateway restore`)."""
    from gateway.state.backup import restore_backup

    directory = state_directory(settings_of(options))
    restored = restore_backup(options.file, directory)
    print(f"restored {len(restored.files)} files of {restored.created} (release {restored.release}) into {directory}")
    if restored.missing_keys:
        names = ", ".join(restored.missing_keys)
        print(f"put these keys into {directory} before the gateway starts, because it would make new ones: {names}")
    return _OK


def _running(client: AdminClient) -> int:
    """Return how many requests run; 0 if the gateway has ended meanwhile."""
    try:
        _, answer = client.call("GET", "/readyz", None, "")
    except NotReached:
        return 0
    workers = answer.get("workers")
    running = workers.get("running", ()) if isinstance(workers, Mapping) else ()
    return sum(int(worker["running"]) for worker in running)


def _client_of(options: argparse.Namespace) -> AdminClient:
    """Return the client of `--admin`, or of the gateway that uses the state directory. Raises CommandError."""
    settings = settings_of(options)
    if options.admin:
        return admin_client(options.admin, settings)
    if settings.state_dir is None:
        raise CommandError("name the running gateway: --admin URL of its admin listener, or --state DIR")
    # A rehearsal uses a folder of its own in the state directory.
    holder = holder_of(settings.state_dir) or holder_of(settings.state_dir / "simulated")
    url = str((holder or {}).get("admin") or "")
    if not url:
        raise CommandError(f"no gateway runs with {settings.state_dir}: name its admin listener with --admin URL")
    return admin_client(url, settings)
