"""Which of the kit's cases wait for `make ci`: the fast suite shows each thing where it can differ, and once elsewhere.

A wire format in code of its own is held to all but the long cases. Rows of data are read by one adapter, and a vendor's
second door speaks as its first: of them, one stands for all, and of the others the fast suite asks what is data. What
waits and is run over another model than an adapter's ablest waits for `make kit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from providers.compatible.adapter import CompatibleAdapter
from providers.conformance.recordings import WireCase
from providers.conformance.selection import Selection
from providers.conformance.subject import Subject
from providers.registry import load_registry

_ROWS = {name for name, adapter in load_registry().adapters.items() if isinstance(adapter, CompatibleAdapter)}
_LIKE_ANOTHER = {*_ROWS, "vertex", "openai-compatible"} - {"minimax"}
# What says most of a row of data, at little cost; recorded answers are for every adapter, always.
_OF_DATA = (
    "test_the_provider_s_own_errors_are_told_apart",
    "test_the_pins_of_every_site_are_understood",
    "test_what_a_site_pins_is_written_last",
    "test_nothing_is_dropped_in_silence",
    "test_a_stream_is_in_canonical_order",
    "test_members_can_t_be_changed",
    "test_data_may_stand_on_several_lines_and_without_a_space",
    "test_nothing_is_read_behind_the_end_mark",
)
# As many cases as requests and models, and the same code: the ablest model of an adapter, which comes first, is enough.
_MANY = (
    "test_the_provider_understands_the_same",
    "test_build_is_deterministic_and_leaves_its_input_alone",
    "test_nothing_is_asked_for_that_nobody_said",
    "test_path_and_headers",
    "test_no_model_name_leads_elsewhere",
)
# Here a model's own facts decide too, and they show in its plain question.
_BY_MODEL = "test_a_folded_stream_is_asked_for_what_one_json_would_say"
# Seconds each, over the same parts of the house: one stream of bare data, one of named events. (The ablest model of
# `openai` shows the Responses API; chat completions are shown by `openai-compatible`.)
_LONG = (
    "test_every_split_gives_the_same_events",
    "test_byte_by_byte_gives_the_same_events",
    "test_every_prefix_ends_once_and_a_cut_answer_fails",
    "test_a_good_stream_with_something_wrong_in_it",
    "test_a_good_answer_with_something_wrong_in_it",
    "test_random_bytes",
    "test_random_json",
    "test_a_line_without_an_end_is_given_up",
    "test_an_endless_event_is_given_up",
    "test_order_holds_whatever_the_provider_repeats_or_leaves_out",
    "test_json_that_is_too_much_for_a_parser",
)
_EVERY_CUT = "test_a_stream_comes_to_the_same_however_it_is_cut"
_LONG_FOR = {"openai-compatible", "anthropic"}
# Text, calls, an error and an odd end of a line: a cut meets the reader of lines, and of each kind of event one is enough.
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


# Cases that the command line leaves out are not made: there are twenty-nine thousand of them. With any other expression
# all are made, and pytest selects among them.
_NOT_MADE = {"not slow": pytest.mark.slow, "slow and not every_model": pytest.mark.every_model}


def pytest_conformance_values(
    config: pytest.Config, case: str, values: Sequence[object], selection: Selection
) -> Sequence[object]:
    ablest: dict[str, Subject] = {}
    for subject in selection.subjects:
        ablest.setdefault(subject.adapter.name, subject)
    not_made = _NOT_MADE.get(config.option.markexpr)
    marked = [pytest.param(value, marks=_marks_of(f"{case}[{value}]", value, ablest)) for value in values]
    made = [value for value in marked if not_made not in value.marks]
    # Without any value pytest reports a skipped test. One that the command line leaves out is deselected instead.
    return made or marked[:1]


def _marks_of(name: str, value: object, ablest: dict[str, Subject]) -> tuple[pytest.MarkDecorator, ...]:
    subject = getattr(value, "subject", value)
    assert isinstance(subject, Subject | WireCase)
    if not _waits(name, subject, ablest):
        return ()
    one_of_many = isinstance(subject, Subject) and subject.model != ablest[subject.adapter.name].model
    return (pytest.mark.slow, pytest.mark.every_model) if one_of_many else (pytest.mark.slow,)


def _waits(name: str, value: Subject | WireCase, ablest: dict[str, Subject]) -> bool:
    adapter = value.adapter.name
    if isinstance(value, WireCase):
        return name.startswith(_EVERY_CUT) and not name.endswith(_EVERY_CUT_OF)
    first = ablest[adapter]
    if name.startswith(_LONG):
        return adapter not in _LONG_FOR
    if adapter in _LIKE_ANOTHER:
        return not name.startswith(_OF_DATA)
    if name.startswith(_BY_MODEL) and name.endswith("-text]"):
        return False
    return name.startswith((*_MANY, _BY_MODEL)) and value.model != first.model
