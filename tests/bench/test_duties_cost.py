"""Counting the time of a user makes few calls, and none of them is one of SQLite."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.duties import CASES, measured

MOST_CALLS = 55


@pytest.mark.parametrize("case", CASES)
def test_time_of_a_user_adds_few_calls_to_a_chat(tmp_path: Path, case: str) -> None:
    calls, _ = asyncio.run(measured(tmp_path, case, rounds=1, requests=1))
    assert 0 < calls <= MOST_CALLS
