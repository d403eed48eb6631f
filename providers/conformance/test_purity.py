"""Test that an adapter only translates: its modules use no I/O, no clock, no gateway and no shared state."""

from __future__ import annotations

from providers.chat import StreamEvent
from providers.conformance.cases import rich_answer
from providers.conformance.purity import forbidden_imports, impurities, modules_within_package
from providers.conformance.subject import Subject
from providers.reading.folding import expand


def test_adapter_imports_no_io(subject: Subject) -> None:
    for module in modules_within_package(type(subject.adapter).__module__):
        names = forbidden_imports(module)
        assert not names, (
            f"{module} imports {', '.join(names)}: an adapter must not use I/O, a clock or the environment"
        )


def test_adapter_is_frozen(subject: Subject) -> None:
    adapter = subject.adapter
    for name in ("name", "capabilities", "sites", "auth"):
        try:
            setattr(adapter, name, getattr(adapter, name))
        except (AttributeError, TypeError):
            continue
        raise AssertionError(f"`{name}` can be set: all requests share the adapter, so it must be frozen")


def test_stream_parsers_share_no_state(subject: Subject) -> None:
    one, other = (subject.adapter.stream_parser(subject.target) for _ in range(2))
    one.feed(b"data: {broken\n\n")
    fresh = subject.adapter.stream_parser(subject.target)
    assert [*other.feed(b": x\n\n"), *other.close()] == [*fresh.feed(b": x\n\n"), *fresh.close()], (
        "two parsers of streams must share no state"
    )


def test_interleaved_streams_do_not_mix(subject: Subject) -> None:
    stream = subject.stream(*rich_answer(subject))
    whole = subject.events(*stream)
    parsers = [subject.adapter.stream_parser(subject.target) for _ in range(2)]
    events: list[list[StreamEvent]] = [[], []]
    for piece in stream:
        for parser, emitted in zip(parsers, events, strict=True):
            emitted.extend(parser.feed(piece))
    for parser, emitted in zip(parsers, events, strict=True):
        emitted.extend(parser.close())
        assert tuple(expand(emitted)) == whole, "two streams that are read at once must not mix"
    assert subject.events(*stream) == whole, "the same stream gives other events the second time"


def test_adapter_uses_no_clock_global_state_or_file(subject: Subject) -> None:
    adapter = type(subject.adapter)
    for module in modules_within_package(adapter.__module__):
        own_classes = {one.__name__ for one in adapter.__mro__ if one.__module__ == module}
        messages = [*impurities(module, own_classes)]
        assert not messages, "\n".join(messages)
