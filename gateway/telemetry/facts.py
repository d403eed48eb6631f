"""What is known of the whole gateway and not of one process, as metrics: its config, workers, benches and endings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway.model.approval import days_at, terms_of
from gateway.model.retirement import farewells_of
from gateway.model.schedule import Phase
from gateway.model.status import Status
from gateway.telemetry.snapshots import Series, merge, pack

__all__ = ["expose"]


def expose(status: Status, snapshots: Iterable[bytes], accept: str) -> tuple[bytes, str]:
    """The metrics of all processes and of the gateway itself: the body and its content type, by an Accept header."""
    # Here and not at the top: a gateway whose metrics nobody asks for is the smaller for it.
    from gateway.telemetry.exposition import render

    return render(merge([*snapshots, pack(_facts(status))]), accept)


def _facts(status: Status) -> Series:
    days = days_at(status.at_s)
    terms = terms_of(status.table.approvals, days)
    farewells = farewells_of(status.table.deployments.values(), days)
    benched = Counter(name for worker in status.workers for name, it in worker.unwell.items() if not it.by_breaker)
    return {
        "gateway_config_reloads_total": {labels: [count] for labels, count in status.reloads.items()},
        "gateway_config_last_reload_successful": {(): [int(status.failed is None)]},
        "gateway_config_loaded_timestamp_seconds": {(): [int(status.loaded.at.timestamp())]},
        "gateway_config_file_active": {(): [int(status.file_is_active)]},
        "gateway_config_info": {(status.table.version,): [1]},
        "gateway_workers": {(): [sum(worker.answers for worker in status.workers)]},
        "gateway_worker_restarts_total": {(): [status.worker_restarts]},
        "gateway_benched_deployments": {(name,): [count] for name, count in benched.items()},
        "gateway_schedule_share_percent": {
            (it.assistant, it.region, it.schedule.candidate): [round(100 * it.share)] for it in status.schedules
        },
        "gateway_schedule_rolled_back": {
            (it.assistant, it.region, it.schedule.candidate): [int(it.progress.phase is Phase.ROLLED_BACK)]
            for it in status.schedules
        },
        "gateway_approval_days_left": {(term.deployment, term.region): [term.days_left] for term in terms},
        "gateway_model_days_left": {(one.deployment, one.model): [one.days_left] for one in farewells},
    }
