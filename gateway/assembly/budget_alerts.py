"""Watch budgets in the single process or the supervisor: metrics, log events, and calls of the configured webhook."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.assembly.usage import report_problem
from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.execution.transport import PoolTransport
from gateway.model.budget import AlertWebhook
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.telemetry.log import logger
from gateway.usage.gate import GateUnavailable
from gateway.usage.installation import operator_gate
from gateway.usage.journal import Journal
from providers.wire import WireRequest

if TYPE_CHECKING:
    from gateway.usage.budget_monitor import BudgetAlert, BudgetLabels, BudgetMonitor
    from gateway.usage.gate_valkey import ValkeyGate

_POLL_S = 1.0
_SHARE_OF_TIME = 50
"""Reading all budgets takes at most this part of the time: with ten thousand of them, it is done less often."""
_PROBLEM_PAUSE_S = 10.0
_WEBHOOK_S = 10.0
_CLAIMED_S = 35 * 86_400
_WEBHOOK_TRIES = 3
_WEBHOOK_BYTES = 64 * 1024


class BudgetWatch:
    """Watches the budgets of an installation, from `run` until it is cancelled.

    Args:
        state_dir: The state directory. None: there are no budgets.
        current: Returns the active config version.
    """

    def __init__(self, state_dir: Path | None, current: Callable[[], ConfigVersion]) -> None:
        self._state_dir = state_dir
        self._current = current
        self._monitor: BudgetMonitor | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def used_shares(self) -> Mapping[BudgetLabels, int]:
        """Return the used share of each budget, in millionths."""
        return self._monitor.used_shares() if self._monitor is not None else {}

    async def run(self) -> None:
        """Read the budgets at intervals."""
        if self._state_dir is None:
            return
        transport = PoolTransport()
        try:
            while True:
                try:
                    await self._watch(self._state_dir, ServiceClient(transport))
                except StateError as error:
                    report_problem(str(error))
                    await asyncio.sleep(_PROBLEM_PAUSE_S)
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
            await transport.aclose()

    async def _watch(self, state_dir: Path, services: ServiceClient) -> None:
        from gateway.usage.budget_monitor import BudgetMonitor

        async with operator_gate(self._current, state_dir) as gate:
            monitor = self._monitor = BudgetMonitor(gate, self._current, state_dir=state_dir)
            while True:
                begun_at = time.monotonic()
                with suppress(GateUnavailable):  # the shared gate reports that itself
                    if alerts := await monitor.poll():
                        for alert in alerts:
                            await self._send(services, alert, gate)
                        try:
                            monitor.keep_reported()
                        except StateError as error:
                            report_problem(f"a restart will repeat alerts: {error}")
                await asyncio.sleep(max(_POLL_S, _SHARE_OF_TIME * (time.monotonic() - begun_at)))

    async def _send(self, services: ServiceClient, alert: BudgetAlert, gate: Journal | ValkeyGate) -> None:
        logger().warning("budget_alert", **asdict(alert))
        alerts = self._current().usage.alerts
        if alerts is not None and alerts.webhook is not None and await _is_first(alert, gate):
            call = asyncio.create_task(_call_webhook(services, alerts.webhook, alert))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)


async def _is_first(alert: BudgetAlert, gate: Journal | ValkeyGate) -> bool:
    """Return whether no other instance of the cell calls the webhook for this alert."""
    if isinstance(gate, Journal):
        return True
    text = "\0".join((alert.of, alert.name, alert.per, alert.unit, str(alert.percent), alert.resets_at or ""))
    try:
        return await gate.claim(hashlib.sha256(text.encode()).hexdigest(), _CLAIMED_S)
    except GateUnavailable:
        return True


async def _call_webhook(services: ServiceClient, webhook: AlertWebhook, alert: BudgetAlert) -> None:
    """Send the alert. Try again after a failure, and log it if the last try fails."""
    body = json.dumps({"event": "budget_alert", **asdict(alert)}).encode()
    headers = (("content-type", "application/json"),)
    problem = ""
    for number in range(_WEBHOOK_TRIES):
        await asyncio.sleep(number * _PROBLEM_PAUSE_S)
        wire = WireRequest("POST", webhook.path, headers, body)
        try:
            answer = await services.call(webhook.permit, wire, limit_s=_WEBHOOK_S, most_bytes=_WEBHOOK_BYTES)
        except ServiceFailed as error:
            problem = str(error)
            continue
        if 200 <= answer.status < 300:
            return
        problem = f"status {answer.status}"
    report_problem(f"the webhook of usage.alerts did not take an alert: {problem}")
