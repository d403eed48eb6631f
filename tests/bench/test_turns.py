"""Benchmark rounds alternate between the subjects, and the table shows the minimum of each."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from bench.turns import take_turns, turns_table


def subject(name: str, *scenarios: str) -> Any:
    running = SimpleNamespace(process=nullcontext(), port=1)
    return SimpleNamespace(name=name, requests=dict.fromkeys(scenarios, "asked"), start=lambda *_: running)


def test_second_round_starts_after_every_subject_had_its_first() -> None:
    asked: list[tuple[str, str]] = []

    def sample(scenario: str, subject: Any, _: Any) -> float | None:
        if scenario not in subject.requests:
            return None
        asked.append((scenario, subject.name))
        return float(len(asked))

    bench: Any = SimpleNamespace(
        folder=None, ports={}, cores=None, check=lambda *_: None, say=lambda _: None, sample=sample
    )
    samples = take_turns(bench, [subject("ours", "json", "paced"), subject("floor", "json")], 2)
    assert asked == [("json", "ours"), ("json", "floor"), ("paced", "ours")] * 2
    assert samples == {"ours": {"json": [1, 4], "paced": [3, 6]}, "floor": {"json": [2, 5]}}


def test_table_shows_the_minimum_and_the_median() -> None:
    table = turns_table({"ours": {"json": [1100.0, 100.0, 300.0, 200.0, 250.0], "added": [0.5]}, "floor": {}})
    heads, _, ours, floor = table.splitlines()
    assert heads.split("|")[1].strip() == "minimum / quartile / median"
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == ["ours", "100 / 200 / 250", "–", "–", "–", "0.50"]
    assert [cell.strip() for cell in floor.split("|")[1:-1]] == ["floor", *["–"] * 5]
