"""Shadow traffic in a process: its results in the state directory, and the requests that run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.execution.upstream_client import UpstreamClient
from gateway.features.feature import Feature, KeptData, Process
from gateway.features.shadow.model import ShadowRecord
from gateway.features.shadow.traffic import ShadowSink, ShadowTraffic
from gateway.model.kept_metadata import StoredRequest
from gateway.operator_errors import StateError
from gateway.telemetry.log import logger

if TYPE_CHECKING:
    from gateway.features.shadow.state import ShadowStore


class _Keeper:
    """Stores results in a thread, and logs the first of several failures."""

    def __init__(self, store: ShadowStore) -> None:
        self._store = store
        self._is_lost = False

    async def keep(self, record: ShadowRecord) -> None:
        try:
            await asyncio.to_thread(self._store.store, record)
        except StateError as error:
            if not self._is_lost:
                logger().error("shadow_not_kept", detail=f"{error}; metrics are still counted")
            self._is_lost = True
        else:
            self._is_lost = False


def _traffic(process: Process) -> ShadowTraffic | None:
    """Return the shadow traffic of a process. None without a state directory."""
    if process.state_dir is None:
        return None
    from gateway.features.shadow.state import ShadowStore

    store = ShadowStore(process.state_dir)
    count = partial(process.metrics.count, "gateway_shadow_requests_total")
    took = partial(process.metrics.time, "gateway_shadow_answer_seconds")
    sink = ShadowSink(_Keeper(store).keep, count, took, store.close)
    client = UpstreamClient(process.transport, tokens=process.health.tokens)
    traffic = ShadowTraffic(process.current, client, process.health, sink, process.limiters)
    traffic.accounting = process.executor.accounting
    return traffic


# SQLite is loaded when a state directory is used.


def _export(directory: Path, requests: Sequence[StoredRequest]) -> list[object]:
    from gateway.features.shadow.state import shadow_records_of

    return [msgspec.to_builtins(record) for _, record in shadow_records_of(directory, requests)]


def _erase(directory: Path, requests: Sequence[StoredRequest]) -> int:
    from gateway.features.shadow.state import remove_shadow_requests

    return remove_shadow_requests(directory, requests)


def _forget(directory: Path, regions: frozenset[str]) -> None:
    from gateway.features.shadow.state import remove_shadow_records

    remove_shadow_records(directory, regions)


SHADOW = Feature(
    "shadow",
    kept=KeptData(
        member="shadow",
        noun="shadow texts",
        export=_export,
        erase=_erase,
        forget=_forget,
        elsewhere=(("reports of `gateway evaluate --shadow`", "texts that were copied to the directory of the run"),),
    ),
    of_users=None,
    gate=None,
    watcher=_traffic,
    paths=(),
)
