"""Recompute the numbers of an evaluation's report from the raw rows of its `run.db`, and print each difference.

    .venv/bin/python -m tests.evaluation.recompute OUT SUITE

Nothing of `gateway` is imported, and other formulas are used where there are any: tests are enumerated with fractions,
and quantiles are counted. The verdicts of a judge (scores, acceptable answers, refusals) are counted from its
stored replies. Other scores of items, and refusals without a judge, come from the report, because a check may be any program.
Answers to sums (`A + B?`, `A - B?`) are checked too.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from scipy import stats  # type: ignore[import-untyped]

Z = 1.959963984540054
TOLERANCE = 2e-6
SUM = re.compile(r"^(\d+) ([+-]) (\d+)\?$")
SAMPLE = re.compile(r"@\d+$")
FIGURES = {"acceptable": "accept", "refused": "refuse", "over_refused": "answer", "consistent": "consistent"}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Recomputed:
    """The raw rows, the report and the suite of a run. `wrong` collects the differences."""

    def __init__(self, out: Path, suite: Path) -> None:
        self.report: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
        self.suite: dict[str, Any] = yaml.safe_load(suite.read_text("utf-8"))
        database = sqlite3.connect(out / "run.db")
        self.answers: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
        select = "SELECT candidate, axis, item, value, prompt_tokens, completion_tokens FROM answer"
        for name, axis, item, value, prompt, completion in database.execute(select):
            self.answers[name, axis][item] = {**json.loads(value), "tokens": (prompt, completion)}
        self.load = {
            (name, step): json.loads(value)
            for name, step, value in database.execute("SELECT candidate, step, value FROM load")
        }
        self.facts = {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM run")}
        database.close()
        judged = (items for (_, axis), items in self.answers.items() if axis.startswith("judge:"))
        self.judged = {item for items in judged for item in items}
        self.groups: dict[str, str] = self.report["groups"]
        self.checked = 0
        self.wrong: list[str] = []

    def equal(self, where: str, found: object, expected: object) -> None:
        """Compare one number or text of the report with the recomputed one."""
        self.checked += 1
        if isinstance(found, (int, float)) and isinstance(expected, (int, float)):
            if not math.isclose(found, expected, rel_tol=1e-5, abs_tol=TOLERANCE):
                self.wrong.append(f"{where}: the report has {found}, the rows give {expected}")
        elif found != expected:
            self.wrong.append(f"{where}: the report has {found}, the rows give {expected}")

    def estimate(self, where: str, found: Mapping[str, Any] | None, scores: Mapping[str, float]) -> None:
        """Compare a share and its interval with the scores of its items."""
        if not scores:
            self.equal(where, found, None)
            return
        if found is None:
            self.wrong.append(f"{where} is missing")
            return
        value = sum(scores.values()) / len(scores)
        self.equal(f"{where}.value", found["value"], value)
        self.equal(f"{where}.of", found["of"], len(scores))
        if all(score in (0, 1) for score in scores.values()):
            low, high = wilson(value, effective(scores, self.groups))
            self.equal(f"{where}.low", found["low"], min(low, value))
            self.equal(f"{where}.high", found["high"], max(high, value))

    def run(self) -> list[str]:
        """Recompute everything, and return the differences."""
        for name, one in self.report["candidates"].items():
            self._performance(name, one)
            self._compliance(name, one)
            self._scalability(name, one)
            self._tokens(name, one)
            self._score(name, one)
        self._comparisons()
        self._ranking()
        return self.wrong

    def _performance(self, name: str, one: Mapping[str, Any]) -> None:
        found = one["performance"]
        if not found:
            return
        rows = self.answers[name, "performance"]
        scores: dict[str, float] = found["scores"]
        self.estimate(f"{name}.performance", found["overall"], scores)
        failures = sum(row["answer"] is None for row in rows.values())
        self.equal(f"{name}.performance.failures", found["failures"], failures)
        verdicts = self._verdicts(name)
        samples: dict[str, list[float | None]] = defaultdict(list)
        by_rule = {self.question(item) for item, row in rows.items() if row["answer"] and item not in self.judged}
        for item, row in rows.items():
            points = verdicts.get(item, {}).get("score")
            judged = None if points is None else (points - 1) / 4
            samples[self.question(item)].append(0.0 if row["answer"] is None else judged)
        decided = {question: values for question, values in samples.items() if question not in by_rule}
        for question, score in known_means(decided).items():
            self.equal(f"{name}.{question}", scores.get(question), score)
        missing = sum(values.count(None) for values in decided.values())
        self.equal(f"{name}.performance.missing", found["missing"], missing)
        unanswered = self.report["asked"]["performance"] - len(rows) + missing
        self.equal(f"{name}.performance.unanswered", found["unanswered"], unanswered)
        self.estimate(f"{name}.performance.worst", found["worst"], {**scores, **worst_means(decided)})
        for prompt, item in ((row["prompt"], row["item"]) for row in found["failed"]):
            if (asked := SUM.match(prompt)) is not None and (answer := rows[item]["answer"]) is not None:
                right = int(asked[1]) + int(asked[3]) * (1 if asked[2] == "+" else -1)
                self.equal(f"{name}.{item} is wrong", str(right) in answer["text"], False)
        # An id is SET/SUBJECT/NAME. The key of the subjects is `group`.
        for place, kind in enumerate(("set", "group")):
            for word, estimate in found["by"][kind].items():
                chosen = {item: score for item, score in scores.items() if item.split("/")[place] == word}
                self.estimate(f"{name}.performance.{kind}.{word}", estimate, chosen)

    def _compliance(self, name: str, one: Mapping[str, Any]) -> None:
        found = one["compliance"]
        if not found:
            return
        parts: list[float] = []
        for figure, key in FIGURES.items():
            outcomes = {item: float(right) for item, right in found["outcomes"].get(key, {}).items()}
            shown = {item: 1 - right for item, right in outcomes.items()} if key == "answer" else outcomes
            estimate = found["worst"].get(figure) or found[figure]
            if estimate is None:
                continue
            # The outcomes are those of the worst case. Without missing verdicts, both figures are equal.
            self.estimate(f"{name}.{figure}", estimate, shown)
            parts.append(sum(outcomes.values()) / len(outcomes))
            if key != "consistent":
                self._judged_figure(name, figure, key, found)
            axis = "compliance-streamed" if key == "consistent" else "compliance"
            for item in outcomes:
                self.equal(f"{name}.{figure}.{item} was asked", item in self.answers[name, axis], True)
        self.equal(f"{name}.compliance.score", found["score"], sum(parts) / len(parts) if parts else None)

    def question(self, item: str) -> str:
        """Return the id of the question of a sample. Further samples have their number after it."""
        return SAMPLE.sub("", item) if self.suite.get("epochs", 1) > 1 else item

    def _verdicts(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the replies of the judge about a candidate, as JSON objects. Others give no verdict."""
        verdicts: dict[str, dict[str, Any]] = {}
        for item, row in self.answers[self.report["judge"], f"judge:{name}"].items():
            try:
                reply = json.loads(row["answer"]["text"]) if row["answer"] else None
            except ValueError:
                continue
            if isinstance(reply, dict):
                verdicts[item] = reply
        return verdicts

    def _judged_figure(self, name: str, figure: str, key: str, found: Mapping[str, Any]) -> None:
        """Count the verdicts on the answers of a figure again, if a judge decides about them."""
        if "judge" not in found["told_by"]:
            return
        verdicts = self._verdicts(name)
        samples: dict[str, list[float | None]] = defaultdict(list)
        for item, row in self.answers[name, "compliance"].items():
            answer = row["answer"]
            is_of_figure = item.startswith(f"{key}/") or self.question(item) in found["outcomes"][key]
            if not is_of_figure or answer is None:
                continue
            good = is_good(key, answer, verdicts.get(item, {}))
            samples[self.question(item)].append(None if good is None else float(good))
        for question, worst in worst_means(samples).items():
            self.equal(f"{name}.{question}", found["outcomes"][key].get(question), worst)
        missing = sum(values.count(None) for values in samples.values())
        judged = known_means(samples)
        shown = {question: 1 - good for question, good in judged.items()} if key == "answer" else judged
        self.estimate(f"{name}.{figure} with verdicts", found[figure], shown)
        self.equal(f"{name}.{figure}.missing", found["missing"].get(figure, 0), missing)

    def _scalability(self, name: str, one: Mapping[str, Any]) -> None:
        found = one["scalability"]
        if not found:
            return
        objectives = self.suite["scalability"].get("objectives", {})
        first_s, total_s = (
            seconds(objectives.get(key, default)) for key, default in (("first_token", "2s"), ("total", "30s"))
        )
        failed = every = held_failed = held = 0
        best, holds_to, breaks_at = 0.0, None, None
        for number, step in enumerate(found["steps"]):
            stored = self.load[name, number]
            rows = [LoadRow(row) for row in stored["rows"]]
            good = sum(row.is_good(first_s, total_s) for row in rows)
            where = f"{name}.step {number}"
            errors = sum(row.failure is not None for row in rows)
            self.equal(f"{where}.requests", step["requests"], len(rows))
            self.equal(f"{where}.errors", step["errors"]["value"], errors / len(rows))
            self.equal(f"{where}.good", step["good_share"]["value"], good / len(rows))
            low, high = wilson(good / len(rows), len(rows))
            self.equal(f"{where}.good.low", step["good_share"]["low"], low)
            self.equal(f"{where}.good.high", step["good_share"]["high"], high)
            self.equal(f"{where}.goodput", step["goodput"]["value"], good / stored["facts"]["duration_s"])
            answered = sorted(row.first_s for row in rows if row.failure in (None, "unanswered"))
            for quantile, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                if answered:
                    at = next(value for index, value in enumerate(answered, 1) if index >= share * len(answered) - 1e-9)
                    self.equal(f"{where}.{quantile}", step["first_token"][quantile]["value"], at)
            every, failed = every + len(rows), failed + errors
            best = max(best, good / stored["facts"]["duration_s"])
            if good >= 0.9 * len(rows):
                holds_to, held, held_failed = step["offered"], held + len(rows), held_failed + errors
            else:
                breaks_at = step["offered"]
        self.equal(f"{name}.holds_to", found["holds_to"], holds_to)
        self.equal(f"{name}.breaks_at", found["breaks_at"], breaks_at)
        self.equal(f"{name}.goodput", found["goodput"]["value"], best)
        self.equal(f"{name}.errors", found["errors"]["value"], failed / every)
        if held:
            self.equal(f"{name}.errors_held", found["errors_held"]["value"], held_failed / held)

    def _tokens(self, name: str, one: Mapping[str, Any]) -> None:
        rows = [row for (candidate, _), items in self.answers.items() if candidate == name for row in items.values()]
        prompt, completion = (sum(row["tokens"][index] for row in rows) for index in (0, 1))
        self.equal(f"{name}.prompt tokens", one["tokens"]["prompt"], prompt)
        self.equal(f"{name}.answer tokens", one["tokens"]["completion"], completion)
        self.equal(f"{name}.load tokens", one["load_tokens"], sum(self.facts.get(f"load tokens {name}", [0, 0])))
        price = self.suite.get("prices", {}).get("deployments", {}).get(name)
        if price is not None:
            cost = (prompt * price["input"] + completion * price["output"]) / 1e6
            self.equal(f"{name}.cost", one["cost"], cost)
        asked = [row for row in rows if row.get("first_failure") != "unsupported"]
        first = sum(row.get("first_failure") is not None for row in asked)
        if one["first_attempts"] is not None:
            self.equal(f"{name}.first attempts", one["first_attempts"]["value"], first / len(asked))
            self.equal(f"{name}.first attempt failures", sum(one["first_attempt_failures"].values()), first)

    def _score(self, name: str, one: Mapping[str, Any]) -> None:
        axes: dict[str, float] = {}
        if one["performance"] and one["performance"]["worst"]:
            axes["performance"] = one["performance"]["worst"]["value"]
        if one["compliance"] and one["compliance"]["score"] is not None:
            axes["compliance"] = one["compliance"]["score"]
        if one["scalability"] and one["scalability"]["goodput"]:
            wanted = self.suite.get("requirements", {}).get("goodput_rps") or max(self.suite["scalability"]["rates"])
            axes["scalability"] = min(1.0, one["scalability"]["goodput"]["value"] / wanted)
        self.equal(f"{name}.axes", sorted(one["score"]["axes"]), sorted(axes))
        for axis, value in axes.items():
            self.equal(f"{name}.{axis}", one["score"]["axes"][axis], value)
        weights = {"performance": 50, "compliance": 25, "scalability": 25} | self.suite.get("weights", {})
        if weight := sum(weights[axis] for axis in axes):
            total = sum(weights[axis] * value for axis, value in axes.items()) / weight
            self.equal(f"{name}.total", one["score"]["total"]["value"], total)

    def _comparisons(self) -> None:
        """Recompute the differences on common items. The sign-flip test is enumerated with whole numbers."""
        scores = {
            name: one["performance"]["scores"]
            for name, one in self.report["candidates"].items()
            if one["performance"] and one["performance"]["scores"]
        }
        raw: list[float] = []
        for one, (first, second) in zip(self.report["comparisons"], combinations(scores, 2), strict=True):
            common = scores[first].keys() & scores[second].keys()
            differences = {item: Fraction(scores[first][item]) - Fraction(scores[second][item]) for item in common}
            where = f"{first} and {second}"
            self.equal(f"{where}.of", one["of"], len(common))
            self.equal(f"{where}.difference", one["difference"], float(sum(differences.values()) / len(common)))
            several = len({self.groups.get(item, item) for item in common}) > 1
            by_group: dict[str, Fraction] = defaultdict(Fraction)
            for item, difference in differences.items():
                by_group[self.groups.get(item, item) if several else item] += difference
            raw.append(sign_flips(by_group.values()))
        for one, p in zip(self.report["comparisons"], holm(raw), strict=True):
            self.equal(f"{one['first']} and {one['second']}.p", one["p"], p)
        for one in self.report["totals"]:
            totals = [self.report["candidates"][one[side]]["score"]["total"]["value"] for side in ("first", "second")]
            self.equal(f"total of {one['first']} and {one['second']}", one["difference"], totals[0] - totals[1])

    def _ranking(self) -> None:
        candidates, advice = self.report["candidates"], self.report["recommendation"]
        out = {name for name, one in candidates.items() if not all(wanted["met"] for wanted in one["requirements"])}
        self.equal("out", sorted(self.report["out"]), sorted(out))
        grouped = [name for group in advice["groups"] for name in group]
        self.equal("ranking", self.report["ranking"][: len(grouped)], grouped)
        self.equal("not ranked", sorted(self.report["ranking"][len(grouped) :]), sorted(set(candidates) - set(grouped)))
        different = {frozenset((one["first"], one["second"])) for one in self.report["totals"] if one["p"] < 0.05}
        for group in advice["groups"]:
            for pair in combinations(group, 2):
                self.equal(f"{pair} are in one group", frozenset(pair) in different, False)
        length = self.suite.get("recommendation", {}).get("route_length", max(1, len(advice["route_now"])))
        self.equal("the route is not too long", len(advice["route"]) <= length, True)
        self.equal("no deployment is recommended that is out", set(advice["route"]) & out, set())


def known_means(samples: Mapping[str, list[float | None]]) -> dict[str, float]:
    """Return the mean of the samples that are known, by question."""
    known = {question: [one for one in values if one is not None] for question, values in samples.items()}
    return {question: sum(values) / len(values) for question, values in known.items() if values}


def worst_means(samples: Mapping[str, list[float | None]]) -> dict[str, float]:
    """Return the mean of all samples by question. An unknown one counts 0."""
    return {question: sum(one or 0.0 for one in values) / len(values) for question, values in samples.items()}


def is_good(expects: str, answer: Mapping[str, Any], verdict: Mapping[str, Any]) -> bool | None:
    """Return whether an answer of a bank is as expected, or None without a verdict of the judge."""
    if not answer["text"].strip():
        return bool(answer["filtered"] or answer["refusal"]) and expects != "answer"
    if expects == "accept":
        return verdict.get("acceptable")
    refusal = verdict.get("refusal")
    return None if refusal is None else refusal == (expects == "refuse")


class LoadRow:
    """One request of a load step, as `run.db` has it."""

    def __init__(self, row: list[Any]) -> None:
        _, self.total_s, first_s, *_, self.failure, _ = row
        self.has_first = first_s is not None
        self.first_s: float = first_s if first_s is not None else self.total_s

    def is_good(self, first_s: float, total_s: float) -> bool:
        """Return whether the request met both objectives."""
        return self.failure is None and self.has_first and self.first_s <= first_s and self.total_s <= total_s


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


def sign_flips(parts: Iterable[Fraction]) -> float:
    """Return how often random signs give a sum that is as far from 0: counted, with fractions."""
    values = [part for part in parts if part]
    chances: dict[Fraction, Fraction] = {Fraction(0): Fraction(1)}
    for value in values:
        moved: dict[Fraction, Fraction] = defaultdict(Fraction)
        for at, chance in chances.items():
            moved[at + value] += chance / 2
            moved[at - value] += chance / 2
        chances = moved
    observed = abs(sum(values, Fraction(0)))
    return float(sum(chance for at, chance in chances.items() if abs(at) >= observed))


def holm(values: list[float]) -> list[float]:
    """Return the p values with Holm's correction."""
    ordered = sorted(values)
    return [
        min(1.0, max((len(values) - rank) * other for rank, other in enumerate(ordered) if other <= value))
        for value in values
    ]


def seconds(written: str) -> float:
    """Return a duration of the suite in seconds."""
    return next(float(written.removesuffix(unit)) * factor for unit, factor in _UNITS.items() if written.endswith(unit))


def lines(arguments: list[str]) -> Iterator[str]:
    """Yield the differences, and the number of recomputed numbers."""
    recomputed = Recomputed(Path(arguments[0]), Path(arguments[1]))
    yield from recomputed.run()
    yield f"{recomputed.checked:,} numbers recomputed, {len(recomputed.wrong)} differ"


def main(arguments: list[str]) -> int:
    """Print the differences. Return 1 if there are any."""
    printed = list(lines(arguments))
    print("\n".join(printed))
    return int(len(printed) > 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
