"""The document of `GET /status`: who answers in each region now, problems, and what ends soon."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal, NamedTuple, cast, get_args

from gateway.api.admin_control import (
    readiness_word,
    traffic_report,
    unavailable_everywhere,
    unavailable_to_clients,
    websocket_report,
)
from gateway.model.approval import days_at
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import Consents
from gateway.model.decision import Plan, Unavailable
from gateway.model.endings import endings_of
from gateway.model.location import Location
from gateway.model.schedule import Phase
from gateway.model.served import USES
from gateway.model.status import (
    CLOCK,
    AnswerTimes,
    AskedCounts,
    CellInstance,
    CellState,
    InstanceState,
    Overview,
    Reload,
    Status,
    Traffic,
    TrafficCounts,
    callers_text,
)
from gateway.policy.routing import decide
from gateway.policy.territory_answers import plain_needs
from gateway.release import release_name
from gateway.telemetry.traffic import RECENT_S, WINDOW_S, times_in_words
from providers.value import replace

ProblemKind = Literal[
    "callers", "canary", "config", "deployment", "disk", "instance", "keys", "not_ready", "pinned", "quota",
    "schedules", "sign_in", "store", "traffic", "unanswered",
]  # fmt: skip
"""The subject of a problem of `gateway status`. The metric `gateway_problems` counts them, and an alert reads it."""
_NEARLY, _FRESH_S = 0.9, 10.0
_FEWEST = 5
"""Of fewer requests, all must have failed."""
_SLOW_S, _SLOW_ALONE_S = 5.0, 20.0


class StatusProblem(NamedTuple):
    """A problem in words for operators, and its subject."""

    kind: ProblemKind
    text: str


def problem_counts(status: Status, cell_problems: Sequence[str] = ()) -> dict[ProblemKind, int]:
    """Return the number of problems of each kind, without what only a look at the disk and the database shows.

    `gateway_state_free_bytes` and `gateway_cell_instances` have these. It decides for every region, so call it in a
    thread.
    """
    failing, _ = _problems_of_traffic(status.traffic)
    counts = Counter(it.kind for it in (*_problems(status, [*_regions(status)]), *failing))
    counts["instance"] = len(cell_problems)
    return {kind: counts[kind] for kind in get_args(ProblemKind)}


def status_document(status: Status, overview: Overview) -> dict[str, object]:
    """Return the state of a gateway for its operators. It decides for every region, so call it in a thread."""
    since = status.loaded.at.isoformat(timespec="seconds")
    if overview.cell is not None and overview.cell.unseen:
        status = replace(status, store_problems={"database": overview.cell.unseen, **status.store_problems})
    regions = [*_regions(status)]
    instances = [*_instances(status, overview, since)]
    failing, failed = _problems_of_traffic(status.traffic)
    problems = [*_problems(status, regions), *failing, *_problems_of_cell(overview.cell, instances)]
    warnings = [*_warnings(status), *failed]
    if (space := overview.space) is not None and space.is_little:
        effect = ": receipts wait, and the rest is for usage rows, without which no call is sent"
        text = f"the state directory has {space}{effect if space.is_reserved else ''}"
        if space.is_reserved:
            problems.append(StatusProblem("disk", text))
        else:
            warnings.append(text)
    document = _document(status, since, regions, traffic_report(status), instances, problems, warnings)
    free = {"free_bytes": space.free, "size_bytes": space.total} if space is not None else None
    return {**document, "state_directory": free}


def cell_document(
    config: ConfigVersion,
    instances: Sequence[CellInstance],
    since_s: float,
    at_s: float,
    *,
    problems: Iterable[str] = (),
    store_problems: Mapping[str, str],
    pinned: str = "",
) -> dict[str, object]:
    """Return the state of a cell as its shared database has it: without health, limits and traffic of its instances.

    `store_problems` has why a store cannot be used now, by its kind. `pinned` is the version that a rollback pinned, or
    empty.
    """
    since = datetime.fromtimestamp(since_s, UTC)
    loaded = Reload("start", activated=True, config_version=config.version, at=since, duration_s=0)
    status = Status(
        config, loaded, None, {}, False, workers=(), pinned=pinned, store_problems=store_problems, at_s=at_s
    )
    rows = [asdict(item) for item in instances]
    regions = [*_regions(status)]
    every = [
        *(StatusProblem("instance", text) for text in problems),
        *_problems_of_stores(status),
        *_pin_and_answers(status, regions),
        *_problems_of_cell(None, rows),
    ]
    return _document(status, since.isoformat(timespec="seconds"), regions, None, rows, every, [])


def _document(
    status: Status,
    since: str,
    regions: list[dict[str, object]],
    traffic: dict[str, object] | None,
    instances: list[dict[str, object]],
    problems: list[StatusProblem],
    warnings: list[str],
) -> dict[str, object]:
    config = status.config
    ends = [
        {"kind": it.kind, **it.subject, "on": it.on.isoformat(), "days_left": it.days_left, "detail": str(it)}
        for it in endings_of(config, days_at(status.at_s))
        if it.warned_days is not None
    ]
    counts = Counter[str]()
    for (name, _), count in sorted(status.traffic.implausible.items()):
        counts[name] += count
    return {
        "version": config.file_version,
        "since": since,
        "release": release_name(),
        "regions": regions,
        "traffic": traffic,
        "websocket": websocket_report(status) if status.workers else None,
        "stores": _stores(status),
        "sign_ins": {it.name: it.document() for it in status.sign_ins},
        "instances": instances,
        "state_directory": None,
        "ends": ends,
        "approvals": [
            {"deployment": it["deployment"], "region": it["region"], "until": it["on"]}
            for it in ends
            if it["kind"] == "approval"
        ],
        **{
            member: [{"deployment": it["deployment"], "on": it["on"]} for it in ends if it["kind"] == kind]
            for member, kind in (("retirements", "model"), ("prices", "price"))
        },
        "usage_implausible": dict(counts),
        "problems": [it.text for it in problems],
        "warnings": warnings,
        **({"simulated": True} if config.demo or config.simulated else {}),
    }


def _instances(status: Status, overview: Overview, since: str) -> Iterator[dict[str, object]]:
    """Yield this instance, and the instances of its cell as the database has them."""
    others = overview.cell.instances if overview.cell is not None else ()
    known = next((item for item in others if item.id == overview.id), None)
    state: InstanceState = "behind" if known is not None and known.state == "behind" else "current"
    yield {
        "name": overview.name,
        "id": overview.id,
        "version": status.config.file_version,
        "state": "draining" if status.is_draining else state,
        "since": since,
        "release": release_name(),
        "rows_waiting": overview.rows_waiting,
    }
    yield from (asdict(item) for item in others if item is not known)


def _problems_of_cell(cell: CellState | None, instances: list[dict[str, object]]) -> Iterator[StatusProblem]:
    yield from (StatusProblem("instance", text) for text in (cell.problems if cell is not None else ()))
    for item in instances:
        if item["state"] == "silent":
            remedy = f"gateway doctor on its machine, or gateway instances forget {item['name']}"
            yield StatusProblem("instance", f"the instance {item['name']} has given no sign for 15 s or more: {remedy}")
        elif item["state"] == "behind":
            text = f"the instance {item['name']} does not serve the version that the cell activated last: read its log"
            yield StatusProblem("instance", text)


def _regions(status: Status) -> Iterator[dict[str, object]]:
    config, everybody, callers = status.config, unavailable_everywhere(status.workers), _closed_callers(status)
    by_client = unavailable_to_clients(status.workers)
    clients = {client.name: client for client in config.clients.values() if client.name in by_client}
    for name, assistant in config.own_assistants.items():
        for seen in (assistant.for_use(use) for use in USES if assistant.routes_for(use)):
            for region in seen.routes:
                entry = _answers(status, seen, config.regions[region], everybody)
                asking = [it for it in clients.values() if it.may_ask(name) and it.region in (None, region)]
                steps = [entry["answers"], *cast("list[str]", entry["then"])]
                entry["not_for"] = {step: callers[step] for step in steps if step in callers}
                entry["unanswered_clients"] = sorted(
                    it.name
                    for it in asking
                    if entry["answers"] is not None
                    and _answers(status, seen, config.regions[region], by_client[it.name])["answers"] is None
                )
                yield entry


def _answers(
    status: Status, assistant: Assistant, region: Region, health: Mapping[str, Unavailable]
) -> dict[str, object]:
    """Return who answers the callers of a region now, with this health."""
    location = Location(region, _territory_of(status.config, region), "", ())
    config, needs = status.config, plain_needs(assistant)
    decision = decide(config, assistant, location, needs, health, status.at_s)
    is_asked = config.recipients and not isinstance(decision.outcome, Plan)
    if is_asked:  # a user who agrees is answered
        agreed = Consents(confirmed=frozenset(config.deployments))
        decision = decide(config, assistant, location, needs, health, status.at_s, agreed)
    steps = [step.deployment.name for step in decision.outcome.steps] if isinstance(decision.outcome, Plan) else []
    return {
        "region": region.name,
        "assistant": assistant.name,
        "use": assistant.use,
        "answers": steps[0] if steps else None,
        "then": steps[1:],
        "consent": bool(is_asked and steps),
        "off": [
            {"deployment": it.deployment, "reason": it.detail} for it in decision.considered if it.reason is not None
        ],
    }


def _territory_of(config: ConfigVersion, region: Region) -> str | None:
    """Return a territory of the region, for which vendors may have rules. None for the region of all others."""
    return next((code for code, one in config.region_by_territory.items() if one is region), None)


def _stores(status: Status) -> dict[str, str] | None:
    """Return for each shared store `ok`, or why it cannot be used. None without shared stores."""
    stores = status.config.stores
    return {kind: status.store_problems.get(kind, "ok") for kind in stores.kinds} if stores is not None else None


def _why_rejected(failed: Reload) -> str:
    """Return why the configuration file is not active, or an empty text if only a pin is the reason, which is shown."""
    errors = [finding.message for finding in failed.findings if finding.severity == "error"]
    if failed.refused_by == "gateway_failed":
        return f"the configuration file cannot be activated now, and is tried again: {errors[0]}"
    if failed.refused_by == "signature_required":
        return "the configuration file changes a protected region without its signature: gateway plan --sign makes one"
    if failed.is_pinned and len(errors) == 1:
        return ""
    return "the configuration file has errors, and the version before stays active: gateway check lists them"


def _problems(status: Status, regions: list[dict[str, object]]) -> Iterator[StatusProblem]:
    word = readiness_word(status)
    if word != "ready":
        yield StatusProblem("not_ready", f"the gateway is {word}")
    if status.failed is not None and (why := _why_rejected(status.failed)):
        yield StatusProblem("config", why)
    yield from _problems_of_stores(status)
    yield from _problems_of_sign_ins(status)
    if status.config.keys_stale and "database" not in status.store_problems:
        yield StatusProblem("keys", "the database of keys cannot be read, so changes of keys are delayed")
    for name, unavailable in sorted(unavailable_everywhere(status.workers).items()):
        text = f"{name} is skipped for {max(1, math.ceil(unavailable.for_s))} s: {unavailable.reason}"
        yield StatusProblem("deployment", text)
    yield from _problems_of_callers(status)
    yield from _pin_and_answers(status, regions)
    for entry in regions:
        steps = [entry["answers"], *cast("list[str]", entry["then"])]
        if any(worker.without_room.issuperset(steps) for worker in status.workers):
            what = f"{entry['assistant']} ({entry['use']}) in the region {entry['region']}"
            yield StatusProblem("quota", f"no step of {what} has room in its quotas: gateway quotas")
    if status.schedules_off and _has_schedules(status.config):
        yield StatusProblem("schedules", f"no canary schedule runs: {status.schedules_off}")
    for it in status.schedules:
        if it.progress.phase is Phase.ROLLED_BACK:
            reason = it.progress.reason
            text = f"the candidate {it.schedule.candidate} of {it.assistant} in {it.region} was taken back: {reason}"
            yield StatusProblem("canary", text)


def _problems_of_traffic(traffic: TrafficCounts) -> tuple[list[StatusProblem], list[str]]:
    """Return the regions whose requests fail or wait now as problems, and as warnings those where that is over."""
    failing: list[str] = []
    failed: list[str] = []
    for region, counts in sorted(traffic.regions.items()):
        recent, last = traffic.recent.get(region, Traffic()), traffic.last.get(region, Traffic())
        name, minutes = region or "no region", int(WINDOW_S) // 60
        is_over = recent.answered > 0 and not recent.errors
        if _is_outage(recent):
            failing.append(f"{name}: {recent.errors} of {recent.requests} requests failed in the last {RECENT_S:g} s")
        elif not is_over and last != counts and _is_outage(last):
            failing.append(f"{name}: {last.errors} of the last {last.requests} requests failed")
        if _is_outage(counts):
            text = f"{name}: {counts.errors} of {counts.requests} requests failed in the last {minutes} minutes"
            (failed if is_over else failing).append(text)
        elif not counts.answered and (without := counts.errors + counts.cancelled) >= _FEWEST:  # clients left first
            failing.append(f"{name}: none of {without} requests got an answer in the last {minutes} minutes")
    for region, times in sorted(traffic.times.items()):
        if _is_slow(times):
            failing.append(f"{region or 'no region'}: the answers are slow: {_times_in_words(times)}")
    return [StatusProblem("traffic", text) for text in failing], failed


def _is_slow(times: AnswerTimes) -> bool:
    """Return whether answers are twice as late as an hour ago and over 5 s, or 20 s late without that hour."""
    if times.answers < _FEWEST:
        return False
    pairs = ((times.first_s, times.first_ago_s), (times.end_s, times.end_ago_s))
    if times.answers_ago < _FEWEST:
        return any(now_s is not None and now_s >= _SLOW_ALONE_S for now_s, _ in pairs)
    return any(
        now_s is not None and ago_s is not None and now_s >= _SLOW_S and now_s > 2 * ago_s for now_s, ago_s in pairs
    )


def _times_in_words(times: AnswerTimes) -> str:
    """Return how long answers take, with the times of an hour ago if there were answers."""
    ago = f", an hour ago {times_in_words(times.first_ago_s, times.end_ago_s)}" if times.answers_ago else ""
    return f"95 % {times_in_words(times.first_s, times.end_s)}{ago}"


def _is_outage(counts: Traffic) -> bool:
    """Return whether half of the requests failed, or all of a few."""
    if counts.requests - counts.refused < _FEWEST:
        return 0 < counts.errors == counts.requests - counts.refused
    return 2 * counts.errors >= counts.requests


def _closed_callers(status: Status) -> dict[str, int]:
    """Return how many clients and users alone may not use a deployment. Workers may mean the same callers."""
    names = sorted({name for worker in status.workers for name in worker.closed_callers})
    return {name: max(worker.closed_callers.get(name, 0) for worker in status.workers) for name in names}


def _problems_of_callers(status: Status) -> Iterator[StatusProblem]:
    """Yield the deployments that some clients and users alone may not use, with the share that this concerns."""
    for name, most in _closed_callers(status).items():
        attempts, refused = status.traffic.deployments.get(name, AskedCounts())
        share = f"{refused / (attempts + refused):.0%}" if refused else "none"
        text = f"{name} is skipped for {callers_text(most)} alone: {share} of its requests in the last {RECENT_S:g} s"
        yield StatusProblem("callers", text)


def _warnings(status: Status) -> Iterator[str]:
    """Yield what is not a problem yet."""
    for (name, why), count in sorted(status.traffic.implausible.items()):
        times = f"usage_implausible: {count} counts" if count > 1 else "usage_implausible: 1 count"
        text = (
            f"{times} of the provider of {name} since the start can't be true, so these calls are booked as estimates"
        )
        todo = (
            "; if it adds prompts of its own, write `counts_hidden: true` at the deployment" if why == "input" else ""
        )
        yield text + todo
    everywhere, skipping = unavailable_everywhere(status.workers), Counter[str]()
    for worker in status.workers:
        skipping.update(worker.unavailable.keys() - everywhere.keys())
    for name, count in sorted(skipping.items()):
        yield f"{name} is skipped by {count} of {len(status.workers)} workers"
    for region, count in sorted(status.traffic.unjudged.items()):
        yield f"{region}: {count} requests since the start went on without a verdict of a judge (`on_failure: open`)"
    for it in status.quotas:
        if it.share > _NEARLY:
            yield f"the quota {it.name} is used to {it.share:.0%}: {it.words}"
        stated = status.vendor_limit(it)
        if stated is None or isinstance(it.limit, str) or status.at_s - stated.at_s > _FRESH_S:
            continue
        left = round(it.limit * (1 - it.share))
        if abs(left - stated.remaining) * 5 > it.limit:
            yield (
                f"the quota {it.name}: the vendor states that {stated.remaining} of {stated.limit} {it.unit} a minute "
                f"are left, and {left} are by the own count: another user of this account"
            )
    if status.schedules_off and not _has_schedules(status.config):
        yield f"no canary schedule can run: {status.schedules_off}"


def _has_schedules(config: ConfigVersion) -> bool:
    return any(assistant.schedules for assistant in config.assistants.values())


def _problems_of_sign_ins(status: Status) -> Iterator[StatusProblem]:
    for each in status.sign_ins:
        if each.state != "ok":
            lack = "no token" if each.state == "none" else "no token for later"
            reason = each.error or "its first exchange has not ended yet"
            names = ", ".join(each.deployments)
            todo = f"{each.remedy}; gateway doctor --network makes one exchange"
            yield StatusProblem("sign_in", f"the sign-in {each.name} has {lack}, for {names}: {reason}: {todo}")


def _problems_of_stores(status: Status) -> Iterator[StatusProblem]:
    for kind, text in sorted(status.store_problems.items()):
        if kind == "journal":
            shown = f"usage rows cannot be written to the journal, and no call is sent without one: {text}"
        elif kind == CLOCK:
            shown = text
        elif kind == "ledger":
            shown = f"usage rows cannot be written to the ledger, and wait in the state directory: {text}"
        elif kind == "database":
            # One cause is one problem: all that follows from it stands here.
            keys = ", changes of clients and keys are delayed" if status.config.keys_stale else ""
            effects = f"usage rows wait{keys}, and the other instances are not seen"
            shown = f"the shared store `database` cannot be used: {text}; {effects}"
        else:
            shown = f"the shared store `{kind}` cannot be used: {text}"
        yield StatusProblem("store", shown)


def _pin_and_answers(status: Status, regions: list[dict[str, object]]) -> Iterator[StatusProblem]:
    if status.pinned:
        text = f"version {status.pinned} is pinned by a rollback: gateway rollback --release activates the file"
        yield StatusProblem("pinned", text)
    for entry in regions:
        if entry["answers"] is None:
            text = f"nobody answers {entry['assistant']} ({entry['use']}) in the region {entry['region']}"
            yield StatusProblem("unanswered", text)
        for client in cast("list[str]", entry["unanswered_clients"]):
            what = f"{entry['assistant']} ({entry['use']}) in the region {entry['region']}"
            yield StatusProblem("unanswered", f"no deployment answers the client {client} at {what}")
