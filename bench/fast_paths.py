"""Measure what each fast path saves: a request with the path, and with the general path in its place.
    python -m bench.fast_paths [--rounds N] [--path NAME]
    python -m bench.fast_paths --check    switch each path off once and run each of its cases, without measuring

A fast path handles the usual form of its input, or returns to the general path. So each can be switched off by making
it return at once. Both ways alternate within one process, and the minimum CPU time of many short rounds counts. The
table of results, with the lines of code and the property test of each path, is in `bench/PROFILE.md`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from bench.inprocess import InProcess, bench_table, provider_answers, request_bytes
from bench.report import table_of
from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.api.response_headers import _source_headers
from gateway.execution.answer_stream import LiveStream
from gateway.execution.deadline import Deadline
from gateway.execution.transport import UpstreamResponse, _PoolResponse
from gateway.execution.upstream_request import _credential, _request_head
from gateway.model.config_version import ConfigVersion
from gateway.policy.location.resolution import locator_of
from gateway.server.request_cycle import RequestCycle
from gateway.server.request_head import RepeatedHead
from gateway.server.uvicorn_server import run
from gateway.service import location
from gateway.telemetry.log import configure
from providers.openai_json.stream_relay import PaddedTemplate, RelayingParser, Template
from providers.reading.event_stream import EventStreamParser
from providers.reading.sse import SseParser

JSON = "JSON"
FOLDED = "JSON, folded from 64 events one by one"
BURST = "stream of 64 events at once"
TRANSLATED = "stream of 64 events at once, translated"
PACED = "stream of 64 events one by one"
PADDED_BURST = "stream of 64 padded events at once"
PADDED_PACED = "stream of 64 padded events one by one"
_WARM_UPS, _SAMPLES, _REQUESTS = 80, 30, 3
Switch = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class FastPath:
    """A fast path.
    Attributes:
        cases: The cases that use it.
        off: Entered while the general path is measured.
        together_with: Entered all the time: it switches off another path, without which this one is not used.
    """

    name: str
    cases: tuple[str, ...]
    off: Switch
    together_with: Switch = nullcontext


def _none(*_: object) -> None:
    return None


def _false(*_: object) -> bool:
    return False


def _no_text(*_: object) -> bytes:
    return b""


def _together(*switches: Switch) -> Switch:
    @contextmanager
    def all_of_them() -> Iterator[None]:
        with ExitStack() as stack:
            for switch in switches:
                stack.enter_context(switch())
            yield

    return all_of_them


def _method(owner: Any, name: str, replacement: object) -> Switch:
    return lambda: patch.object(owner, name, replacement)


def _function(target: str, replacement: object) -> Switch:
    return lambda: patch(target, replacement)


def _locate_uncached(config: ConfigVersion, caller: Any) -> Any:
    return location._located(config, caller.client, locator_of(config).report(caller.location_key))


def _watch_alone(deadline: Deadline, at: float, _: float) -> None:
    deadline.check_at = at
    deadline.watch_itself()


def _feed_generally(parser: RelayingParser, data: bytes) -> Any:
    return parser._general_parser.feed(data)


def _close_generally(parser: RelayingParser) -> Any:
    return parser._general_parser.close()


def _nothing_split(_: object, __: bytes, start: int) -> tuple[list[bytes], int]:
    return [], start


def _no_values(_: object, data: bytes) -> tuple[list[bytes], bytes]:
    return [], data


def _one_by_one(encoder: ChunkEncoder, events: Any) -> bytes:
    return b"".join(map(encoder._encode, events))


_init_events = EventStreamParser.__init__


def _without_runs(parser: EventStreamParser, *arguments: Any, **options: Any) -> None:
    _init_events(parser, *arguments, **{**options, "read_run": None})


_NO_HEAD = _method(RepeatedHead, "match", _none)
_NO_CALLER = _together(
    _function("gateway.api.chat.known_caller", _none), _function("gateway.api.chat.remember_caller", _none)
)
_NO_LOCATION = _function("gateway.service.chat_service.locate", _locate_uncached)
_NO_TAP = _method(LiveStream, "pass_texts_to", _none)
_NO_RUNS = _method(EventStreamParser, "__init__", _without_runs)
_EVERY_CASE = (JSON, BURST)
PATHS = (
    FastPath("repeated request head, with the caller cache", _EVERY_CASE, _NO_HEAD),
    FastPath("caller cache", _EVERY_CASE, _NO_CALLER),
    FastPath("location cache", _EVERY_CASE, _NO_LOCATION),
    FastPath("location cache, without the caller cache", _EVERY_CASE, _NO_LOCATION, _NO_CALLER),
    FastPath("body at hand", _EVERY_CASE, _method(RequestCycle, "whole_body", _none)),
    FastPath("`plain_request`", _EVERY_CASE, _function("gateway.api.body.plain_request", _none)),
    FastPath("`_read_plain`", (JSON,), _function("providers.openai_json.read_answer._read_plain", _none)),
    FastPath(
        "`read_whole` of a pooled response", (JSON,), _method(_PoolResponse, "read_whole", UpstreamResponse.read_whole)
    ),
    FastPath("`RequestCycle.respond`", (JSON,), _method(RequestCycle, "respond", _false)),
    FastPath("`RequestCycle.respond_stream`", (BURST, TRANSLATED), _method(RequestCycle, "respond_stream", _false)),
    FastPath("`whole_events` of a burst", (BURST, TRANSLATED), _method(LiveStream, "whole_events", lambda _: ())),
    FastPath("text tap", (PACED, PADDED_PACED), _NO_TAP),
    FastPath("`RequestCycle.write`, without the tap", (PACED,), _method(RequestCycle, "write", _false), _NO_TAP),
    FastPath(
        "learned templates (`RelayingParser`)",
        (BURST, PADDED_BURST, PACED, FOLDED),
        _together(
            _method(RelayingParser, "feed", _feed_generally),
            _method(RelayingParser, "close", _close_generally),
            _method(RelayingParser, "text_reader", _none),
        ),
    ),
    FastPath(
        "`Template.split`, one by one instead",
        (BURST, PADDED_BURST),
        _together(_method(Template, "split", _nothing_split), _method(PaddedTemplate, "split", _nothing_split)),
    ),
    FastPath("runs of Gemini's chunks", (TRANSLATED,), _NO_RUNS),
    FastPath(
        "Gemini's usual layout", (TRANSLATED,), _function("providers.vendors.gemini.answer.usual_texts", lambda *_: ())
    ),
    FastPath(
        "`_only_text`, without the runs",
        (TRANSLATED,),
        _function("providers.vendors.gemini.answer._only_text", _none),
        _NO_RUNS,
    ),
    FastPath(
        "events distinguished in C (`SseParser._values`)", (TRANSLATED,), _method(SseParser, "_values", _no_values)
    ),
    FastPath(
        "texts encoded together, without the runs",
        (TRANSLATED,),
        _method(ChunkEncoder, "encode", _one_by_one),
        _NO_RUNS,
    ),
    FastPath("`Sweep`", _EVERY_CASE, _method(Deadline, "_watch", _watch_alone)),
    FastPath(
        "headers of an answer, remembered",
        _EVERY_CASE,
        _function("gateway.api.response_headers._source_headers", _source_headers.__wrapped__),
    ),
    FastPath(
        "head and credential of a provider's request, remembered",
        _EVERY_CASE,
        _together(
            _function("gateway.execution.upstream_request._request_head", _request_head.__wrapped__),
            _function("gateway.execution.upstream_request._credential", _credential.__wrapped__),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Saving:
    """The cost of a request of one case with a path and without it."""

    path: str
    case: str
    with_it: float
    without_it: float

    @property
    def share(self) -> float:
        """Return the saving as a share of the cost of the general path."""
        return 1 - self.with_it / self.without_it


async def savings(path: FastPath, case: str, rounds: int) -> Saving:
    """Measure what the path saves. The minimum of many samples counts, because other work on the machine only adds
    time.

    """
    gateway = InProcess(bench_table())
    costs: tuple[list[float], list[float]] = [], []
    with path.together_with():
        await gateway.ask_checked(case)
        for _ in range(rounds):
            costs[0].append(await _least_us(gateway, case))
            with path.off():
                costs[1].append(await _least_us(gateway, case))
    return Saving(path.name, case, min(costs[0]), min(costs[1]))


async def _least_us(gateway: InProcess, case: str) -> float:
    """Return the CPU µs of one request, after the interpreter has adapted its code to the patched classes."""
    request, answer = request_bytes(case), provider_answers(case)
    samples: list[int] = []
    for _ in range(_WARM_UPS):
        await gateway.ask(request, answer)
    for _ in range(_SAMPLES):
        began_ns = time.process_time_ns()
        for _ in range(_REQUESTS):
            await gateway.ask(request, answer)
        samples.append(time.process_time_ns() - began_ns)
    return min(samples) / 1000 / _REQUESTS


async def _check() -> None:
    """Raise if a path can no longer be switched off, or its case is not answered then."""
    gateway = InProcess(bench_table())
    for path in PATHS:
        for case in path.cases:
            with path.together_with(), path.off():
                await gateway.ask_checked(case)


def main() -> None:
    """Print the saving of each path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds of both ways (default: 10)")
    parser.add_argument("--path", default="", metavar="NAME", help="only paths whose name contains this")
    parser.add_argument("--check", action="store_true", help="run the cases without each path once, without measuring")
    options = parser.parse_args()

    async def measure() -> None:
        rows: list[list[str]] = []
        for path in PATHS:
            for case in path.cases if options.path in path.name else ():
                one = await savings(path, case, options.rounds)
                saved = f"{one.without_it - one.with_it:+.1f}"
                rows.append([one.path, one.case, f"{one.with_it:.1f}", saved, f"{one.share:.1%}"])
        print(table_of(["fast path", "case", "CPU µs", "saves", ""], rows))

    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        run(_check() if options.check else measure())


if __name__ == "__main__":
    main()
