"""An adapter translates and does nothing else: no import of I/O, of a clock or of a gateway, in any of its modules."""

from __future__ import annotations

from providers.chat import StreamEvent
from providers.conformance.cases import rich_answer
from providers.conformance.purity import forbidden_imports, impurities, modules_within_package
from providers.conformance.subject import Subject
from providers.reading.folding import expand


def test_imports_nothing_that_does_io(subject: Subject) -> None:
    for module in modules_within_package(type(subject.adapter).__module__):
        names = forbidden_imports(module)
        assert not names, f"{module} imports {', '.join(names)}: an adapter has no I/O, clock or environment"


def test_members_can_t_be_changed(subject: Subject) -> None:
    adapter = subject.adapter
    for name in ("name", "capabilities", "sites", "auth"):
        try:
            setattr(adapter, name, getattr(adapter, name))
        except (AttributeError, TypeError):
            continue
        raise AssertionError(f"{name} can be set: an adapter is shared by every request and must be frozen")


def test_nothing_is_shared_by_two_parsers(subject: Subject) -> None:
    one, other = (subject.adapter.stream_parser(subject.target) for _ in range(2))
    one.feed(b"data: {broken\n\n")
    fresh = subject.adapter.stream_parser(subject.target)
    assert [*other.feed(b": x\n\n"), *other.close()] == [*fresh.feed(b": x\n\n"), *fresh.close()]


def test_two_streams_at_once_are_two_answers(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    stream = subject.stream(completion, request)
    whole = subject.events(*stream)
    parsers = [subject.adapter.stream_parser(subject.target) for _ in range(2)]
    events: list[list[StreamEvent]] = [[], []]
    for piece in stream:
        for parser, given in zip(parsers, events, strict=True):
            given.extend(parser.feed(piece))
    for parser, given in zip(parsers, events, strict=True):
        given.extend(parser.close())
        assert tuple(expand(given)) == whole
    assert subject.events(*stream) == whole, "a later stream of the same model is another"


def test_uses_no_clock_no_global_and_no_file(subject: Subject) -> None:
    adapter = type(subject.adapter)
    for module in modules_within_package(adapter.__module__):
        own_classes = {one.__name__ for one in adapter.__mro__ if one.__module__ == module}
        found = [*impurities(module, own_classes)]
        assert not found, "\n".join(found)
