"""Which of the kit's cases wait for `make ci`: the longest ones, where another subject shows the same in the fast suite."""

from __future__ import annotations

import pytest

_LONG = (
    "test_every_split_gives_the_same_events",
    "test_byte_by_byte_gives_the_same_events",
    "test_a_good_stream_with_something_wrong_in_it",
    "test_every_prefix_ends_once_and_a_cut_answer_fails",
)
_SHOWN_BY_ANOTHER = ("[openai-compatible-", "[dashscope-qwen-plus")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name.startswith(_LONG) and any(subject in item.name for subject in _SHOWN_BY_ANOTHER):
            item.add_marker(pytest.mark.slow)
