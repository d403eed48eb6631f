"""Configure structured logging, and log warnings of libraries, finished requests and prompts."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Literal, TextIO, cast

import orjson
import structlog

from gateway.model.record import Record
from gateway.model.sampling import is_kept
from gateway.telemetry.background_writer import background_writer_to
from gateway.telemetry.batching import Ended
from gateway.telemetry.request_log import WARNING_OUTCOMES, JsonLines, add_fields

LogFormat = Literal["auto", "json", "text"]

# The fields that a person at a terminal needs first, in this order.
_READ_FIRST = tuple("status outcome code detail region why assistant deployment total_ms attempts".split())

_STANDARD_ERROR = 2

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(form: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Configure the logging of this process. `auto` is text on a terminal and JSON elsewhere."""
    out = stream or _standard_error()
    readable = form == "text" or (form == "auto" and out.isatty())
    # NO_COLOR: no-color.org
    is_colourful = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=is_colourful, sort_keys=False, pad_event_to=0)
        if readable
        else lambda _, __, event: orjson.dumps(event, default=str).decode()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
            structlog.processors.format_exc_info,
            _order_fields,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # One write for each line, so that lines of several threads do not mix.
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _FromLibraries) for handler in root.handlers):
        root.addHandler(_FromLibraries(logging.WARNING))
    warnings.showwarning = _log_warning
    global _out, _write_requests
    _out = out
    _write_requests = _log_requests_readably if readable else _request_writer(out, _LEVELS[level])


def _standard_error() -> TextIO:
    """Return the process's standard error through a background writer, or its replacement, for example in tests."""
    try:
        is_own = sys.stderr.fileno() == _STANDARD_ERROR
    except (OSError, ValueError):
        is_own = False
    out: TextIO = sys.stderr
    return cast(TextIO, background_writer_to(_STANDARD_ERROR)) if is_own else out


class _FromLibraries(logging.Handler):
    """Logs records of libraries (uvicorn, asyncio) as structured lines, so that all lines of the log are JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record of a library."""
        log = logger().error if record.levelno >= logging.ERROR else logger().warning
        log("library", logger=record.name, detail=record.getMessage(), exc_info=record.exc_info)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log the position of a warning, but not its text, which may quote a request."""
    logger().warning("library", logger="warnings", detail=f"{category.__name__} at {PurePath(filename).name}:{lineno}")


def _request_writer(out: TextIO, level: int) -> Callable[[Sequence[Ended], float], None]:
    """Return the fast writer of request lines: no processors, and one write for a whole batch."""
    json_lines = JsonLines()

    def write(ended: Sequence[Ended], share: float) -> None:
        if level > _LEVELS["info"]:
            ended = [one for one in ended if one[0].outcome in WARNING_OUTCOMES] if level <= _LEVELS["warning"] else ()
        if ended:
            text = b"\n".join([*json_lines.of(ended, share), b""]).decode()
            with suppress(OSError, ValueError):  # a replaced stream without a reader must not fail requests
                out.write(text)
                out.flush()

    return write


def _log_requests_readably(ended: Sequence[Ended], share: float) -> None:
    log = logger()
    for record, _ in ended:
        fields: dict[str, object] = {}
        add_fields(fields, record, share)
        known = {name: value for name, value in fields.items() if value is not None and value is not False}
        first = {name: known[name] for name in _READ_FIRST if name in known}
        (log.warning if record.outcome in WARNING_OUTCOMES else log.info)("request", **{**first, **known})


_write_requests: Callable[[Sequence[Ended], float], None] = _log_requests_readably

_out: TextIO | None = None


def dropped_lines() -> int:
    """Return the number of lines that could not be written because the log had no reader."""
    return getattr(_out, "dropped_lines", 0)


def _order_fields(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put time, level and event first."""
    head = [name for name in ("timestamp", "level", "event") if name in event]
    return {**{name: event[name] for name in head}, **event}


def logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger of this process."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def log_requests(ended: Sequence[Ended], share: float = 1.0) -> None:
    """Write one line for each finished request, or for this share (0 to 1) of the successful ones."""
    if share < 1:
        ended = [one for one in ended if is_kept(one[0], share)]
    if ended:
        _write_requests(ended, share)


def log_prompt(record: Record, text: str) -> None:
    """Write the prompt on a line of its own. The request's line has the same id and the outcome."""
    location = record.decided.location
    region = location.region if location is not None else None
    name = region.name if region is not None else None
    logger().info("prompt", request_id=record.request_id, region=name, prompt=text)
