"""The problems and the warnings of `gateway status`, in words for operators."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

from gateway.api.admin_control import readiness_word, unavailable_everywhere
from gateway.model.config_version import ConfigVersion
from gateway.model.route import deployments_of
from gateway.model.schedule import Phase
from gateway.model.status import (
    CLOCK,
    AnswerTimes,
    AskedCounts,
    CellState,
    Reload,
    Status,
    Traffic,
    TrafficCounts,
    callers_text,
)
from gateway.telemetry.traffic import RECENT_S, WINDOW_S, times_in_words

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


def problems_of_cell(cell: CellState | None, instances: list[dict[str, object]]) -> Iterator[StatusProblem]:
    """Yield what the cell knows of its instances, of which some give no sign or have an older version."""
    yield from (StatusProblem("instance", text) for text in (cell.problems if cell is not None else ()))
    for item in instances:
        if item["state"] == "silent":
            remedy = f"gateway doctor on its machine, or gateway instances forget {item['name']}"
            yield StatusProblem("instance", f"the instance {item['name']} has given no sign for 15 s or more: {remedy}")
        elif item["state"] == "behind":
            text = f"the instance {item['name']} does not serve the version that the cell activated last: read its log"
            yield StatusProblem("instance", text)


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


def problems_of(status: Status, regions: list[dict[str, object]]) -> Iterator[StatusProblem]:
    """Yield the problems of a gateway, without those of its traffic. `regions` state who answers where."""
    word = readiness_word(status)
    if word != "ready":
        yield StatusProblem("not_ready", f"the gateway is {word}")
    if status.failed is not None and (why := _why_rejected(status.failed)):
        yield StatusProblem("config", why)
    yield from problems_of_stores(status)
    yield from _problems_of_sign_ins(status)
    if status.config.keys_stale and "database" not in status.store_problems:
        yield StatusProblem("keys", "the database of keys cannot be read, so changes of keys are delayed")
    for name, unavailable in sorted(unavailable_everywhere(status.workers).items()):
        text = f"{name} is skipped for {max(1, math.ceil(unavailable.for_s))} s: {unavailable.reason}"
        yield StatusProblem("deployment", text)
    yield from _problems_of_callers(status)
    yield from pin_and_answers(status, regions)
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


def closed_callers(status: Status) -> dict[str, int]:
    """Return how many clients and users alone may not use a deployment. Workers may mean the same callers."""
    names = sorted({name for worker in status.workers for name in worker.closed_callers})
    return {name: max(worker.closed_callers.get(name, 0) for worker in status.workers) for name in names}


def _problems_of_callers(status: Status) -> Iterator[StatusProblem]:
    """Yield the deployments that some clients and users alone may not use, with the share that this concerns."""
    for name, most in closed_callers(status).items():
        attempts, refused = status.traffic.deployments.get(name, AskedCounts())
        share = f"{refused / (attempts + refused):.0%}" if refused else "none"
        text = f"{name} is skipped for {callers_text(most)} alone: {share} of its requests in the last {RECENT_S:g} s"
        yield StatusProblem("callers", text)


def warnings_of(status: Status) -> Iterator[str]:
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
    for region, count in sorted(status.traffic.verdicts_refused.items()):
        yield f"{region}: {count} requests since the start went on as every judge refused a text (`verdicts_refused`)"
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
    for schedule in status.schedules:
        where = f"canary {schedule.assistant}/{schedule.region}"
        route = status.config.assistants[schedule.assistant].routes.get(schedule.region, ())
        for side in deployments_of(route[:1]):
            if (to := side.redirected_to(status.at_s)) is not None:
                yield f"{where}: its sides changed: {to} may answer for {side.name}"
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


def problems_of_stores(status: Status) -> Iterator[StatusProblem]:
    """Yield the stores that cannot be used, with what follows."""
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


def pin_and_answers(status: Status, regions: list[dict[str, object]]) -> Iterator[StatusProblem]:
    """Yield a pinned version, and the routes and clients without an answer."""
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


def problems_of_traffic(traffic: TrafficCounts) -> tuple[list[str], list[str]]:
    """Return the regions whose requests fail or wait now, in words, and those where that is over."""
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
            ago = f", an hour ago {times_in_words(times.first_ago_s, times.end_ago_s)}" if times.answers_ago else ""
            now = times_in_words(times.first_s, times.end_s)
            failing.append(f"{region or 'no region'}: the answers are slow: 95 % {now}{ago}")
    return failing, failed


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


def _is_outage(counts: Traffic) -> bool:
    """Return whether half of the requests failed, or all of a few."""
    if counts.requests - counts.refused < _FEWEST:
        return 0 < counts.errors == counts.requests - counts.refused
    return 2 * counts.errors >= counts.requests
