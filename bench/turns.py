"""Measure in short alternating rounds, for a machine whose processor and caches are shared with others.
Such a machine is rarely idle for minutes, but often for a second. All subjects run all the time, and each gets a short
round of each scenario in each turn, so that idle and busy seconds affect all alike. The minimum of many rounds is the
cost of the work without disturbance, and the minimums of two subjects can be compared.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence

from bench.measure import Bench, Extent
from bench.report import table_of
from bench.subjects import Running, Subject

__all__ = ["EXTENT", "SCENARIOS", "take_turns", "turns_table"]

EXTENT = Extent(rounds=1, round_s=0.6, warm_up_s=0.2, latency_s=1.5, streams=0)
SCENARIOS = {
    "json": "JSON µs",
    "burst": "burst µs",
    "gemini": "burst µs, translated",
    "paced": "paced event µs",
    "added": "added p50 ms",
}
"""The scenarios to measure, and their columns."""
_DIGITS = {"paced": 1, "added": 2}
Samples = Mapping[str, Mapping[str, Sequence[float]]]


def take_turns(bench: Bench, subjects: Sequence[Subject], turns: int) -> Samples:
    """Return the figure of each turn by subject and scenario (units: `SCENARIOS`)."""
    samples: dict[str, dict[str, list[float]]] = {subject.name: {} for subject in subjects}
    with contextlib.ExitStack() as stack:
        running: list[tuple[Subject, Running]] = []
        for subject in subjects:
            one = subject.start(bench.folder, bench.ports, bench.cores)
            stack.enter_context(one.process)
            for scenario, request in subject.requests.items():
                bench.check(one.port, scenario, request)
            running.append((subject, one))
        for turn in range(turns):
            for scenario in SCENARIOS:
                for subject, one in running:
                    if (figure := bench.sample(scenario, subject, one)) is not None:
                        samples[subject.name].setdefault(scenario, []).append(figure)
            bench.say(f"turn {turn + 1} of {turns}: " + ", ".join(_latest(samples)))
    return samples


def _latest(samples: Samples) -> list[str]:
    return [f"{name} {figures['json'][-1]:.0f} µs" for name, figures in samples.items() if "json" in figures]


def turns_table(samples: Samples) -> str:
    """Return a row for each subject with the minimum, the lower quartile and the median of its turns."""
    return table_of(
        ["minimum / quartile / median", *SCENARIOS.values()],
        [
            [name, *(_cell(scenario, figures.get(scenario, ())) for scenario in SCENARIOS)]
            for name, figures in samples.items()
        ],
    )


def _cell(scenario: str, figures: Sequence[float]) -> str:
    if len(figures) < 2:
        return " / ".join(f"{figure:,.{_DIGITS.get(scenario, 0)}f}" for figure in figures) or "–"
    quarter, half, _ = statistics.quantiles(figures, n=4, method="inclusive")
    return " / ".join(f"{figure:,.{_DIGITS.get(scenario, 0)}f}" for figure in (min(figures), quarter, half))
