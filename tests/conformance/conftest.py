"""Mark kit tests as slow, so that they run with `make ci` only. The fast suite runs each test where results can differ.

An adapter with its own code runs all tests except the long ones. The compatible vendors share one adapter, and a
vendor's second endpoint has the format of its first. So one of them runs all tests, and the others run only the tests
that depend on their data; `make ci` adds a third of their other cases, chosen by their names, so that each vendor has a third of each test's cases
and each case has a third of the vendors. The rest runs with `make kit`. Slow tests over another model than an adapter's most capable one run with `make kit`. So do the long ones of a vendor that
shares its adapter, and every cut of a recording whose kind of event has one: they read the same code as another.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import pytest

from providers.compatible.adapter import CompatibleAdapter
from providers.conformance.recordings import WireCase
from providers.conformance.selection import Selection
from providers.conformance.subject import Subject
from providers.registry import load_registry

_COMPATIBLE = {name for name, adapter in load_registry().adapters.items() if isinstance(adapter, CompatibleAdapter)}
_LIKE_ANOTHER = {*_COMPATIBLE, "vertex", "anthropic-vertex", "openai-compatible"} - {"minimax"}
# The tests that check most of a compatible vendor's data at little cost. Recorded answers are tested for all adapters.
_OF_DATA = (
    "test_provider_errors_are_classified",
    "test_pins_of_every_site_are_accepted",
    "test_pinned_value_overrides_the_client",
    "test_unclaimed_feature_is_refused",
    "test_stream_events_are_in_canonical_order",
    "test_adapter_is_frozen",
    "test_multi_line_data_and_data_without_a_space_are_read",
    "test_data_after_done_is_ignored",
    "test_compatible_vendor_is_confirmed_by_recordings",
)
# These run once for each request and model, over the same code. An adapter's most capable model, its first, is enough.
_MANY = (
    "test_provider_receives_the_same_request",
    "test_build_request_is_deterministic_and_does_not_change_its_input",
    "test_no_parameter_is_added",
    "test_path_and_headers_are_valid",
    "test_model_name_cannot_change_the_destination",
)
# Here a model's own facts matter too. A plain question is enough to see them.
_BY_MODEL = "test_folded_stream_request_differs_only_in_its_form"
# These take seconds each, over shared code. They run for one stream of plain data and one of named events. (The most
# capable model of `openai` uses the Responses API; `openai-compatible` covers chat completions.)
_LONG = (
    "test_every_split_gives_the_same_events",
    "test_byte_by_byte_gives_the_same_events",
    "test_truncated_stream_fails",
    "test_stream_with_one_wrong_value_never_raises",
    "test_answer_with_one_wrong_value_never_raises",
    "test_random_bytes_never_raise",
    "test_random_json_never_raises",
    "test_endless_line_fails_in_bounded_memory",
    "test_endless_event_fails",
    "test_order_is_canonical_when_events_are_repeated_or_missing",
    "test_deep_or_huge_json_never_raises",
)
# These read every byte or every status of shared code. A vendor's own table of errors has a test in `_OF_DATA`.
_BY_BYTES = (
    "test_every_error_status_with_any_body_is_a_failure",
    "test_error_as_the_first_event_ends_the_stream",
    "test_truncated_error_body_is_still_a_failure",
)
_EVERY_CUT = "test_recorded_stream_is_read_the_same_in_any_pieces"
_LONG_FOR = {"openai-compatible", "anthropic"}
# Text, calls, an error and unusual line ends. A split affects only the reader of lines, so one recording of each kind
# of event is enough.
_EVERY_CUT_OF = (
    "[anthropic-overloaded]",
    "[anthropic-tools]",
    "[openai-crlf]",
    "[openai-multiline_data]",
    "[openai-refusal]",
    "[openai-responses_error]",
    "[openai-text]",
    "[openai-tools_continued]",
)


# The 29,000 cases that these marker expressions exclude are not created. With any other expression, all cases are
# created, and pytest selects among them.
_EXCLUDED = {"not slow": pytest.mark.slow, "slow and not full": pytest.mark.full}


def pytest_conformance_values(
    config: pytest.Config, case: str, values: Sequence[object], selection: Selection
) -> Sequence[object]:
    first_subjects: dict[str, Subject] = {}
    for subject in selection.subjects:
        first_subjects.setdefault(subject.adapter.name, subject)
    excluded = _EXCLUDED.get(config.option.markexpr)
    marked = [pytest.param(value, marks=_marks_of(f"{case}[{value}]", value, first_subjects)) for value in values]
    created = [value for value in marked if excluded not in value.marks]
    # Without a value, pytest would report a skipped test. So one excluded case is kept, which pytest deselects.
    return created or marked[:1]


def _marks_of(name: str, value: object, first_subjects: dict[str, Subject]) -> tuple[pytest.MarkDecorator, ...]:
    subject = getattr(value, "subject", value)
    assert isinstance(subject, Subject | WireCase)
    if not _is_slow(name, subject, first_subjects):
        return ()
    one_of_many = isinstance(subject, WireCase) or (
        subject.model != first_subjects[subject.adapter.name].model
        or (
            subject.adapter.name in _LIKE_ANOTHER
            and (name.startswith((*_LONG, *_BY_BYTES)) or crc32(name.encode()) % 3)
        )
    )
    return (pytest.mark.slow, pytest.mark.full) if one_of_many else (pytest.mark.slow,)


def _is_slow(name: str, value: Subject | WireCase, first_subjects: dict[str, Subject]) -> bool:
    adapter = value.adapter.name
    if isinstance(value, WireCase):
        return name.startswith(_EVERY_CUT) and not name.endswith(_EVERY_CUT_OF)
    first = first_subjects[adapter]
    if name.startswith(_LONG):
        return adapter not in _LONG_FOR
    if adapter in _LIKE_ANOTHER:
        return not name.startswith(_OF_DATA)
    if name.startswith(_BY_MODEL) and name.endswith("-text]"):
        return False
    return name.startswith((*_MANY, _BY_MODEL)) and value.model != first.model
