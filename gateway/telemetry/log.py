"""Structured logging: configuration, warnings of libraries, and the log line that holds a prompt."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Literal, TextIO, cast

import orjson
import structlog

from gateway.model.record import Record
from gateway.telemetry.background_writer import background_writer_to
from gateway.telemetry.batching import Ended
from gateway.telemetry.request_log import GRAVE, JsonLines, LineWriter, fields_of

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


def _is_colourful(out: TextIO) -> bool:
    """Whether colours are wanted: in a terminal that has them, unless its person says otherwise (no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def configure(form: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up the process's logging; `auto` means text on a terminal and JSON anywhere else."""
    out = stream or _standard_error()
    readable = form == "text" or (form == "auto" and out.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=_is_colourful(out), sort_keys=False, pad_event_to=0)
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
    warnings.showwarning = _tell_of_warning
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
    return cast(TextIO, background_writer_to(_STANDARD_ERROR)) if is_own else out


class _FromLibraries(logging.Handler):
    """What a library has to say (uvicorn, asyncio) is a line like every other: a reader of JSON stumbles over none."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        log = logger().error if record.levelno >= logging.ERROR else logger().warning
        log("library", logger=record.name, detail=record.getMessage(), exc_info=record.exc_info)


def _tell_of_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What Python would print as it is. Not its words: a library's or an adapter's may be those of a request."""
    logger().warning("library", logger="warnings", detail=f"{category.__name__} at {PurePath(filename).name}:{lineno}")


def _render_json(_: object, __: str, event: structlog.typing.EventDict) -> str:
    return orjson.dumps(event, default=str).decode()


def _request_writer(lines: LineWriter, level: int) -> Callable[[Sequence[Ended]], None]:
    """The way of the hot path: no processors, and no more than one write for all of them."""
    json_lines = JsonLines()

    def write(ended: Sequence[Ended]) -> None:
        if level > _LEVELS["info"]:
            ended = [one for one in ended if one[0].outcome in GRAVE] if level <= _LEVELS["warning"] else ()
        if ended:
            lines.write(json_lines.of(ended))

    return write


def _log_requests_readably(ended: Sequence[Ended]) -> None:
    log = logger()
    for record, _ in ended:
        fields = fields_of(record)
        known = {name: value for name, value in fields.items() if value is not None and value is not False}
        first = {name: known[name] for name in _READ_FIRST if name in known}
        (log.warning if record.outcome in GRAVE else log.info)("request", **{**first, **known})


_write_requests: Callable[[Sequence[Ended]], None] = _log_requests_readably


_lines: LineWriter | None = None


_out: TextIO | None = None


def dropped_lines() -> int:
    """How many lines could not be written, because nobody reads them any more."""
    return _lines.dropped if _lines is not None else getattr(_out, "dropped_lines", 0)


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


def log_prompt(record: Record, text: str) -> None:
    """A line of its own; the request's line, which has the same id, tells what became of it."""
    region = record.location.region if record.location is not None else None
    logger().info(
        "prompt", request_id=record.request_id, region=region.name if region is not None else None, prompt=text
    )
