"""Assembly: from a table to an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.api.body import MOST_REQUESTS
from gateway.api.chat import CHAT_PATH, ChatEndpoint
from gateway.api.cors import crossing
from gateway.api.ledger import Ledger
from gateway.api.limits import ClientLimits
from gateway.api.on_demand import OnDemand
from gateway.api.probe import Application, ProbesFirst, health_probes
from gateway.execution.breaker import Breaker, BreakerState
from gateway.execution.health import Health
from gateway.execution.load import Limiter, Load
from gateway.execution.run import Runner
from gateway.execution.send import Sender
from gateway.execution.services import Services
from gateway.execution.transports import LeanTransport, Transport
from gateway.model.decision import Unwell
from gateway.model.table import Cors, Table
from gateway.observing import Observing
from gateway.receipt_desk import Keeping, open_desk
from gateway.service.journey import Journeys
from gateway.service.signals import Signals
from gateway.shadowing import Shadowing
from gateway.telemetry.log import logger
from gateway.telemetry.prompts import log_prompt

__all__ = ["Gateway", "transport_named"]

_Receive = Callable[[], Any]
_Send = Callable[[Any], Any]
_OF_LIMITERS: Mapping[str, Callable[[Limiter], float]] = {
    "gateway_concurrency_limit": lambda limiter: limiter.limit,
    "gateway_concurrency_in_use": lambda limiter: limiter.in_use,
    "gateway_concurrency_queued": lambda limiter: limiter.queued,
}


def transport_named(name: str) -> Transport:
    """`lean`: our own pool. `httpx`: httpx's transport, verified TLS, no proxy from the environment, no redirects."""
    if name == "lean":
        return LeanTransport()
    from gateway.execution.httpx_transport import plain_httpx

    return plain_httpx()


def _warn_of_location(detail: str) -> None:
    logger().warning("location", detail=detail)


class Gateway:
    """The ASGI application: the chat endpoint by the shortest way, health by a short one, everything else through
    FastAPI, which is imported when it is first asked.

    `table` is the active one. `metrics` are those of this process. is_draining: it finishes what is running, and says
    so to who asks whether it is ready. state_dir: where what comes of shadow traffic is kept; None is none of it.
    consent_key: what workers share where the table has no key for consent tokens.
    """

    def __init__(
        self,
        table: Table,
        transport: Transport | None = None,
        ledger: Ledger | None = None,
        state_dir: Path | None = None,
        keeping: Keeping | None = None,
        consent_key: bytes | None = None,
        most_requests: int = MOST_REQUESTS,
    ) -> None:
        self.table = table
        self.is_draining = False
        transport = transport or LeanTransport()
        self._sender = Sender(transport)
        self._receipts = open_desk(keeping, lambda: self.table) if keeping is not None else None
        take = self._receipts.take if self._receipts is not None else None
        self._observing = Observing(lambda: self.table, transport, take)
        self._health = Health(told=self._tell_of_breaker)
        self._signals = Signals(Services(transport), _warn_of_location)
        ledger = ledger or Ledger()
        load = Load(ledger.seat, ledger.seats)
        self._runner = Runner(self._sender, self._health, load)
        journeys = Journeys(lambda: self.table, self._runner, self._signals, consent_key=consent_key)
        self.metrics = self._observing.metrics
        self._shadowing = Shadowing(lambda: self.table, self._sender, self._health, load, self.metrics, state_dir)
        self._chat = ChatEndpoint(
            journeys, self._observing.observe, ClientLimits(ledger), self._shadowing.shadows, most_requests, log_prompt
        )
        # A function, as calls go: an object is called by way of its type.
        self._ask = self._chat.__call__
        self.metrics.live["gateway_requests_in_flight"] = lambda: self._chat.in_flight
        self.metrics.live["gateway_open_streams"] = lambda: self._chat.open_streams
        self.metrics.live["gateway_tasks"] = lambda: len(asyncio.all_tasks())
        if self._receipts is not None:
            self.metrics.live["gateway_receipts_lost_total"] = self._receipts.lost
        self.metrics.live_rows["gateway_breaker_state"] = self._health.breaker_states
        for name, read in _OF_LIMITERS.items():
            self.metrics.live_rows[name] = partial(load.rows, read)
        probes = health_probes(lambda: self.is_draining)

        def rest() -> Application:
            from gateway.api.routes import build_routes

            return build_routes(journeys, self._chat, probes, self._receipts, __version__)

        self._rest = ProbesFirst(probes, OnDemand(rest))

    def activate(self, table: Table) -> None:
        """Switch all new requests to this table; running ones keep theirs."""
        self.table = table
        self._runner.keep(table)
        self._signals.prepare(table.location)

    def _tell_of_breaker(self, deployment: str, breaker: Breaker, for_s: float) -> None:
        self.metrics.count("gateway_breaker_transitions_total", (deployment, str(breaker.state)))
        match breaker.state:
            case BreakerState.OPEN:
                logger().warning("breaker_open", deployment=deployment, reason=breaker.reason, for_s=round(for_s, 1))
            case BreakerState.CLOSED:
                logger().warning("breaker_closed", deployment=deployment)

    def drain(self) -> None:
        """The process is about to end."""
        self.is_draining = True

    def flush(self) -> None:
        """Log and count at once what has ended and been gathered."""
        self._observing.flush()

    def unwell(self) -> Mapping[str, Unwell]:
        """The deployments that aren't asked here: benched, or their breaker is open."""
        return self._health.snapshot(self.table)

    def __call__(self, scope: Any, receive: _Receive, send: _Send) -> Coroutine[Any, Any, None]:
        """ASGI 3. What answers is handed on as it is: another coroutine around it would be one more for each turn."""
        if self.table.cors is not None and scope["type"] == "http":
            return self._cross(self.table.cors, scope, receive, send)
        return self._answer(scope, receive, send)

    async def _cross(self, cors: Cors, scope: Any, receive: _Receive, send: _Send) -> None:
        sending = await crossing(cors, scope, receive, send)
        if sending is not None:
            await self._answer(scope, receive, sending)

    def _answer(self, scope: Any, receive: _Receive, send: _Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        if scope["type"] == "http":
            if scope["path"] == CHAT_PATH and scope["method"] == "POST":
                return self._ask(scope, receive, send)
            if scope["method"] == "HEAD":
                # What GET would say without its body (RFC 9110, section 9.3.2), which the server leaves out.
                scope = {**scope, "method": "GET"}
        return self._rest(scope, receive, send)

    async def _lifespan(self, receive: _Receive, send: _Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._signals.prepare(self.table.location)
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._shadowing.aclose()
                await self._observing.aclose()
                if self._receipts is not None:
                    await self._receipts.aclose()
                await self._signals.aclose()
                await self._sender.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return
