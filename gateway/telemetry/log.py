"""Structured logs: one line a request, readable in a terminal, JSON when piped.

Only what is named here is ever written of a request: there is no path by which a prompt, an answer or a header gets in.
What an operator wants to read of prompts has a line and a module of its own, `prompts.py`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, TextIO, cast

import orjson
import structlog

from gateway.model.attempt import Attempt
from gateway.model.record import Record
from gateway.telemetry.gathering import Ended
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.outlet import outlet_to

__all__ = ["configure", "dropped_lines", "log_requests", "logger"]

LogFormat = Literal["auto", "json", "text"]
# What somebody at a terminal looks for, in that order, before everything else.
_READ_FIRST = (
    "status",
    "outcome",
    "code",
    "detail",
    "region",
    "why",
    "assistant",
    "deployment",
    "total_ms",
    "attempts",
)
_STANDARD_ERROR = 2
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(form: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up the process's logging; `auto` means text on a terminal and JSON anywhere else."""
    out = stream or _standard_error()
    readable = form == "text" or (form == "auto" and out.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False, pad_event_to=0)
        if readable
        else _render_json
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
            structlog.processors.format_exc_info,
            _head_first,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # One write a line: another thread's can't get into the middle of it.
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _FromLibraries) for handler in root.handlers):
        root.addHandler(_FromLibraries(logging.WARNING))
    global _out, _write_requests, _lines
    _out = out
    _lines = None if readable else LineWriter(out)
    _write_requests = _log_requests_readably if _lines is None else _request_writer(_lines, _LEVELS[level])


def _standard_error() -> TextIO:
    """The process's own, by a way that holds up nobody; where another has taken its place, as in tests, that one."""
    try:
        is_own = sys.stderr.fileno() == _STANDARD_ERROR
    except (OSError, ValueError):
        is_own = False
    out: TextIO = sys.stderr
    return cast(TextIO, outlet_to(_STANDARD_ERROR)) if is_own else out


class _FromLibraries(logging.Handler):
    """What a library has to say (uvicorn, asyncio) is a line like every other: a reader of JSON stumbles over none."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        log = logger().error if record.levelno >= logging.ERROR else logger().warning
        log("library", logger=record.name, detail=record.getMessage(), exc_info=record.exc_info)


def _render_json(_: object, __: str, event: structlog.typing.EventDict) -> str:
    return orjson.dumps(event, default=str).decode()


def _request_writer(lines: LineWriter, level: int) -> Callable[[Sequence[Ended]], None]:
    """The way of the hot path: one dictionary, one serialisation, no processors."""
    is_written = {grave: level <= _LEVELS[_word(grave=grave)] for grave in (True, False)}

    def write(ended: Sequence[Ended]) -> None:
        judged = [(record, at, _is_grave(record)) for record, at in ended]
        if kept := [_line_of(record, at, grave=grave) for record, at, grave in judged if is_written[grave]]:
            lines.write(kept)

    return write


def _line_of(record: Record, at: float, *, grave: bool) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    line = _fields_of(record, timestamp=moment, level=_word(grave=grave), event="request")
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()


def _log_requests_readably(ended: Sequence[Ended]) -> None:
    log = logger()
    for record, _ in ended:
        fields = _fields_of(record)
        known = {name: value for name, value in fields.items() if value is not None and value is not False}
        first = {name: known[name] for name in _READ_FIRST if name in known}
        (log.warning if _is_grave(record) else log.info)("request", **{**first, **known})


_write_requests: Callable[[Sequence[Ended]], None] = _log_requests_readably
_lines: LineWriter | None = None
_out: TextIO | None = None


def dropped_lines() -> int:
    """How many lines could not be written, because nobody reads them any more."""
    return _lines.dropped if _lines is not None else getattr(_out, "dropped_lines", 0)


def _is_grave(record: Record) -> bool:
    return record.outcome in ("internal_error", "failed", "interrupted")


def _word(*, grave: bool) -> str:
    return "warning" if grave else "info"


def _head_first(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When, how grave and what: where a reader's eye begins."""
    head = [name for name in ("timestamp", "level", "event") if name in event]
    return {**{name: event[name] for name in head}, **event}


def logger() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def log_requests(ended: Sequence[Ended]) -> None:
    """The one line of each finished request."""
    _write_requests(ended)


def _fields_of(record: Record, **first: object) -> dict[str, object]:
    location, usage = record.location, record.usage
    fields: dict[str, object] = {
        **first,
        "request_id": record.request_id,
        "outcome": record.outcome,
        "status": record.status,
        "client": record.client,
        "assistant": record.assistant,
        "deployment": record.deployment,
        "provider": record.provider,
        "model": record.model,
        "stream": record.stream,
        "table": record.table,
        "first_ms": _milliseconds(record.first_s),
        "total_ms": _milliseconds(record.total_s),
    }
    if record.trace is not None:
        fields["trace_id"] = record.trace.trace_id
    if record.places is not None:
        fields["stores"], fields["processes"] = record.places
    if record.attempts:
        fields["provider_ms"] = _milliseconds(sum([attempt.duration_s for attempt in record.attempts]))
    if location is not None:
        fields["region"] = location.region.name if location.region else None
        fields["territory"], fields["why"] = location.territory, location.why
    if usage is not None:
        fields["prompt_tokens"], fields["completion_tokens"] = usage.prompt_tokens, usage.completion_tokens
        fields["cached_tokens"], fields["reasoning_tokens"] = usage.cached_tokens, usage.reasoning_tokens
    if record.cost_micros is not None and record.price is not None:
        fields["cost_micros"], fields["currency"] = record.cost_micros, record.price.currency
    if record.code is not None:
        fields["code"], fields["detail"] = record.code, record.detail
    if _is_eventful(record):
        fields["attempts"] = [_attempt(attempt) for attempt in record.attempts]
    if record.resumed is not None:
        fields["resumed_from"] = record.resumed.broken
    if record.queued_s:
        fields["queued_ms"] = _milliseconds(record.queued_s)
    if record.skipped:
        fields["skipped"] = {skipped.deployment: str(skipped.reason) for skipped in record.skipped}
    if record.consent is not None:
        fields["consent"] = record.consent
    if record.dropped:
        fields["dropped"] = sorted(record.dropped)
    if record.labels:
        fields["labels"] = list(record.labels)
    if record.profile is not None:
        fields["profile"] = record.profile
    return fields


def _is_eventful(record: Record) -> bool:
    for attempt in record.attempts:  # noqa: SIM110  # a generator would cost more than the loop, for each request
        if attempt.failure is not None or attempt.lost:
            return True
    return False


def _attempt(attempt: Attempt) -> dict[str, object]:
    failure = attempt.failure
    fields: dict[str, object] = {"deployment": attempt.deployment, "ms": _milliseconds(attempt.duration_s)}
    if attempt.is_hedge:
        fields["hedge"] = True
    if attempt.lost:
        fields["lost"] = True
    if failure is not None:
        told = {
            "model": attempt.model,
            "kind": str(failure.kind),
            "status": failure.status,
            "code": failure.code,
            "detail": failure.detail,
            "provider_request_id": failure.request_id,
        }
        fields |= {name: value for name, value in told.items() if value}
    return fields


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
