"""The cost of the Responses API, compared with chat: function calls of one request, which no machine's speed changes."""

from __future__ import annotations

import pytest

from bench.guard import count


@pytest.mark.slow
def test_responses_cost_little_more_than_chat() -> None:
    calls = {case: counter.total() for case, counter in count().items()}
    assert calls["Responses: JSON"] <= 1.6 * calls["JSON"]
    paced = "stream of 64 events one by one"
    assert calls[f"Responses: {paced}"] <= 1.5 * calls[paced]
