"""A stream after its first real event: it ends exactly once, in time, and releases its connection."""

import asyncio
from typing import cast

import pytest

from gateway.execution import answer_stream as module
from gateway.execution.answer_stream import LiveStream
from gateway.execution.deadline import Deadline, TimeLimit
from gateway.execution.transport import PoolTransport, UpstreamResponse
from gateway.execution.upstream_request import upstream_request
from gateway.model.permit import Permit
from providers.chat import ChoiceFinish, Failed, Finished, Heartbeat, Opened, StreamEvent, TextDelta, UsageReport
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading.folding import expand
from providers.registry import load_registry
from providers.transport.connection import Tap
from providers.transport.pool import Pool
from providers.wire import WireRequest
from tests.gateway.clocks import SetClock
from tests.gateway.execution.live_streams import DONE, HANGS, LONG_S, WHOLE, Pieces, chunk, live, new_parser, redact
from tests.kit.scripted_server import GOOD, hold, say, scripted, until

Event = StreamEvent
BROKEN = ProviderFailed(Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", "with sk-secret"))
SHORT_S = 0.02


def error(code: str) -> bytes:
    return b'data: {"error":{"code":"%b","message":"words with sk-secret"}}\n\n' % code.encode()


async def all_of(stream: LiveStream) -> list[Event]:
    async with asyncio.timeout(30):
        await stream.begin()
        return [event async for batch in stream for event in expand(batch)]


def ending(events: list[Event]) -> FailureKind | None:
    """Return the kind of the final failure, or None for a complete answer. Only the last event is terminal."""
    assert not any(isinstance(event, Finished | Failed) for event in events[:-1])
    last = events[-1]
    assert isinstance(last, Finished | Failed)
    return last.failure.kind if isinstance(last, Failed) else None


@pytest.mark.parametrize("script", [WHOLE, (b"".join(WHOLE),)], ids=["in pieces", "in one piece"])
async def test_a_whole_answer(script: tuple[bytes, ...]) -> None:
    stream, pieces = live(*script)
    events = await all_of(stream)
    assert events == [Opened("s", "m", 1), TextDelta("a"), TextDelta("b"), ChoiceFinish("stop"), Finished()]
    assert pieces.closed >= 1


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_finish_without_an_end_mark_counts_as_the_first_event(reason: str) -> None:
    stream, pieces = live(chunk(), chunk(finish=reason), HANGS, idle_s=SHORT_S)
    async with asyncio.timeout(30):
        await stream.begin()
    assert pieces.reads == 2, "the status line doesn't wait for [DONE]"
    events = [event async for batch in stream for event in expand(batch)]
    assert events == [Opened("s", "m", 1), ChoiceFinish(reason), Finished()]
    assert pieces.closed >= 1


async def test_stream_begins_with_the_first_content_event() -> None:
    comment, role = b": keep-alive\n\n", chunk()
    stream, pieces = live(comment, role, comment, chunk("a"), HANGS)
    await stream.begin()
    assert pieces.reads == 4
    first = await anext(stream)
    assert not any(isinstance(event, Heartbeat) for event in first)
    assert TextDelta("a") in expand(first)
    await stream.close()
    assert pieces.closed >= 1


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ((error("server_error"),), FailureKind.UNAVAILABLE),
        ((chunk(), error("content_filter")), FailureKind.CONTENT_FILTER),
        ((), FailureKind.INTERRUPTED),
        ((chunk(),), FailureKind.INTERRUPTED),
        ((BROKEN,), FailureKind.INTERRUPTED),
        ((chunk() + chunk("a") + chunk("b") + error("rate_limit_exceeded"),), FailureKind.RATE_LIMITED),
    ],
    ids=["an error", "a filter", "nothing", "only a role", "a break", "texts with an error"],
)
async def test_failure_before_the_first_event_is_raised(script: tuple[object, ...], kind: FailureKind) -> None:
    stream, _ = live(*script)
    with pytest.raises(ProviderFailed) as raised:
        await stream.begin()
    assert raised.value.failure.kind is kind


@pytest.mark.parametrize(
    "script",
    [(chunk("a") + error("content_filter"),), (chunk("a"), error("content_filter"))],
    ids=["one piece", "two pieces"],
)
async def test_content_filter_after_text_is_an_end_for_any_chunking(script: tuple[object, ...]) -> None:
    stream, _ = live(*script)
    *_, text, finish, last = await all_of(stream)
    assert text == TextDelta("a")
    assert isinstance(finish, ChoiceFinish)
    assert (finish.reason, last) == ("content_filter", Finished())


async def test_filtered_stream_that_breaks_before_any_text_causes_no_failover() -> None:
    adapter = load_registry().adapters["qianfan"]
    flagged = chunk().replace(b'"index":0', b'"index":0,"flag":2')
    *_, finish, last = await all_of(live(flagged, BROKEN, parser=new_parser(adapter))[0])
    assert (finish, last) == (ChoiceFinish("content_filter"), Finished())


async def test_events_do_not_depend_on_the_cut_into_chunks() -> None:
    body = chunk() + chunk("a") + error("rate_limit_exceeded")
    for size in (len(body), len(chunk()), 7, 1):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        async with scripted(hold(HEAD + b"".join(map(framed, pieces)))) as server:
            way = PoolTransport(Pool(lambda *_: None))
            stream = await stream_from(way, server.origin, Deadline.start(LONG_S, LONG_S))
            with pytest.raises(ProviderFailed) as raised:
                await stream.begin()
            assert raised.value.failure.kind is FailureKind.RATE_LIMITED
            await stream.close()
            await way.aclose()


@pytest.mark.parametrize(
    ("script", "detail"),
    [((BROKEN,), "with [redacted]"), ((error("server_error"),), "[redacted]"), ((b"data: garbage\n\n",), ""), ((), "")],
    ids=["broken", "error frame", "garbage", "cut"],
)
async def test_break_after_the_first_event_is_a_failed_event(script: tuple[object, ...], detail: str) -> None:
    stream, pieces = live(chunk("a"), *script)
    events = await all_of(stream)
    assert ending(events) is not None
    assert TextDelta("a") in events
    failure = cast(Failed, events[-1]).failure
    assert detail in failure.detail
    assert "sk-secret" not in failure.detail
    assert pieces.closed >= 1


@pytest.mark.parametrize("end", [BROKEN, HANGS, None], ids=["broken", "silent", "cut"])
async def test_answer_without_its_end_mark_is_complete(end: object) -> None:
    script = [*WHOLE[:-1], *([end] if end is not None else [])]
    stream, pieces = live(*script, idle_s=SHORT_S)
    assert ending(await all_of(stream)) is None
    assert pieces.closed >= 1


async def test_silence_is_a_stall() -> None:
    stream, pieces = live(chunk("a"), HANGS, idle_s=SHORT_S)
    events = await all_of(stream)
    assert ending(events) is FailureKind.INTERRUPTED
    assert cast(Failed, events[-1]).failure.detail == "stalled"
    assert pieces.closed >= 1


async def test_heartbeats_reset_the_idle_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    limits_s: list[float] = []
    enter = TimeLimit.__enter__

    def noted(limit: TimeLimit) -> None:
        limits_s.append(limit.seconds)
        enter(limit)

    monkeypatch.setattr(TimeLimit, "__enter__", noted)
    stream, _ = live(WHOLE[0], *[b": alive\n\n"] * 6, *WHOLE[1:], idle_s=5)
    assert ending(await all_of(stream)) is None
    # Each read has the whole idle time; the bytes after the end have less.
    assert limits_s[:-1] == [5] * 9
    assert limits_s[-1] < 1


async def test_total_deadline_ends_a_stream_that_is_never_silent() -> None:
    class Endless(Pieces):
        async def read(self, _: Tap | None = None) -> bytes:
            await asyncio.sleep(0.002)
            return chunk("a")

    pieces = Endless()
    parser = new_parser()
    stream = LiveStream(cast(UpstreamResponse, pieces), parser, Deadline.start(0.05, 0.05), LONG_S, redact)
    events = await all_of(stream)
    assert ending(events) is FailureKind.INTERRUPTED
    assert cast(Failed, events[-1]).failure.detail == "deadline"
    assert len(events) > 2
    assert pieces.closed >= 1


async def test_time_that_is_over_before_the_first_look_is_over() -> None:
    stream, _ = live(chunk("a"), HANGS, total_s=-1)
    events = await all_of(stream)
    assert cast(Failed, events[-1]).failure.detail == "deadline"


async def test_abandoned_stream_releases_its_connection() -> None:
    stream, pieces = live(chunk("a"), chunk("b"), HANGS)
    await stream.begin()
    async for _ in stream:
        break
    await stream.close()
    assert pieces.closed >= 1
    assert pieces.reads == 1


async def test_cancelled_stream_releases_its_connection() -> None:
    stream, pieces = live(chunk("a"), HANGS)
    task = asyncio.create_task(all_of(stream))
    await until(lambda: pieces.reads == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pieces.closed >= 1


async def test_closed_before_it_was_read_it_is_over() -> None:
    stream, pieces = live(*WHOLE)
    await stream.begin()
    await stream.close()
    assert pieces.closed == 1


# --- texts that go past the reader ----------------------------------------------------------------


class Offered(Pieces):
    """A reply that offers each piece to the tap as it comes."""

    async def read(self, tap: Tap | None = None) -> bytes:
        while tap is not None and self.script and isinstance(self.script[0], bytes) and tap(self.script[0]):
            self.script.pop(0)
            await asyncio.sleep(0)
        return await super().read()


def offered(*script: object, takes: bool = True) -> tuple[LiveStream, list[bytes]]:
    """Return a stream that begins with an `a`, and the list of further texts that it offers."""
    seen: list[bytes] = []
    stream, _ = live(pieces=Offered(chunk("a"), *script))
    stream.pass_texts_to(lambda text: seen.append(text) is None and takes)
    return stream, seen


async def test_accepted_text_is_not_returned_as_an_event() -> None:
    stream, seen = offered(chunk("b"), chunk("c"), *WHOLE[2:])
    assert await all_of(stream) == [Opened("s", "m", 1), TextDelta("a"), ChoiceFinish("stop"), Finished()]
    assert seen == [b"b", b"c"]


async def test_rejected_text_is_returned_as_an_event() -> None:
    stream, seen = offered(chunk("b"), chunk("c"), *WHOLE[2:], takes=False)
    events = await all_of(stream)
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta(text) for text in "abc"]
    assert ending(events) is None
    assert seen == [b"b", b"c"]


async def test_only_texts_are_offered_to_the_tap() -> None:
    stream, seen = offered(b": alive\n\n", chunk("b") + chunk("c"), chunk("d")[:40], chunk("d")[40:], *WHOLE[2:])
    events = await all_of(stream)
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta(text) for text in "abcd"]
    assert seen == []


async def test_parser_without_a_text_reader_gets_every_piece() -> None:
    pieces = Offered(b"a", b"b")
    stream, _ = live(parser=Forgetful(Finished()), pieces=pieces)
    stream.pass_texts_to(lambda _: True)
    events = await all_of(stream)
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("a"), TextDelta("b")]


@pytest.mark.parametrize(("total_s", "detail"), [(LONG_S, "stalled"), (3 * SHORT_S, "deadline")])
async def test_idle_timeout_counts_from_the_last_accepted_text(total_s: float, detail: str) -> None:
    clock = SetClock(100.0)

    class Slow(Offered):
        async def read(self, tap: Tap | None = None) -> bytes:
            if tap is None or not self.reads:
                return await super().read(tap)
            for _ in range(3):
                clock.now += 0.9 * SHORT_S
                assert tap(chunk("b"))
                # The timer fires during this time.
                await asyncio.sleep(2 * SHORT_S)
            clock.now += SHORT_S
            await asyncio.Event().wait()
            return b""

    deadline = Deadline.start(total_s, total_s, clock)
    stream, _ = live(deadline=deadline, idle_s=SHORT_S, pieces=Slow(chunk("a")))
    seen: list[bytes] = []
    stream.pass_texts_to(lambda text: seen.append(text) is None)
    events = await all_of(stream)
    assert cast(Failed, events[-1]).failure.detail == detail
    assert seen == [b"b"] * 3


class Ticking(Pieces):
    """Each read takes a second of this clock."""

    def __init__(self, *script: object) -> None:
        super().__init__(*script)
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def read(self, tap: Tap | None = None) -> bytes:
        piece = await super().read(tap)
        self.now += 1
        return piece


def ticking(*script: object, idle_s: float = 5, choices: int = 1) -> tuple[LiveStream, Pieces]:
    pieces = Ticking(*script)
    deadline = Deadline.start(1000, 1000, pieces.clock)
    return live(idle_s=idle_s, pieces=pieces, deadline=deadline, choices=choices)


@pytest.mark.parametrize("life", [b": alive\n\n", b":", b"event: ping\ndata: {}\n\n"], ids=["comments", "one", "pings"])
@pytest.mark.parametrize(("idle_s", "most_s"), [(5, 5), (100, 10)])
@pytest.mark.parametrize("at_once", [False, True])
async def test_no_sign_of_life_keeps_an_answer_open_that_lacks_its_end_mark_alone(
    life: bytes, idle_s: float, most_s: int, at_once: bool
) -> None:
    answer = [b"".join(WHOLE[:-1])] if at_once else WHOLE[:-1]
    stream, pieces = ticking(*answer, *[life] * 100, idle_s=idle_s)
    assert ending(await all_of(stream)) is None
    assert pieces.reads == len(answer) + most_s
    assert pieces.closed >= 1


async def test_usage_after_the_finish_and_comments_is_counted() -> None:
    usage = b'data: {"id":"s","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
    alive = (b": alive\n\n",)
    stream, _ = ticking(*WHOLE[:-1], *alive * 3, usage, *alive * 100)
    events = await all_of(stream)
    assert ending(events) is None
    assert [event.usage.total_tokens for event in events if isinstance(event, UsageReport)] == [5]


@pytest.mark.parametrize("between", [4, 20], ids=["soon", "late"])
async def test_second_choice_may_begin_after_a_pause(between: int) -> None:
    """A provider may generate one choice after the other. Ending the answer too early would lose the second choice."""
    second = chunk("b").replace(b'"index":0', b'"index":1')
    end = chunk(finish="stop").replace(b'"index":0', b'"index":1')
    alive = (b": alive\n\n",)
    script = (chunk("a"), chunk(finish="stop"), *alive * between, second, *alive * 20, second, end, DONE)
    events = await all_of(ticking(*script, choices=2)[0])
    assert ending(events) is None
    assert [event.text for event in events if isinstance(event, TextDelta) and event.choice == 1] == ["b", "b"]
    assert sum(isinstance(event, ChoiceFinish) for event in events) == 2


# --- bytes after a complete answer --------------------------------------------------------------


async def test_bytes_after_a_complete_answer_are_read_and_not_shown() -> None:
    stream, pieces = live(*WHOLE, b": bye\n\n", chunk("more"))
    events = await all_of(stream)
    assert ending(events) is None
    assert TextDelta("more") not in events
    assert pieces.script == []


@pytest.mark.parametrize(
    "end", [(chunk(finish="stop"), DONE), (chunk(finish="stop"),)], ids=["with DONE", "without DONE"]
)
async def test_complete_answer_is_available_and_its_connection_is_released(end: tuple[bytes, ...]) -> None:
    stream, pieces = live(b"".join((chunk("a"), *end)))
    pieces.is_read = True
    await stream.begin()
    assert (pieces.reads, pieces.closed) == (1, 1)
    calls: list[object] = []
    stream.on_outcome(calls.append)
    stream.on_release(lambda: calls.append("free"))
    assert calls == [None, "free"]
    events = [Opened("s", "m", 1), TextDelta("a"), ChoiceFinish("stop"), Finished()]
    assert list(expand(stream.whole_events())) == events
    # A reader that iterates over it gets the same events.
    assert [event async for batch in stream for event in expand(batch)] == events
    await stream.close()
    assert (pieces.reads, pieces.closed, calls) == (1, 1, [None, "free"])


@pytest.mark.parametrize("is_read", [False, True])
async def test_answer_without_an_end_is_shown_and_its_failure_reported(is_read: bool) -> None:
    stream, pieces = live(chunk("a") + chunk("b"))
    pieces.is_read = is_read
    outcomes: list[Failure | None] = []
    await stream.begin()
    stream.on_outcome(outcomes.append)
    assert stream.whole_events() == ()
    events = [event async for batch in stream for event in expand(batch)]
    assert events[1:3] == [TextDelta("a"), TextDelta("b")]
    assert ending(events) is FailureKind.INTERRUPTED
    assert [failure and failure.kind for failure in outcomes] == [FailureKind.INTERRUPTED]
    assert pieces.closed >= 1


@pytest.mark.parametrize("behind", [HANGS, BROKEN], ids=["silence", "a break"])
async def test_wait_after_a_complete_answer_is_short(monkeypatch: pytest.MonkeyPatch, behind: object) -> None:
    monkeypatch.setattr(module, "_TAIL_S", SHORT_S)
    stream, pieces = live(*WHOLE, behind)
    assert ending(await all_of(stream)) is None
    assert pieces.closed >= 1


async def test_failed_stream_is_not_read_further() -> None:
    stream, pieces = live(chunk("a"), error("server_error"), HANGS)
    assert ending(await all_of(stream)) is not None
    assert pieces.reads == 2


# --- strangers' parsers ---------------------------------------------------------------------------


class Forgetful:
    """A parser that never emits a terminal event."""

    def __init__(self, *last: Event) -> None:
        self.last = last

    def feed(self, data: bytes) -> tuple[Event, ...]:
        return (Opened("i", "m", 1), TextDelta(data.decode()))

    def close(self) -> tuple[Event, ...]:
        return self.last

    def text_reader(self) -> None: ...

    def is_complete(self) -> bool:
        return False


@pytest.mark.parametrize("last", [(), (Heartbeat(),), (ChoiceFinish("stop"),)], ids=repr)
@pytest.mark.parametrize("script", [(b"a",), (b"a", HANGS), (b"a", BROKEN)], ids=["end", "silence", "break"])
async def test_parser_without_an_end_does_not_block(last: tuple[Event, ...], script: tuple[object, ...]) -> None:
    stream, pieces = live(*script, idle_s=SHORT_S, parser=Forgetful(*last))
    events = await all_of(stream)
    assert isinstance(events[-1], Failed)
    assert pieces.closed >= 1


async def test_parser_without_a_first_event_does_not_block() -> None:
    class Mute(Forgetful):
        def feed(self, data: bytes) -> tuple[Event, ...]:
            return ()

    stream, _ = live(b"a", parser=Mute())
    with pytest.raises(ProviderFailed):
        async with asyncio.timeout(30):
            await stream.begin()


# --- over a real connection -----------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def stream_from(way: PoolTransport, origin: str, deadline: Deadline) -> LiveStream:
    permit = Permit(origin, "eu", "house", "site", "m", "t")
    reply = await way.send(upstream_request(permit, WireRequest("POST", "/", (), b"{}"), 5))
    return LiveStream(reply, new_parser(), deadline, LONG_S, redact)


async def test_connection_of_a_complete_stream_is_reused_after_a_late_end() -> None:
    """Many a server sends the last, empty chunk on its own."""
    seen_whole = asyncio.Event()
    async with scripted(say(HEAD, *map(framed, WHOLE), seen_whole, b"0\r\n\r\n"), say(GOOD)) as server:
        way = PoolTransport(Pool(lambda *_: None))
        stream = await stream_from(way, server.origin, Deadline.start(LONG_S, LONG_S))
        await stream.begin()
        async for batch in stream:
            if isinstance(batch[-1], Finished):
                seen_whole.set()
        stream = await stream_from(way, server.origin, Deadline.start(LONG_S, LONG_S))
        await stream.close()
        assert server.connections == 1
        await way.aclose()


async def test_reply_knows_when_all_of_it_is_read() -> None:
    goes_on = asyncio.Event()
    async with scripted(say(HEAD + framed(b"a"), goes_on, framed(b"b") + b"0\r\n\r\n")) as server:
        way = PoolTransport(Pool(lambda *_: None))
        permit = Permit(server.origin, "eu", "house", "site", "m", "t")
        reply = await way.send(upstream_request(permit, WireRequest("POST", "/", (), b"{}"), 5))
        assert (await reply.read(), reply.is_read) == (b"a", False)
        goes_on.set()
        assert (await reply.read(), reply.is_read) == (b"b", True)
        await reply.close()
        assert reply.is_read
        await way.aclose()
