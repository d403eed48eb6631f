"""The document of `GET /v1/admin/deployments`: health, latency, errors, approvals and facts of each deployment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from gateway.api.admin_control import unavailable_by_deployment
from gateway.model.approval import Term, days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.endings import FactEnding, StageEnding, endings_of, retirements_in
from gateway.model.route import deployments_of
from gateway.model.status import Status
from gateway.policy.routing import config_exclusion
from gateway.service.explain import facts_of
from gateway.telemetry.metric_snapshots import Series, merge, quantile_s, unpack

_ATTEMPTS, _DURATIONS = "gateway_attempts_total", "gateway_attempt_duration_seconds"
_BREAKERS = "gateway_breaker_state"


def deployments_document(status: Status, snapshots: Iterable[bytes]) -> dict[str, object]:
    """Return the state of each deployment. Counts and latencies are since the start of the processes."""
    config = status.config
    series = unpack(merge(snapshots))
    attempts: dict[str, dict[str, int]] = {}
    for (_, name, _, outcome), [count] in series.get(_ATTEMPTS, {}).items():
        counts = attempts.setdefault(name, {})
        counts[outcome] = counts.get(outcome, 0) + count
    times: dict[str, list[int]] = {}
    for (name, _, outcome), value in series.get(_DURATIONS, {}).items():
        if outcome == "ok":
            held = times.get(name)
            times[name] = value if held is None else [mine + more for mine, more in zip(held, value, strict=True)]
    breakers: dict[str, dict[str, int]] = {}
    for (name, state), [count] in series.get(_BREAKERS, {}).items():
        breakers.setdefault(name, {})[state] = count
    benched = unavailable_by_deployment(status.workers, by_breaker=False)
    opened = unavailable_by_deployment(status.workers, by_breaker=True)
    routes = _routes_by_deployment(config)
    ends = endings_of(config, days_at(status.at_s))
    documents = []
    for name, item in config.deployments.items():
        exclusion, counts = config_exclusion(item, status.at_s), attempts.get(name, {})
        documents.append(
            {
                "name": name,
                "provider": item.provider,
                "site": item.site,
                "model": item.model,
                "off": exclusion.detail if exclusion is not None else None,
                "off_code": exclusion.reason if exclusion is not None else None,
                "breaker": _breaker(breakers.get(name, {}), is_open=name in opened),
                "unavailable": [*opened.get(name, []), *benched.get(name, [])],
                "calls": sum(counts.values()),
                "errors": {kind: count for kind, count in sorted(counts.items()) if kind != "ok"},
                "latency": _latency(times.get(name)),
                "routes": routes.get(name, []),
                "approvals": [
                    {"region": it.subject["region"], "until": it.on.isoformat(), "days_left": it.days_left}
                    for it in ends
                    if it.kind == "approval" and it.subject["deployment"] == name
                ],
                "retirement": _end_of(name, retirements_in(ends)),
                "stages": [_stage(it) for it in ends if it.kind == "model" and it.subject["deployment"] == name],
                "price_end": _end_of(name, (it for it in ends if it.kind == "price")),
                "facts": facts_of(item, status.at_s),
            }
        )
    return {
        "version": config.version,
        "deployments": documents,
        "barriers": list(_barriers(config, series)),
        "laws": [
            {**it.subject, "on": it.on.isoformat(), "days_left": it.days_left}
            for it in ends
            if it.kind == "law" and it.warned_days is not None
        ],
        "has_quotas": bool(config.quotas),
    }


def _stage(it: StageEnding) -> dict[str, object]:
    """Return a stage of the end of a model, with the page that states it and the day on which that was read."""
    read = it.stage.row.as_of
    return {**it.document(), "source": it.stage.row.source, "as_of": read.isoformat() if read is not None else None}


def _end_of(name: str, ends: Iterable[Term | FactEnding | StageEnding]) -> dict[str, object] | None:
    """Return the day on which a fact of the deployment ends, and the days until then, or None if none is known."""
    of_name = (it for it in ends if it.subject["deployment"] == name)
    return next(({"on": it.on.isoformat(), "days_left": it.days_left} for it in of_name), None)


def _barriers(config: ConfigVersion, series: Series) -> Iterator[dict[str, object]]:
    """Yield each barrier, with the share of the requests that stayed with the private deployments."""
    requests: Counter[tuple[str, str]] = Counter()
    opened: dict[tuple[str, str], Counter[str]] = {}
    for (region, assistant, *_), [count] in series.get("gateway_requests_total", {}).items():
        requests[assistant, region] += count
    for (assistant, region, _, result), [count] in series.get("gateway_hand_offs_total", {}).items():
        opened.setdefault((assistant, region), Counter())[result] += count
    for name, held in config.assistants.items():
        for region in sorted({region for view in held.views for region in view.barriers}):
            if name == held.name:
                total, counts = requests[name, region], opened.get((name, region), Counter())
                yield {
                    "assistant": name,
                    "region": region,
                    "requests": total,
                    "sent": counts["sent"],
                    "consent_required": counts["consent_required"],
                    "private": 1 - counts.total() / total if total else None,
                }


def _breaker(states: Mapping[str, int], *, is_open: bool) -> str:
    """Return the worst state of the breaker in any worker."""
    if is_open or states.get("open"):
        return "open"
    return "half_open" if states.get("half_open") else "closed"


def _latency(value: list[int] | None) -> dict[str, float | None]:
    """Return the median and the 95th percentile until an answer began, in milliseconds: see `quantile_s`."""
    counts = value[:-1] if value is not None else []
    seconds = {name: quantile_s(_DURATIONS, counts, share) for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95))}
    return {name: round(it * 1000, 1) if it is not None else None for name, it in seconds.items()}


def _routes_by_deployment(config: ConfigVersion) -> dict[str, list[str]]:
    """Return, by deployment, the routes that name it, as `assistant/region`."""
    routes: dict[str, list[str]] = {}
    for name, held in config.assistants.items():
        if name == held.name:
            for view in held.views:
                for region in view.regions:
                    for item in deployments_of(view.every_step(region)):
                        listed = routes.setdefault(item.name, [])
                        if f"{name}/{region}" not in listed:
                            listed.append(f"{name}/{region}")
    return routes
