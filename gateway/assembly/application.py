"""Wire a config version into an ASGI application, with its telemetry and what runs of its features."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.api.body import MOST_REQUESTS
from gateway.api.chat import ChatEndpoint
from gateway.api.cors import RefusedOrigins, apply_cors, preflight_origin
from gateway.api.dialects.paths import counter_at, dialect_at
from gateway.api.front_page import FRONT_PAGE, HELLO_PATHS, accepts_html
from gateway.api.raw_responses import Application, LazyApplication, ProbesFirst, asks_for_websocket, health_probes
from gateway.api.websocket.connections import WebSockets
from gateway.api.websocket.handshake import answer_handshake
from gateway.assembly.key_uses import KeyUses
from gateway.assembly.receipts import ReceiptService, ReceiptSettings, read_receipt_settings
from gateway.assembly.usage import UsageWiring, usage_reports
from gateway.execution.breaker import ALL, Breaker, BreakerState
from gateway.execution.concurrency_limiter import ConcurrencyLimiter, ConcurrencyLimiters
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.execution.health import Health
from gateway.execution.json_schemas import prepare as prepare_schemas
from gateway.execution.run import PlanExecutor
from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.execution.transport import PoolTransport, SimulatorsOnly, Transport
from gateway.features.feature import Process
from gateway.features.running import PATHS, gates_of, watchers_of
from gateway.identity.client_tokens import ClientTokens
from gateway.identity.token_refresher import TokenRefresher
from gateway.installation import pseudonym_key
from gateway.model.config_version import ConfigVersion, Cors, Exporter
from gateway.model.decision import Unavailable
from gateway.model.record import Record
from gateway.model.status import VendorLimit
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.state.generated_key import CACHE_KEY, generated_key
from gateway.telemetry.batching import Batcher, Ended
from gateway.telemetry.event_feed import EventFeed
from gateway.telemetry.log import dropped_lines, log_prompt, log_requests, logger
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent_requests import RecentRequests
from gateway.telemetry.trace_export import Delivery, Tracer
from gateway.usage.client_limits import ClientLimits
from gateway.usage.quota_store import QuotaStore
from gateway.usage.quotas import vendor_limits
from providers.reading.rate_limits import retry_after_s
from providers.wire import WireRequest

_LIMIT_S = 10.0
_MOST_BYTES = 64 * 1024
_OF_LIMITERS: Mapping[str, Callable[[ConcurrencyLimiter], float]] = {
    "gateway_concurrency_limit": lambda limiter: limiter.limit,
    "gateway_concurrency_in_use": lambda limiter: limiter.in_use,
    "gateway_concurrency_queued": lambda limiter: limiter.queued,
}


class Telemetry:
    """Sends the record of each finished request to logs, metrics, traces and receipts.

    Attributes:
        observe: Takes each record once. It neither raises nor waits.
        metrics: The metrics of this process. Their gauges are registered by the objects that they describe.

    Args:
        take: Stores the receipt of a record. None if receipts are not stored.
        key_uses: Records the last use of each key. None without a state directory.
    """

    def __init__(
        self,
        current: Callable[[], ConfigVersion],
        transport: Transport,
        take: Callable[[Record], None] | None = None,
        key_uses: KeyUses | None = None,
    ) -> None:
        self._key_uses = key_uses
        batcher = Batcher(self._flush_batch)
        self.metrics = Metrics()
        self.recent = RecentRequests()
        self.metrics.live["gateway_log_lines_dropped_total"] = dropped_lines
        self.flush = self.metrics.settle = batcher.flush
        self._current = current
        self._services = ServiceClient(transport)
        self._tracer = Tracer(lambda: current().exporters, self._post, self.metrics, _resource())

        def observe(record: Record) -> None:
            batcher.add(record)
            if take is not None:
                take(record)

        self.observe: Callable[[Record], None] = batcher.add if take is None else observe

    def _flush_batch(self, ended: Sequence[Ended]) -> None:
        for record, _ in ended:
            self.metrics.observe(record)
        log_requests(ended, self._current().log.sample)
        self._tracer.observe(ended)
        if self._key_uses is not None:
            self._key_uses.note(ended)
        self.recent.add(ended, self._current().cell_territory)

    async def _post(self, exporter: Exporter, body: bytes) -> Delivery:
        headers = [("content-type", "application/x-protobuf")]
        headers += [(name, secret.reveal()) for name, secret in exporter.headers]
        wire = WireRequest("POST", exporter.path, tuple(headers), body)
        try:
            reply = await self._services.call(exporter.permit, wire, limit_s=_LIMIT_S, most_bytes=_MOST_BYTES)
        except ServiceFailed as error:
            return Delivery(None, str(error))
        return Delivery(reply.status, retry_after_s=retry_after_s(reply.headers, time.time()))

    async def aclose(self) -> None:
        """Flush waiting records, for a limited time. The caller closes the transport."""
        self.flush()
        if self._key_uses is not None:
            await self._key_uses.aclose()
        await self._tracer.aclose()


def _resource() -> dict[str, str]:
    return {
        "service.name": "assistant-gateway",
        "service.version": __version__,
        "service.instance.id": os.urandom(16).hex(),
    }


_Receive = Callable[[], Any]
_Send = Callable[[Any], Any]


class Gateway:
    """The gateway as an ASGI application.

    The chat endpoint and the probes are called directly. FastAPI, imported at its first request, handles other paths.

    Args:
        config: The config version to start with.
        transport: The transport for requests to providers; the gateway's own connection pool if it is None.
        quota_store: The store of client limits and concurrency limits. Without one, they hold in this process only.
        state_dir: The directory for usage rows, budgets and the data of features, or None if none of this is kept.
        receipts: Where receipts are stored, by a thread of their own, and what signs them.
        consent_key: The key for consent tokens, shared by all workers. It is used if the configuration has none.
        most_requests: The limit of concurrent requests.

    Attributes:
        config: The active config version.
        sign_in_tokens: The tokens of sign-ins.
        makes_exchanges: Whether this process gets these tokens itself, from its start on. If not, it is handed them.
        sign_ins: Returns the state of each sign-in that is used: none if another process makes the exchanges.
        state_dir: The state directory, or None.
        is_draining: Whether the process is about to end. Then the readiness probe fails.
        events: The events of this process for operators.
        metrics: The metrics of this process.
        websockets: The WebSocket connections of this process.

    Examples:
        `app = Gateway(config_version)`
    """

    def __init__(
        self,
        config: ConfigVersion,
        transport: Transport | None = None,
        quota_store: QuotaStore | None = None,
        state_dir: Path | None = None,
        receipts: ReceiptSettings | None = None,
        consent_key: bytes | None = None,
        most_requests: int = MOST_REQUESTS,
    ) -> None:
        self.config = config
        current: Callable[[], ConfigVersion] = partial(getattr, self, "config")
        self.state_dir = state_dir
        self.is_draining = False
        self.events = EventFeed()
        transport = transport or PoolTransport()
        if config.simulated:
            transport = SimulatorsOnly(transport, current)
        self._transport = transport
        self._receipts = ReceiptService(receipts, current) if receipts is not None else None
        take = self._receipts.take if self._receipts is not None else None
        key_uses = KeyUses(state_dir, current) if state_dir is not None else None
        self._telemetry = Telemetry(current, transport, take, key_uses)
        self._health = Health(on_breaker_change=self._on_breaker_change)
        self._locations = LocationService(ServiceClient(transport), lambda it: logger().warning("location", detail=it))
        tokens = self.sign_in_tokens = self._health.tokens
        self.makes_exchanges = True
        self._refresher = TokenRefresher(ServiceClient(transport), tokens.take)
        tokens.refused, self.sign_ins = self._refresher.force, self._refresher.statuses
        quota_store = quota_store or QuotaStore()
        limiters = ConcurrencyLimiters(*quota_store.share)
        limiters.prune(current())
        self._executor = PlanExecutor(transport, self._health, limiters)
        self.metrics = self._telemetry.metrics
        count_overshoot = partial(self.metrics.count, "gateway_overshoot_total", ())
        count_implausible = partial(self.metrics.count, "gateway_usage_implausible_total")
        self._usage = UsageWiring(state_dir, current, count_overshoot, count_implausible) if state_dir else None
        if self._usage is not None:
            self._executor.accounting = self._usage.accounting
        self._tokens = ClientTokens(ServiceClient(transport), lambda it: logger().warning("client_tokens", detail=it))
        service = self._service(current, ClientLimits(quota_store), limiters, consent_key)
        self._chat = ChatEndpoint(service, self._telemetry.observe, most_requests, self._tokens)
        self._ask = self._chat.answer
        self.websockets = WebSockets(self._chat, self.metrics.count, lambda: self.is_draining)
        self._add_live_metrics(limiters)
        self._refused_origins = RefusedOrigins()
        probes = health_probes(lambda: self.is_draining)

        def rest() -> Application:
            from gateway.api.public_routes import StoredSources, build_routes

            reports = usage_reports(state_dir, self.config.stores) if state_dir is not None else None
            stored = StoredSources(self._receipts.find if self._receipts is not None else None, reports)
            return build_routes(service, self._chat, probes, stored, PATHS, __version__)

        self._rest = ProbesFirst(probes, LazyApplication(rest))
        self._prepare_schemas()

    @classmethod
    def with_receipts(cls, state_dir: Path | None, receipt_key: Path | None = None, **more: Any) -> Gateway:
        """Return a gateway that stores receipts, signed with the key of this file. Raises KeyUnusable."""
        return cls(state_dir=state_dir, receipts=read_receipt_settings(state_dir, receipt_key), **more)

    def _service(
        self,
        current: Callable[[], ConfigVersion],
        limits: ClientLimits,
        limiters: ConcurrencyLimiters,
        consent_key: bytes | None,
    ) -> ChatService:
        """Return what answers requests, with the gates and the watchers of features."""
        service = ChatService(
            current, self._executor, self._locations, limits, consent_key=consent_key, log_prompt=log_prompt
        )
        if self.state_dir is not None:
            service.decider.cache_key = generated_key(self.state_dir, CACHE_KEY)
        process = self._process(current, limiters, service)
        self._gates = service.gates = gates_of(process)
        self._watchers = service.watchers = watchers_of(process)
        if self._usage is not None and self._usage.stores is not None:
            service.take_shared = self._usage.stores.limits.take
        return service

    def _process(
        self, current: Callable[[], ConfigVersion], limiters: ConcurrencyLimiters, service: ChatService
    ) -> Process:
        """Return the parts of this process that features may use."""
        usage, directory = self._usage, self.state_dir
        return Process(
            current,
            self._transport,
            self._health,
            limiters,
            self.metrics,
            directory,
            self._executor,
            service.passed_texts,
            usage.accounting.gate if usage is not None else None,
            pseudonym_key(self.config, directory) if directory is not None else secrets.token_bytes(32),
        )

    def _add_live_metrics(self, limiters: ConcurrencyLimiters) -> None:
        """Add the metrics whose values are read from their owners with each scrape."""
        self.metrics.live["gateway_requests_in_flight"] = lambda: self._chat.in_flight
        self.metrics.live["gateway_open_streams"] = lambda: self._chat.open_streams
        self.metrics.live["gateway_websocket_connections"] = lambda: len(self.websockets.sessions)
        self.metrics.live["gateway_websocket_state_bytes"] = lambda: self.websockets.state_bytes
        self.metrics.live["gateway_tasks"] = lambda: len(asyncio.all_tasks())
        if self._receipts is not None:
            stored = self._receipts.stored
            self.metrics.live["gateway_receipts_lost_total"] = lambda: stored.lost
            self.metrics.live["gateway_receipts_waiting"] = lambda: stored.waiting
        self.metrics.live_rows["gateway_breaker_state"] = self._health.breaker_states
        self.metrics.live_rows["gateway_breaker_callers"] = self._health.closed_callers
        self.metrics.live_rows["gateway_breaker_refusals_total"] = lambda: self._health.refusals
        self.metrics.live_rows["gateway_sign_in_seconds_left"] = self._refresher.seconds_left
        self.metrics.live_rows["gateway_sign_in_exchanges_total"] = lambda: self._refresher.exchanges
        for name, read in _OF_LIMITERS.items():
            self.metrics.live_rows[name] = partial(limiters.rows, read)
        if self._usage is not None:
            counts = self._usage.accounting.counts
            skips = self._usage.accounting.skips
            self.metrics.live_rows["gateway_quota_skips_total"] = lambda: skips
            self.metrics.live_rows["gateway_client_calls_total"] = counts.calls
            self.metrics.live_rows["gateway_client_tokens_total"] = counts.tokens
            self.metrics.live_rows["gateway_client_cost_total"] = counts.costs

    def activate(self, config: ConfigVersion, *, is_loaded: bool = True) -> None:
        """Use another config version for new requests. Running requests keep theirs.

        Args:
            is_loaded: Whether it was loaded now, so that issuers are asked for their keys again.
        """
        self.config = config
        self._telemetry.recent.settle()
        self._executor.prune(config)
        self.sign_in_tokens.keep(config.sign_ins)
        if self.makes_exchanges:
            self._refresher.apply(config)
        self._locations.prepare(config.location.rules)
        self._tokens.prepare(config.token_issuers)
        if is_loaded:
            self.renew_keys()
        self._prepare_schemas()

    def renew_keys(self) -> None:
        """Ask the issuers of tokens and claims for their keys again."""
        self._locations.renew()
        self._tokens.renew()

    def _prepare_schemas(self) -> None:
        if any(deployment.structured_output == "emulate" for deployment in self.config.deployments.values()):
            prepare_schemas()

    def _on_breaker_change(self, deployment: str, breaker: Breaker, for_s: float) -> None:
        if breaker.state is BreakerState.OPEN:
            fields: dict[str, Any] = {"reason": breaker.reason, "scope": breaker.scope, "for_s": round(for_s, 1)}
            logger().warning("breaker_open", deployment=deployment, **fields)
        if breaker.scope != ALL:
            return
        self.metrics.count("gateway_breaker_transitions_total", (deployment, str(breaker.state)))
        self.events.publish("health", {"deployment": deployment, "breaker": str(breaker.state)})
        if breaker.state is BreakerState.CLOSED:
            logger().warning("breaker_closed", deployment=deployment)

    def drain(self) -> None:
        """Prepare for the end of the process: the readiness probe fails, and running requests are finished."""
        self.is_draining = True
        self.events.close()

    def cut(self) -> None:
        """Note that the requests that still run are cancelled, because the process does not wait any longer."""
        if self._usage is not None:
            self._usage.accounting.is_stopping = True

    def flush(self) -> None:
        """Write the logs and metrics of finished requests now instead of with the next batch."""
        self._telemetry.flush()

    def recent_requests(self) -> list[dict[str, object]]:
        """Return the last finished requests of this process as JSON objects with their attempts, the latest first."""
        self._telemetry.flush()
        return self._telemetry.recent.documents()

    def store_problems(self) -> Mapping[str, str]:
        """Return why stores cannot be used now, by their kind: `journal`, or of shared ones `valkey` and `database`."""
        return self._usage.problems() if self._usage is not None else {}

    def unavailable_deployments(self, asker: Asker = EVERYBODY) -> Mapping[str, Unavailable]:
        """Return the deployments in a cooldown or with an open breaker for an asker, each with the reason."""
        return self._health.snapshot(self.config, asker)

    def unavailable_to_clients(self) -> Mapping[str, Mapping[str, Unavailable]]:
        """Return, by client, what it cannot use now, for the clients that alone may not use a deployment."""
        return self._health.snapshots_of_clients(self.config)

    def quota_state(self) -> tuple[Mapping[tuple[str, str], VendorLimit], frozenset[str]]:
        """Return what vendors stated last, by quota and unit, and the deployments without room at their last call."""
        accounting = self._executor.accounting
        if accounting is None or not self.config.quotas:
            return {}, frozenset()
        return vendor_limits(self.config, accounting.stated), accounting.without_room()

    def closed_callers(self) -> Mapping[str, int]:
        """Return for how many clients and users alone each deployment is closed."""
        return {name: count for (name,), count in self._health.closed_callers().items() if count}

    def resume(self, deployment: str) -> bool:
        """End the cooldowns and breakers of a deployment, and return whether it was out of use."""
        was_out = self._health.resume(deployment)
        if was_out:
            self.events.publish("health", {"deployment": deployment, "breaker": "closed"})
        return was_out

    def __call__(self, scope: Any, receive: _Receive, send: _Send) -> Coroutine[Any, Any, None]:
        """Handle one ASGI 3 connection. The inner coroutine itself is returned, because another one would cost time."""
        if self.config.cors is not None and scope["type"] == "http":
            return self._cross(self.config.cors, scope, receive, send)
        return self._answer(scope, receive, send)

    async def _cross(self, cors: Cors, scope: Any, receive: _Receive, send: _Send) -> None:
        sending = await apply_cors(cors, scope, send, self._refused_origins.note)
        if sending is not None:
            await self._answer(scope, receive, sending)

    def _answer(self, scope: Any, receive: _Receive, send: _Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        if scope["type"] == "http":
            if scope["method"] == "POST":
                if (dialect := dialect_at(scope["path"], scope.get("query_string", b""))) is not None:
                    return self._ask(scope, receive, send, dialect)
                if (counter := counter_at(scope["path"])) is not None:
                    return self._chat.count_tokens(scope, receive, send, counter)
            if asks_for_websocket(scope):
                return answer_handshake(self.websockets, scope, receive, send)
            if scope["method"] == "OPTIONS" and self.config.cors is None and (origin := preflight_origin(scope)):
                self._refused_origins.note(origin)
            # Claude Code asks with HEAD before its first request whether the host is there.
            path, is_head = scope["path"], scope["method"] == "HEAD"
            if (is_head and path in HELLO_PATHS) or (path == "/" and scope["method"] == "GET" and accepts_html(scope)):
                return FRONT_PAGE(scope, receive, send)
            if scope["method"] == "HEAD":
                # HEAD is answered like GET (RFC 9110, section 9.3.2). The server omits the body.
                scope = {**scope, "method": "GET"}
        return self._rest(scope, receive, send)

    def move_clock(self, ahead_s: int) -> None:
        """Count the time of users as if it were so many seconds later, in a demo."""
        for gate in self._gates:
            gate.move_clock(ahead_s)

    async def _lifespan(self, receive: _Receive, send: _Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._locations.prepare(self.config.location.rules)
                self._tokens.prepare(self.config.token_issuers)
                if self._usage is not None:
                    await self._usage.start()
                for gate in self._gates:
                    gate.start()
                if self.makes_exchanges:
                    self._refresher.apply(self.config)
                    await self._refresher.first()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                for watcher in self._watchers:
                    await watcher.aclose()
                for gate in self._gates:
                    await gate.aclose()
                await self._telemetry.aclose()
                if self._receipts is not None:
                    await self._receipts.aclose()
                await self._locations.aclose()
                await self._tokens.aclose()
                await self._refresher.aclose()
                await self._transport.aclose()
                if self._usage is not None:
                    await self._usage.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return
