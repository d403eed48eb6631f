"""The export of traces: batched, bounded, retried, dropped with a count, and never across a boundary."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.caller import TraceContext
from gateway.model.config_version import Exporter, Region
from gateway.model.location import Location
from gateway.model.permit import ServicePermit
from gateway.model.record import Record
from gateway.telemetry import log
from gateway.telemetry import trace_export as module
from gateway.telemetry.metric_snapshots import unpack
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.trace_export import Delivery, Tracer
from providers.sites import Residency
from providers.territories import parse_places
from tests.kit.case_files import cases
from tests.kit.otlp_collector import attributes_of, spans_in
from tests.kit.request_records import NOWHERE_KNOWN, US, answered, with_fields
from tests.kit.scripted_server import until


def exporter(name: str = "traces", place: str = "DE", regions: str = "eu", **more: object) -> Exporter:
    residency = Residency(parse_places([place]), parse_places([place]))
    permit = ServicePermit("https://otel.example")
    return replace(Exporter(name, permit, "/v1/traces", (), residency, frozenset(regions.split())), **more)  # type: ignore[arg-type]


def traced(sampled: bool | None = None, trace_id: str = "a" * 32, location: Location | None = None) -> Record:
    record = answered()
    record.trace = TraceContext(trace_id, "", sampled)
    if location is not None:
        record = with_fields(record, location=location)
    return record


@dataclass
class Bench:
    """A tracer with a fake collector."""

    exporters: tuple[Exporter, ...] = (exporter(),)
    answers: list[Delivery] = field(default_factory=lambda: [Delivery(200)])
    gather_s: float = 0.0
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    hold: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.tracer = Tracer(
            lambda: self.exporters, self.post, self.metrics, {"a": "b"}, gather_s=self.gather_s, sleep=self.sleep
        )

    def observe(self, record: Record) -> None:
        self.tracer.observe([(record, time.time())])

    async def post(self, to: Exporter, body: bytes) -> Delivery:
        self.bodies.append((to.name, body))
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.status == -1:
            raise RuntimeError("a bug")
        return answer

    async def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)

    @property
    def counts(self) -> dict[str, int]:
        """Return the counts by outcome, over all exporters."""
        counts: dict[str, int] = {}
        for (_, outcome), (count,) in unpack(self.metrics.snapshot()).get("gateway_traces_total", {}).items():
            counts[outcome] = counts.get(outcome, 0) + count
        return counts

    async def settled(self, outcome: str, count: int = 1) -> None:
        await until(lambda: self.counts.get(outcome) == count)


@asynccontextmanager
async def bench(*exporters: Exporter, **more: object) -> AsyncIterator[Bench]:
    made = Bench(exporters or (exporter(),), **more)  # type: ignore[arg-type]
    yield made
    if made.hold is not None:
        made.hold.set()
    await made.tracer.aclose()


async def test_requests_of_one_moment_are_sent_together() -> None:
    async with bench(gather_s=60) as one:
        for _ in range(module._MOST_IN_BATCH):
            one.observe(traced())
        await one.settled("exported", module._MOST_IN_BATCH)
        assert len(one.bodies) == 1
        assert len(spans_in(one.bodies[0][1])) == 2 * module._MOST_IN_BATCH


async def test_partial_batch_is_sent_after_a_while() -> None:
    async with bench(gather_s=0.01) as one:
        one.observe(traced())
        await one.settled("exported", 1)
        one.observe(traced())
        await one.settled("exported", 2)


async def test_request_without_exporters_or_trace_is_not_queued() -> None:
    async with bench() as one:
        one.observe(answered())
        one.exporters = ()
        one.observe(traced())
        assert one.counts == {}


async def test_full_queue_drops_and_counts_the_newest_request() -> None:
    async with bench(hold=asyncio.Event(), gather_s=60) as one:
        for _ in range(module._MOST_QUEUED + 7):
            one.observe(traced())
        assert one.counts == {"queue_full": 7}
        one.hold.set()
        await one.settled("exported", module._MOST_QUEUED)


@pytest.mark.parametrize("status", [429, 502, 503, 504, None])
async def test_temporary_failure_is_retried(status: int | None) -> None:
    async with bench(answers=[Delivery(status, "down"), Delivery(200)]) as one:
        one.observe(traced())
        await one.settled("exported")
        assert len(one.waits) == 1
        assert 0 <= one.waits[0] <= 1
        assert one.bodies[0] == one.bodies[1]


async def test_retry_after_of_a_collector_is_used_within_bounds() -> None:
    async with bench(answers=[Delivery(429, "", 3.0), Delivery(503, "", 9000.0), Delivery(200)]) as one:
        one.observe(traced())
        await one.settled("exported")
        assert one.waits == [3.0, 30.0]


@pytest.mark.parametrize(
    ("answer", "calls"), [(Delivery(400), 1), (Delivery(302), 1), (Delivery(503), 3), (Delivery(-1), 1)]
)
async def test_undeliverable_batch_is_dropped_and_counted_and_the_next_is_sent(answer: Delivery, calls: int) -> None:
    async with bench(answers=[answer] * calls + [Delivery(200)]) as one:
        one.observe(traced())
        await one.settled("failed")
        assert len(one.bodies) == calls
        one.observe(traced())
        await one.settled("exported")


async def test_log_without_a_reader_does_not_end_tracing() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    stream.close()
    async with bench(answers=[Delivery(503), Delivery(200)]) as one:
        one.observe(traced())
        await one.settled("exported")


async def test_close_sends_the_queue_without_waiting() -> None:
    async with bench(gather_s=60) as one:
        one.observe(traced())
        await one.tracer.aclose()
        assert one.counts == {"exported": 1}
        one.observe(traced())
        assert one.counts == {"exported": 1, "discarded": 1}


async def test_hanging_collector_does_not_delay_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_S", 0.01)
    async with bench(hold=asyncio.Event()) as one:
        for _ in range(300):
            one.observe(traced())
        await until(lambda: bool(one.bodies))
        async with asyncio.timeout(30):
            await one.tracer.aclose()
        assert one.counts == {"discarded": 300}


# --- the requests of each exporter -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampled", "trace_id", "ratio", "is_exported"),
    [
        (None, "0" * 31 + "1", 0.5, True),
        (None, "f" * 32, 0.5, False),
        (None, "f" * 32, 1.0, True),
        (None, "0" * 31 + "1", 0.0, False),
        (True, "f" * 32, 0.0, True),
        (False, "0" * 31 + "1", 1.0, False),
    ],
)
async def test_callers_flag_decides_before_the_ratio(
    sampled: bool | None, trace_id: str, ratio: float, is_exported: bool
) -> None:
    async with bench(exporter(ratio=ratio)) as one:
        one.observe(traced(sampled, trace_id))
        await one.tracer.aclose()
        assert one.counts == ({"exported": 1} if is_exported else {})


async def test_exporter_gets_only_requests_of_its_regions() -> None:
    async with bench(exporter(), exporter("american", "US", "us")) as one:
        one.observe(traced())
        one.observe(traced(location=US))
        one.observe(traced(location=NOWHERE_KNOWN))
        await one.tracer.aclose()
        received = {
            name: {attributes_of(span).get("gateway.region") for span in spans_in(body)} - {None}
            for name, body in one.bodies
        }
        assert received == {"traces": {"eu"}, "american": {"us"}}
        assert one.counts == {"exported": 2}


@cases("territory", "place", "is_exported")
async def test_request_that_must_stay_in_its_territory_is_exported_only_there(
    territory: str | None, place: str, is_exported: bool
) -> None:
    """A region of `*` has the boundary `*`, and still no prompt leaves China."""
    everywhere = Region("default", parse_places(["*"]), parse_places(["*"]))
    async with bench(exporter(place=place, regions="default")) as one:
        one.observe(traced(location=Location(everywhere, territory, "edge_header", ())))
        await one.tracer.aclose()
        assert bool(one.bodies) == is_exported


async def test_request_without_a_region_is_exported_only_inside_every_boundary() -> None:
    async with bench(exporter(), exporter("inside", includes_unlocated=True)) as one:
        one.observe(with_fields(traced(), location=None))
        one.observe(traced(location=NOWHERE_KNOWN))
        await one.tracer.aclose()
        assert {name for name, _ in one.bodies} == {"inside"}


async def test_boundary_of_the_requests_own_config_counts_too() -> None:
    """The boundary of the region was narrower when the request began."""
    narrow = Location(Region("eu", parse_places(["FR"]), parse_places(["FR"])), "FR", "edge_header", ())
    async with bench() as one:
        one.observe(traced(location=narrow))
        await one.tracer.aclose()
        assert one.bodies == []


async def test_reload_keeps_unchanged_exporters_and_drops_queues_of_others() -> None:
    moved = exporter("moved")
    async with bench(exporter(), moved, gather_s=60) as one:
        one.observe(traced())
        one.exporters = (exporter(), replace(moved, path="/elsewhere"))
        one.observe(traced())
        assert one.counts == {"discarded": 1}
        await one.tracer.aclose()
        assert one.counts == {"discarded": 1, "exported": 3}
        assert sorted(name for name, _ in one.bodies) == ["moved", "traces"]


async def test_removed_exporter_sends_nothing_even_without_new_requests() -> None:
    async with bench(answers=[Delivery(503)]) as one:

        async def reload(_: float) -> None:
            one.exporters = ()

        one.tracer._make = lambda made: module._Sender(
            made, lambda: made in one.exporters, one.post, one.metrics, {}, 0, reload
        )
        one.observe(traced())
        await one.settled("discarded")
        assert len(one.bodies) == 1


async def test_reload_cancels_a_running_export() -> None:
    async with bench(hold=asyncio.Event()) as one:
        one.observe(traced())
        await until(lambda: bool(one.bodies))
        one.exporters = ()
        one.observe(traced())
        assert one.counts == {"discarded": 1}
        one.hold.set()
        await asyncio.sleep(0)
        assert one.counts == {"discarded": 1}


async def test_exporter_with_an_unset_header_sends_nothing() -> None:
    async with bench(exporter(missing=("OTLP_TOKEN",))) as one:
        one.observe(traced())
        await one.tracer.aclose()
        assert one.bodies == []


PLACES = [["DE"], ["US"], ["CN"], ["DE", "US"], ["*"], ["*", "!CN"], ["any"]]
regions = st.builds(
    lambda name, boundary: Location(Region(name, parse_places(["JP"]), parse_places(boundary)), None, "w", ()),
    st.sampled_from(["eu", "us", "cn"]),
    st.sampled_from(PLACES),
)


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sets(st.sampled_from(["eu", "us", "cn"])), st.booleans()), max_size=3
    ),
    st.lists(st.none() | regions, max_size=6),
)
@settings(max_examples=60, deadline=None)
async def test_span_never_leaves_its_regions_boundary(
    made: list[tuple[list[str], set[str], bool]], locations: list[Location | None]
) -> None:
    exporters = tuple(
        Exporter(f"e{i}", ServicePermit("https://o.example"), "/p", (), Residency(parse_places(p), parse_places(p)), frozenset(r), u)
        for i, (p, r, u) in enumerate(made)
    )  # fmt: skip
    async with bench(*exporters) as one:
        one.exporters = exporters
        for number, location in enumerate(locations):
            record = traced(trace_id=f"{number + 1:032x}")
            record = with_fields(record, location=location)
            one.observe(record)
        await one.tracer.aclose()
        received = {(name, int(span.trace_id.hex(), 16) - 1) for name, body in one.bodies for span in spans_in(body)}
        for index, (place, named, unplaced) in enumerate(made):
            for number, location in enumerate(locations):
                region = location.region if location is not None else None
                inside = region is not None and parse_places(place).within(region.boundary)
                may = unplaced if region is None else inside and region.name in named
                assert ((f"e{index}", number) in received) == may


async def test_log_has_one_line_for_a_failure_and_one_for_the_recovery() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    async with bench(answers=[Delivery(None, "refused")] * 4 + [Delivery(200)]) as one:
        for outcome in ("failed", "exported"):
            one.observe(traced())
            await one.settled(outcome)
    is_exported = stream.getvalue()
    assert is_exported.count("export_failed") == 1
    assert is_exported.count("export_works_again") == 1
    assert "refused" in is_exported
