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
# As many cases as there are requests and models, and the same code for each row.
_MANY = (
    "test_build_is_deterministic_and_leaves_its_input_alone",
    "test_path_and_headers",
    "test_no_model_name_leads_elsewhere",
)
# Of the rows of data, which one adapter reads, those with most oddities stand for all.
_ROWS = {name for name, adapter in load_registry().adapters.items() if isinstance(adapter, RowAdapter)}
# (The ablest model of `openai` shows the Responses API; chat completions are shown by `openai-compatible`.)
_SHOWN_BY_ANOTHER = (
    "[dashscope-qwen-plus",
    "[vertex-",
    *(f"[{name}-" for name in _ROWS - {"azure", "minimax"}),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name.startswith((*_LONG, *_MANY)) and any(subject in item.name for subject in _SHOWN_BY_ANOTHER):
            item.add_marker(pytest.mark.slow)
