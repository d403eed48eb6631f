"""Watch the budgets of clients and projects: the used share of each, a log event and a webhook when a share is reached.

The single process or the supervisor does this. End users are not watched: there may be any number of them, and their
names are not metrics. The file `alerts.json` of the state directory has the shares that were reported, so that a
restart does not repeat them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from gateway.assembly.usage import report_problem
from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.execution.transport import PoolTransport, SimulatorsOnly, Transport
from gateway.installation import operator_gate
from gateway.model.budget import AlertWebhook, Window
from gateway.model.config_version import ConfigVersion
from gateway.model.status import QuotaUse
from gateway.model.units import at_second
from gateway.operator_errors import StateError
from gateway.telemetry.log import logger
from gateway.usage.amounts import NANO
from gateway.usage.gate import Counter, CounterKind, CounterState, GateUnavailable, OperatorGate, RoundTrip, shown_in
from gateway.usage.quota_sums import read_uses
from gateway.usage.spending_limits import calendar_of, counted_budgets
from gateway.usage.windows import FOREVER_NS
from providers.value import Value
from providers.wire import WireRequest

_FILE_NAME = "alerts.json"
_MILLION = 1_000_000
_AT_ONCE = 200
"""The counters that are read before other tasks of the event loop run."""

_POLL_S = 1.0
_SHARE_OF_TIME = 50
"""Reading all budgets takes at most this part of the time: with ten thousand of them, it is done less often."""
_PROBLEM_PAUSE_S = 10.0
_WEBHOOK_S = 10.0
_CLAIMED_S = 35 * 86_400
_WEBHOOK_TRIES = 3
_WEBHOOK_BYTES = 64 * 1024

BudgetLabels = tuple[str, ...]
"""Client, project and window of a budget. Either client or project is empty."""


class BudgetAlert(Value, frozen=True):
    """A budget has reached a share that the configuration names."""

    of: str
    """`client` or `project`."""
    name: str
    per: str
    unit: str
    """`tokens` or the currency."""
    percent: int
    spent: str
    """The spent amount, as decimal text."""
    limit: str
    """The budget with its top-ups."""
    resets_at: str | None
    """When the next window begins, in ISO 8601, or None."""

    @classmethod
    def at(cls, counter: Counter, limit: int, state: CounterState, percent: int) -> BudgetAlert:
        """Return the alert of a counter."""
        resets_at = at_second(state.end_ns // NANO) if state.end_ns < FOREVER_NS else None
        owner = str(counter.kind), counter.name, str(counter.window), counter.unit
        shown = shown_in(counter.unit, state.spent), shown_in(counter.unit, limit + state.credit)
        return cls(*owner, percent, *shown, resets_at)


class BudgetMonitor:
    """The used shares of all budgets. `clock` returns Unix nanoseconds.

    `state_dir` keeps the reported percentages, if there is one. The monitor `is_lost` if the gate did not answer last,
    so that no operator waits for it.
    """

    def __init__(
        self,
        gate: OperatorGate,
        current: Callable[[], ConfigVersion],
        clock: Callable[[], int] = time.time_ns,
        state_dir: Path | None = None,
    ) -> None:
        self._gate = gate
        self._current = current
        self._clock = clock
        self._used: Mapping[BudgetLabels, int] = {}
        self._quotas: tuple[QuotaUse, ...] = ()
        self.is_lost = False
        self._file = state_dir / _FILE_NAME if state_dir is not None else None
        # The highest percentage that was reported, and the start of its window.
        self._reported: dict[Counter, tuple[int, int]] = _read(self._file) if self._file is not None else {}

    def used_shares(self) -> Mapping[BudgetLabels, int]:
        """Return the used share of each budget, in millionths. Of several units in one window, the most used counts."""
        return self._used

    def keep_reported(self) -> None:
        """Write the reported shares of the present budgets to the file. Raises StateError."""
        if self._file is None:
            return
        present = counted_budgets(self._current())
        lines = [
            (counter.kind, counter.name, counter.unit, counter.window, start_ns, percent)
            for counter, (start_ns, percent) in self._reported.items()
            if counter in present
        ]
        draft = self._file.with_name(f".{_FILE_NAME}.{os.getpid()}")
        try:
            draft.touch(mode=0o600)
            draft.write_bytes(json.dumps(lines).encode())
            draft.replace(self._file)
        except OSError as error:
            raise StateError(f"{error.filename or self._file} can't be written: {error.strerror}") from error

    async def poll(self) -> list[BudgetAlert]:
        """Read all budgets. Return an alert for each share that was reached since the last time."""
        config = self._current()
        budgets = list(counted_budgets(config).items())
        windows = calendar_of(config).at(self._clock())
        alerts: list[BudgetAlert] = []
        used: dict[BudgetLabels, int] = {}
        at = config.usage.alerts.at if config.usage.alerts is not None else ()
        for start in range(0, len(budgets), _AT_ONCE):
            some = budgets[start : start + _AT_ONCE]
            states = await self._gate.read([counter for counter, _ in some], windows)
            for (counter, limit), state in zip(some, states, strict=True):
                whole = limit + state.credit
                share = state.spent * _MILLION // whole if whole > 0 else _MILLION
                labels = _labels(counter)
                used[labels] = max(share, used.get(labels, 0))
                if at:
                    alerts += self._alerts(counter, limit, state, at)
            await asyncio.sleep(0)
        self._used = used
        return alerts

    async def read_quotas(self) -> tuple[QuotaUse, ...]:
        """Return the use of each limit of each quota: as it was last, if the gate cannot be asked."""
        with suppress(GateUnavailable):
            if not self.is_lost:
                self._quotas = await read_uses(self._current(), self._gate)
        return self._quotas

    def _alerts(self, counter: Counter, limit: int, state: CounterState, at: tuple[int, ...]) -> list[BudgetAlert]:
        whole = limit + state.credit
        reached = max((percent for percent in at if state.spent * 100 >= percent * whole), default=0)
        start_ns, reported = self._reported.get(counter, (state.start_ns, 0))
        if start_ns != state.start_ns:
            reported = 0
        if not reached or reached <= reported:
            return []
        self._reported[counter] = state.start_ns, reached
        return [BudgetAlert.at(counter, limit, state, percent) for percent in at if reported < percent <= reached]


def _read(file: Path) -> dict[Counter, tuple[int, int]]:
    """Return what was reported. Nothing if the file is missing or damaged: then alerts are repeated once."""
    try:
        return {
            Counter(CounterKind(kind), str(name), str(unit), Window(window)): (int(start_ns), int(percent))
            for kind, name, unit, window, start_ns, percent in json.loads(file.read_bytes())
        }
    except (OSError, ValueError, TypeError):
        return {}


def _labels(counter: Counter) -> BudgetLabels:
    if counter.kind is CounterKind.CLIENT:
        return counter.name, "", str(counter.window)
    return "", counter.name, str(counter.window)


class BudgetWatch:
    """Watches the budgets of an installation, which has a state directory, from `run` until it is cancelled.

    `valkey` is the latest round trip to Valkey. It is None if there is no Valkey, or it did not answer.
    """

    def __init__(self, state_dir: Path | None, current: Callable[[], ConfigVersion]) -> None:
        self._state_dir = state_dir
        self._current = current
        self._monitor: BudgetMonitor | None = None
        self.valkey: RoundTrip | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def used_shares(self) -> Mapping[BudgetLabels, int]:
        """Return the used share of each budget, in millionths."""
        return self._monitor.used_shares() if self._monitor is not None else {}

    async def quotas(self) -> tuple[QuotaUse, ...]:
        """Return what is used of each limit of each quota now."""
        return await self._monitor.read_quotas() if self._monitor is not None and self._current().quotas else ()

    async def run(self) -> None:
        """Read the budgets at intervals."""
        if self._state_dir is None:
            return
        transport: Transport = PoolTransport()
        if self._current().simulated:
            transport = SimulatorsOnly(transport, self._current)
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
        async with operator_gate(self._current, state_dir) as gate:
            monitor = self._monitor = BudgetMonitor(gate, self._current, state_dir=state_dir)
            while True:
                if gate.is_shared:
                    self.valkey = await gate.round_trip()
                    monitor.is_lost = self.valkey is None
                begun_at, pause_s = time.monotonic(), _POLL_S
                with suppress(GateUnavailable):  # the shared gate reports that itself
                    if alerts := await monitor.poll():
                        for alert in alerts:
                            await self._send(services, alert, gate)
                        try:
                            monitor.keep_reported()
                        except StateError as error:
                            report_problem(f"a restart will repeat alerts: {error}")
                    pause_s = max(pause_s, _SHARE_OF_TIME * (time.monotonic() - begun_at))
                await asyncio.sleep(pause_s)

    async def _send(self, services: ServiceClient, alert: BudgetAlert, gate: OperatorGate) -> None:
        logger().warning("budget_alert", **asdict(alert))
        alerts = self._current().usage.alerts
        if alerts is not None and alerts.webhook is not None and await _is_first(alert, gate):
            call = asyncio.create_task(_call_webhook(services, alerts.webhook, alert))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)


async def _is_first(alert: BudgetAlert, gate: OperatorGate) -> bool:
    """Return whether no other instance of the cell calls the webhook for this alert."""
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
