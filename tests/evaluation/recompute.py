"""Recompute the numbers of an evaluation's report from the raw rows of its `run.db`, and print each difference.

    .venv/bin/python -m tests.evaluation.recompute OUT SUITE

Of the evaluation only the questions of the suite are read. Other formulas are used where there are any: quantiles
are counted. The candidates are simulated, so an answer to an item that a rule
checks is right if it is the item's right answer. The suite has a judge, and no weights of items.
"""

from __future__ import annotations

import json
import math
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

from evaluation.questions import load_suite

Z = 1.959963984540054
TOLERANCE = 2e-6
FIGURE_OF = {"accept": "acceptable", "refuse": "refused", "answer": "over_refused", None: "performance"}
PARTS: tuple[str, ...] = ("language", "set", "subject")
Samples = Mapping[str, Sequence[float | None]]


class Recomputed:
    """The raw rows, the report and the suite of a run. `wrong` collects the differences."""

    def __init__(self, out: Path, suite: Path) -> None:
        self.report: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
        self.suite = load_suite(suite)
        self.items = {item.id: item for item in (*self.suite.performance, *self.suite.compliance)}
        self.groups = {item.question or item.id: item.group for item in self.items.values() if item.group}
        database = sqlite3.connect(out / "run.db")
        self.rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
        select = "SELECT candidate, axis, item, value, prompt_tokens, completion_tokens FROM answer"
        for name, axis, item, value, *tokens in database.execute(select):
            self.rows[name, axis][item] = {**json.loads(value), "counted": tokens}
        self.facts = {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM run")}
        database.close()
        self.checked = 0
        self.wrong: list[str] = []

    def equal(self, where: str, found: object, expected: object) -> None:
        """Compare one number or text of the report with the recomputed one."""
        self.checked += 1
        numbers = isinstance(found, (int, float)) and isinstance(expected, (int, float))
        if numbers and math.isclose(found, expected, rel_tol=1e-5, abs_tol=TOLERANCE):  # type: ignore[arg-type]
            return
        if numbers or found != expected:
            self.wrong.append(f"{where}: the report has {found}, the rows give {expected}")

    def estimate(self, where: str, found: Mapping[str, Any], scores: Mapping[str, float], *, turned: bool) -> None:
        """Compare a figure and its interval with the scores of its questions. `turned`: it shows the opposite."""
        value = sum(scores.values()) / len(scores)
        low, high = wilson(value, effective(scores, self.groups))
        ends = [min(low, value), value, max(high, value)]
        ends = [1 - end for end in reversed(ends)] if turned else ends
        self.equal(f"{where}.of", found["of"], len(scores))
        for end, expected in zip(("low", "value", "high"), ends, strict=True):
            self.equal(f"{where}.{end}", found[end], expected)

    def run(self) -> list[str]:
        """Recompute everything, and return the differences."""
        for name, one in self.report["candidates"].items():
            samples = self._samples(name)
            for figure, values in samples.items():
                self._figure(name, one, figure, values)
            self._load(name, one["load"])
            self._tokens(name, one["tokens"])
            self._score(name, one, samples)
        self._comparisons()
        self._ranking()
        return self.wrong

    def _samples(self, name: str) -> Mapping[str, Samples]:
        """Return the value of each sample by figure and question. None: there is no verdict."""
        verdicts = {item: verdict_of(row) for item, row in self.rows[self.report["judge"], f"judge:{name}"].items()}
        samples: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
        for axis in ("performance", "compliance"):
            for key, row in self.rows[name, axis].items():
                item, verdict = self.items[key], verdicts.get(key, {})
                if axis == "performance" and row["answer"] is None:
                    value: float | None = 0.0
                elif axis == "performance" and hasattr(item.check, "rubric"):
                    value = None if "score" not in verdict else (verdict["score"] - 1) / 4
                elif axis == "performance":
                    assert item.right is not None, "a rule has a right answer"
                    value = float(row["answer"]["text"] == item.right.text)
                elif row["answer"] is None:
                    continue
                else:
                    good = is_good(item.expects, row["answer"], verdict)
                    value = None if good is None else float(good)
                samples[FIGURE_OF[item.expects]][item.question or key].append(value)
        return samples

    def _figure(self, name: str, one: Mapping[str, Any], figure: str, samples: Samples) -> None:
        scores, turned = means(samples), figure == "over_refused"
        self.estimate(f"{name}.{figure}", one["figures"][figure], scores, turned=turned)
        self.equal(
            f"{name}.missing.{figure}", one["missing"][figure], sum(list(v).count(None) for v in samples.values())
        )
        for question, score in scores.items():
            self.equal(f"{name}.{figure}.{question}", one["scores"][figure][question], score)
        for part in PARTS:
            words = {getattr(self.items[question], part) for question in scores}
            for word in words if len(words) > 1 else ():
                chosen = {key: score for key, score in scores.items() if getattr(self.items[key], part) == word}
                found = one["by"][part][word][figure]
                self.estimate(f"{name}.{figure}.{part} {word}", found, chosen, turned=turned)

    def _load(self, name: str, found: Mapping[str, Any]) -> None:
        section = self.suite.file.scalability
        assert section is not None, "the suite has load tests"
        failed = every = 0
        best, holds_to, breaks_at = 0.0, None, None
        for number, step in enumerate(found["steps"]):
            facts = self.facts[f"load {name} {number}"]
            rows = list(self.rows[name, f"load {number} attempt {facts['attempt']}"].values())
            good = sum(
                row["failure"] is None
                and row["first_s"] is not None
                and row["first_s"] <= section.objectives.first_token
                and row["total_s"] <= section.objectives.total
                for row in rows
            )
            errors, where = sum(row["failure"] is not None for row in rows), f"{name}.step {number}"
            self.equal(f"{where}.requests", step["requests"], len(rows))
            self.equal(f"{where}.errors", step["errors"]["value"], errors / len(rows))
            for end, expected in zip(("low", "high"), wilson(good / len(rows), len(rows)), strict=True):
                self.equal(f"{where}.good.{end}", step["good"][end], expected)
            self.equal(f"{where}.goodput", step["goodput"]["value"], good / facts["duration_s"])
            answered = sorted(row["total_s"] if row["first_s"] is None else row["first_s"] for row in rows)
            for quantile, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)) if not errors else ():
                at = next(value for count, value in enumerate(answered, 1) if count >= share * len(answered) - 1e-9)
                self.equal(f"{where}.{quantile}", step["times"]["first_token"][quantile]["value"], at)
            every, failed, best = every + len(rows), failed + errors, max(best, good / facts["duration_s"])
            if good >= 0.9 * len(rows):
                holds_to = step["offered"]
            else:
                breaks_at = step["offered"]
        self.equal(f"{name}.holds_to", found["holds_to"], holds_to)
        self.equal(f"{name}.breaks_at", found["breaks_at"], breaks_at)
        self.equal(f"{name}.goodput", found["goodput"]["value"], best)
        self.equal(f"{name}.errors", found["errors"]["value"], failed / every)

    def _tokens(self, name: str, found: Mapping[str, Any]) -> None:
        rows = [
            (axis, row["counted"]) for (who, axis), ones in self.rows.items() if who == name for row in ones.values()
        ]
        self.equal(f"{name}.prompt tokens", found["prompt"], sum(prompt for _, (prompt, _) in rows))
        self.equal(f"{name}.answer tokens", found["completion"], sum(answer for _, (_, answer) in rows))
        load = sum(sum(counted) for axis, counted in rows if axis.startswith("load "))
        self.equal(f"{name}.load tokens", found["load"], load)

    def _score(self, name: str, one: Mapping[str, Any], samples: Mapping[str, Samples]) -> None:
        section = self.suite.file.scalability
        assert section is not None, "the suite has load tests"
        wanted = self.suite.file.requirements.goodput_rps or max(section.rates)
        figures = {figure: mean(means(values).values()) for figure, values in samples.items()}
        banks = [figures[figure] for figure in ("acceptable", "refused", "over_refused")]
        axes = {
            "performance": figures["performance"],
            "compliance": mean([*banks, mean(one["scores"]["consistent"].values())]),
            "scalability": min(1.0, one["load"]["goodput"]["value"] / wanted),
        }
        for axis, value in axes.items():
            self.equal(f"{name}.{axis}", one["score"]["axes"][axis]["value"], value)
        weights = {axis: getattr(self.suite.file.weights, axis) for axis in axes}
        total = sum(weights[axis] * value for axis, value in axes.items()) / sum(weights.values())
        self.equal(f"{name}.total", one["score"]["total"]["value"], total)

    def _comparisons(self) -> None:
        """Recompute the differences on common questions. `test_statistics` enumerates the test."""
        scores = {name: one["scores"]["performance"] for name, one in self.report["candidates"].items()}
        for one, pair in zip(self.report["comparisons"], combinations(scores, 2), strict=True):
            first, second = (scores[name] for name in pair)
            differences = [first[key] - second[key] for key in first.keys() & second.keys()]
            where = " and ".join(pair)
            self.equal(f"{where}.of", one["of"], len(differences))
            self.equal(f"{where}.difference", one["difference"], mean(differences))
        for one in self.report["totals"]:
            totals = [self.report["candidates"][one[side]]["score"]["total"]["value"] for side in ("first", "second")]
            self.equal(f"total of {one['first']} and {one['second']}", one["difference"], totals[0] - totals[1])

    def _ranking(self) -> None:
        candidates, advice = self.report["candidates"], self.report["recommendation"]
        out = {name for name, one in candidates.items() if not all(wanted["met"] for wanted in one["requirements"])}
        self.equal("out", self.report["out"], sorted(out))
        grouped = [name for group in advice["groups"] for name in group]
        self.equal("ranking", self.report["ranking"][: len(grouped)], grouped)
        self.equal("not ranked", sorted(self.report["ranking"][len(grouped) :]), sorted(set(candidates) - set(grouped)))
        self.equal("no deployment is recommended that is out", set(advice["route"]) & out, set())


def verdict_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the judge's reply as a JSON object. Another reply gives no verdict."""
    try:
        reply = json.loads(row["answer"]["text"]) if row["answer"] else None
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def is_good(expects: str | None, answer: Mapping[str, Any], verdict: Mapping[str, Any]) -> bool | None:
    """Return whether an answer to a bank is as expected, or None without a verdict of the judge."""
    if not answer["text"].strip():
        return bool(answer["filtered"] or answer["refusal"]) and expects != "answer"
    if expects == "accept":
        return verdict.get("acceptable")
    refusal = verdict.get("refusal")
    return None if refusal is None else refusal == (expects == "refuse")


def means(samples: Samples) -> dict[str, float]:
    """Return the mean of all samples by question. A missing verdict counts 0."""
    return {question: sum(one or 0.0 for one in values) / len(values) for question, values in samples.items()}


def mean(values: Iterable[Any]) -> Any:
    """Return the mean."""
    values = list(values)
    return sum(values) / len(values)


def wilson(value: float, of: float) -> tuple[float, float]:
    """Return Wilson's interval: the roots of (value - p)^2 = z^2 p (1 - p) / of."""
    a, b, c = 1 + Z**2 / of, -(2 * value + Z**2 / of), value**2
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return max(0.0, (-b - root) / (2 * a)), min(1.0, (-b + root) / (2 * a))


def effective(scores: Mapping[str, float], groups: Mapping[str, str]) -> float:
    """Return the effective number of items, with the formula of the documentation."""
    members: dict[str, list[float]] = defaultdict(list)
    for item, score in scores.items():
        members[groups.get(item, item)].append(score)
    sizes = [len(ones) for ones in members.values()]
    size = sum(sizes)
    if len(members) in (1, size):
        return size
    typical = sum(one**2 for one in sizes) / size
    clusters = [(1.0, sum(ones), float(len(ones))) for ones in members.values()]
    clusters += [(0.05, typical, typical), (0.05, 0.0, typical)]
    centre = sum(part * total for part, total, _ in clusters) / sum(part * of for part, _, of in clusters)
    count = sum(part for part, _, _ in clusters)
    between = sum(part * (total - centre * of) ** 2 for part, total, of in clusters) * count / (count - 1)
    within = sum((score - centre) ** 2 for score in scores.values())
    within += 0.05 * typical * ((1 - centre) ** 2 + centre**2)
    freedom = max(1.0, sum(one**2 for one in sizes) ** 2 / sum(one**4 for one in sizes) - 1)
    estimated = size / max(1.0, between / within) * (Z / float(stats.t.ppf(0.975, freedom))) ** 2
    return max(estimated, size / typical)


def main(arguments: list[str]) -> int:
    """Print the differences. Return 1 if there are any."""
    recomputed = Recomputed(Path(arguments[0]), Path(arguments[1]))
    for line in recomputed.run():
        print(line)
    print(f"{recomputed.checked:,} numbers recomputed, {len(recomputed.wrong)} differ")
    return int(bool(recomputed.wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
