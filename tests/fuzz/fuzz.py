"""One target for atheris: `python tests/fuzz/fuzz.py TARGET [options of libFuzzer]`; README.md says what must hold.

The first two bytes of an input say where it is cut and which status it came with; the rest is what a provider sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import atheris

with atheris.instrument_imports(include=["providers"]):
    from providers.chat import ChatCompletion, Failed, Finished, StreamEvent
    from providers.codec import encode_completion
    from providers.conformance.cases import rich_answer
    from providers.conformance.checks import check_ends_once
    from providers.conformance.selection import select
    from providers.conformance.subject import Subject
    from providers.failures import Failure, FailureKind, ProviderFailed
    from providers.folding import fold
    from providers.json_values import dumps
    from providers.sse import SseItem, SseParser

from pathlib import Path

_STATUSES = (200, 400, 401, 403, 404, 413, 422, 429, 500, 503, 529)


def sse(data: bytes) -> None:
    """The events are the same however the bytes are cut, and those of a bound are few."""
    cut, body = data[0] if data else 0, data[1:]
    whole, pieces = _sse_items([body]), _sse_items([body[:cut], body[cut:]])
    assert whole == pieces, "the events depend on the cut"
    assert whole == _sse_items([body[i : i + 1] for i in range(len(body))]), "the events differ byte by byte"


def _sse_items(pieces: list[bytes]) -> tuple[list[SseItem], bytes]:
    parser = SseParser(max_line_bytes=4096)
    items = [item for piece in pieces for item in parser.feed(piece)]
    items += parser.close()
    return items, parser.unframed


def of_adapter(subject: Subject) -> Callable[[bytes], None]:
    """The three readers of one adapter, over the same bytes."""

    def read(data: bytes) -> None:
        cut, status, body = (data[0], data[1], data[2:]) if len(data) > 2 else (0, 0, data)
        events = subject.events(body)
        assert events == subject.events(body[:cut], body[cut:]), "the events depend on the cut"
        _check_stream(events)
        response = subject.response(body, _STATUSES[status % len(_STATUSES)])
        try:
            if response.status == 200:
                _check_writable(subject.adapter.parse_response(response, subject.target))
            else:
                _check_writable(subject.adapter.classify_error(response))
        except ProviderFailed as error:
            _check_writable(error.failure)

    return read


def _check_stream(events: tuple[StreamEvent, ...]) -> None:
    ended = check_ends_once(events)
    if isinstance(ended, Failed):
        _check_writable(ended.failure)
    else:
        assert isinstance(ended, Finished)
        _check_writable(fold(events))


def _check_writable(outcome: ChatCompletion | Failure) -> None:
    if isinstance(outcome, Failure):
        dumps([outcome.message, outcome.detail, outcome.code, outcome.param, outcome.request_id])
    else:
        assert outcome.choices
        dumps(encode_completion(outcome, outcome.model))


def seeds_of(subject: Subject) -> Iterator[bytes]:
    """What the provider says when it is well, and in what words it fails."""
    completion, request = rich_answer(subject)
    yield b"\x07\x00" + b"".join(subject.stream(completion, request))
    yield b"\x07\x00" + subject.dialect.write_answer(completion, subject.asked(request)).body
    for number, kind in enumerate((FailureKind.RATE_LIMITED, FailureKind.CONTENT_FILTER, FailureKind.CREDENTIALS)):
        yield bytes([7, number + 1]) + subject.dialect.write_error(kind, 429, 7).body
        yield b"\x07\x00" + subject.dialect.write_error_event(kind)


def main() -> None:
    """Set up the target that is named first, with seeds in a corpus of its own, and run."""
    name = sys.argv.pop(1)
    corpus = Path(__file__).parent / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    if name == "sse":
        target, seeds = sse, [b"\x05event: x\r\ndata: {}\r\ndata: y\r\r: comment\n\n\xef\xbb\xbfid: 1\n\n"]
    else:
        families = select([_module_of(name)], [], Path("nowhere"), wire_is_given=False).families
        subject = max(families, key=lambda one: len(one.features))
        target, seeds = of_adapter(subject), list(seeds_of(subject))
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], target)
    atheris.Fuzz()


def _module_of(name: str) -> str:
    from importlib.metadata import entry_points

    (point,) = {point.value for point in entry_points(group="providers.adapters", name=name)}
    return point


if __name__ == "__main__":
    main()
