"""Which of the kit's cases wait for `make ci`: the longest ones, where another subject shows the same in the fast suite."""

from __future__ import annotations

import pytest

from providers.adapters.rows import RowAdapter
from providers.registry import load_registry

_LONG = (
    "test_every_split_gives_the_same_events",
    "test_byte_by_byte_gives_the_same_events",
    "test_a_good_stream_with_something_wrong_in_it",
    "test_every_prefix_ends_once_and_a_cut_answer_fails",
)
# Of the rows of data, which one adapter reads, the one with most oddities stands for all.
_ROWS = {name for name, adapter in load_registry().adapters.items() if isinstance(adapter, RowAdapter)}
_SHOWN_BY_ANOTHER = (
    "[openai-compatible-",
    "[dashscope-qwen-plus",
    "[vertex-",
    *(f"[{name}-" for name in _ROWS - {"minimax"}),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name.startswith(_LONG) and any(subject in item.name for subject in _SHOWN_BY_ANOTHER):
            item.add_marker(pytest.mark.slow)
