"""The document of `GET /status`: who answers in each region now, problems, and what ends soon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast, get_args

from gateway.api.admin_control import traffic_report, unavailable_everywhere, unavailable_to_clients, websocket_report
from gateway.api.status_problems import (
    ProblemKind,
    StatusProblem,
    closed_callers,
    pin_and_answers,
    problems_of,
    problems_of_cell,
    problems_of_stores,
    problems_of_traffic,
    warnings_of,
)
from gateway.model.approval import days_at
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import Consents
from gateway.model.decision import Plan, Unavailable
from gateway.model.endings import endings_of, retirements_in
from gateway.model.location import Location
from gateway.model.served import USES
from gateway.model.status import CellInstance, InstanceState, Overview, Reload, Status
from gateway.policy.routing import decide
from gateway.policy.territory_answers import plain_needs
from gateway.release import release_name
from providers.value import replace


def problem_counts(status: Status, cell_problems: Sequence[str] = ()) -> dict[ProblemKind, int]:
    """Return the number of problems of each kind, without what only a look at the disk and the database shows.

    `gateway_state_free_bytes` and `gateway_cell_instances` have these. It decides for every region, so call it in a
    thread.
    """
    counts = Counter(it.kind for it in problems_of(status, [*_regions(status)]))
    counts["traffic"] = len(problems_of_traffic(status.traffic)[0])
    counts["instance"] = len(cell_problems)
    return {kind: counts[kind] for kind in get_args(ProblemKind)}


def status_document(status: Status, overview: Overview) -> dict[str, object]:
    """Return the state of a gateway for its operators. It decides for every region, so call it in a thread."""
    since = status.loaded.at.isoformat(timespec="seconds")
    if overview.cell is not None and overview.cell.unseen:
        status = replace(status, store_problems={"database": overview.cell.unseen, **status.store_problems})
    regions = [*_regions(status)]
    instances = [*_instances(status, overview, since)]
    failing, failed = problems_of_traffic(status.traffic)
    traffic = (StatusProblem("traffic", text) for text in failing)
    problems = [*problems_of(status, regions), *traffic, *problems_of_cell(overview.cell, instances)]
    warnings = [*warnings_of(status), *failed]
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
        *problems_of_stores(status),
        *pin_and_answers(status, regions),
        *problems_of_cell(None, rows),
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
    config, loaded = status.config, status.loaded
    near = [it for it in endings_of(config, days_at(status.at_s)) if it.bound is not None]
    ends = [
        {
            **{"kind": it.kind, **it.subject, "on": it.on.isoformat(), "days_left": it.days_left, "detail": str(it)},
            **(it.stage.document() if it.kind == "model" else {}),
        }
        for it in near
    ]
    counts = Counter[str]()
    for (name, _), count in sorted(status.traffic.implausible.items()):
        counts[name] += count
    return {
        "version": config.file_version,
        "since": since,
        "last_change": None if loaded.cause == "start" else {"cause": loaded.cause, **loaded.times_ms},
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
        "retirements": [
            {"deployment": it.subject["deployment"], "on": it.on.isoformat()} for it in retirements_in(near)
        ],
        "prices": [{"deployment": it["deployment"], "on": it["on"]} for it in ends if it["kind"] == "price"],
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


def _regions(status: Status) -> Iterator[dict[str, object]]:
    config, everybody, callers = status.config, unavailable_everywhere(status.workers), closed_callers(status)
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
