"""Build the report of a run as one JSON value, and write it as JSON, as one HTML page with charts, and as Markdown."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.decision import Recommendation, RouteEvidence
from evaluation.figures import AXES, FIGURES, Figure, Results
from evaluation.questions import Item
from evaluation.statistics import ALPHA, Comparison, count_groups
from evaluation.store import StoreError
from evaluation.texts import open_private, visible_line, visible_text
from gateway.model.approval import days_at, why_unapproved
from gateway.model.config_version import Region
from gateway.model.deployment import Deployment

FORMAT = 2
Report = Mapping[str, Any]
_TEMPLATES = Path(__file__).parent / "templates"
_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~!@])")
_SMALLEST_P = 0.0001
_PARTS = ("language", "set", "subject")
# Okabe and Ito's palette, which is distinguishable with any kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")


def approval_of(deployment: Deployment, region: Region, now_s: float) -> dict[str, Any]:
    """Return the deployment's approval records for the region, and what is missing today."""
    records = [
        {key: value if value is None else str(value) for key, value in asdict(one).items()}
        for one in deployment.approvals
        if one.region == region.name
    ]
    lacking = why_unapproved(deployment.approvals, region.name, days_at(now_s))
    return {"lacking": lacking, "required": region.approvals_required, "records": records}


def build_report(
    evidence: RouteEvidence,
    advice: Recommendation,
    deployments: Mapping[str, Deployment],
    region: Region,
    now_s: float,
    *,
    comparisons: Sequence[Comparison],
    **facts: object,
) -> dict[str, Any]:
    """Return the report as one value of JSON types. `facts` are stated at its top."""
    suite, file, results = evidence.suite, evidence.suite.file, evidence.results
    ranked = [name for group in advice.groups for name in group]
    ranking = ranked + sorted((name for name in results if name not in ranked), key=lambda one: -evidence.total(one))
    asked = {"performance": suite.performance, "compliance": suite.compliance, "streamed": suite.streamed}
    report: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "suite": {"name": file.name, "digest": suite.digest, "seed": file.seed},
            "asked": {axis: len(items) for axis, items in asked.items()},
            "groups": {
                axis: count_groups({item.question_id for item in items}, suite.groups) for axis, items in asked.items()
            },
            "region": region.name,
            "at": utc_text(now_s),
            **facts,
            "weights": file.weights.model_dump(),
            "objectives": file.scalability.objectives.model_dump() if file.scalability is not None else None,
            "currency": file.prices.currency if file.prices is not None else "",
            "risks": {name: risk.name for name, risk in suite.bank.risks.items()} if suite.bank is not None else {},
            "ranking": ranking,
            "out": sorted(name for name in results if evidence.missed(name)),
            "candidates": {
                name: {
                    "provider": deployments[name].provider,
                    "model": deployments[name].model,
                    "redirected_to": deployments[name].redirected_to(now_s),
                    "site": deployments[name].site,
                    "places": {
                        kind: str(getattr(deployments[name].residency, kind)) for kind in ("stores", "processes")
                    },
                    "approval": approval_of(deployments[name], region, now_s),
                    "cost": evidence.cost[name],
                    "score": evidence.scores[name],
                    "requirements": evidence.requirements[name],
                    **measured(results[name], suite.items, suite.groups),
                }
                for name in results
            },
            "totals": [{**asdict(one), "words": one.describe()} for one in evidence.totals],
            "comparisons": comparisons,
            "recommendation": {**asdict(advice), "route_now": evidence.route_now},
        }
    )
    return report


def measured(results: Results, items: Mapping[str, Item], groups: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that was measured of one candidate."""
    figures = {key: found for key in results.marks if (found := results.figure(key, groups)) is not None}
    by: dict[str, dict[str, dict[str, Any]]] = {}
    for part in _PARTS:
        for key in figures:
            words = sorted({getattr(items[one], part) for one in results.marks[key] if one in items})
            for word in words if len(words) > 1 else ():
                found = results.figure(key, groups, only=lambda one, w=word, p=part: getattr(items[one], p) == w)  # type: ignore[misc]
                by.setdefault(part, {}).setdefault(word, {})[key] = found
    load = results.load
    steps = (
        [{**asdict(one), "goodput": one.goodput, "late": one.late} for one in load.steps] if load is not None else []
    )
    return {
        "refused": results.refused,
        "waived": results.waived,
        "given_up": results.given_up,
        "figures": figures,
        "missing": {key: results.missing(key)[0] for key in figures},
        "by": by,
        "scores": {key: results.scores(key) for key in figures},
        "failures": dict(results.failures),
        "unsure": results.unsure,
        "words": sum(results.words.values()) / len(results.words) if results.words else None,
        "load": None if load is None else {**asdict(load), "steps": steps},
        "tokens": {"prompt": results.tokens[0], "completion": results.tokens[1], "load": results.load_tokens},
        **results.listed,
        "hidden": results.hidden,
    }


def utc_text(now_s: float) -> str:
    """Return a Unix time as text."""
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """Convert a value to JSON types. An infinite end of an interval becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 9) if math.isfinite(value) else None
    return value


def percentage(one: Mapping[str, Any] | None, unit: str = "%") -> str:
    """Format a figure with its interval. An end that the data does not determine is shown as infinite."""
    if one is None:
        return "–"

    def form(value: float | None) -> str:
        if value is None:
            return "∞"
        if unit == "s":
            return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
        return f"{value:.1%}" if unit == "%" else f"{value:.1f}"

    return f"{form(one['value'])} ({form(one['low'])} to {form(one['high'])})"


def p_text(p: float) -> str:
    """Format a p value. The report's values are rounded, so a very small one is only a bound."""
    return f"p = {p:.2g}" if p >= _SMALLEST_P else f"p < {_SMALLEST_P:g}"


def matrix(report: Report, key: str) -> tuple[list[str], list[list[tuple[str, str, str]]]]:
    """Return the compared candidates, and for each pair the difference (row minus column), its p value and a class."""
    cells: dict[tuple[str, str], tuple[str, str, str]] = {}
    for one in report[key]:
        for pair, sign in (((one["first"], one["second"]), 1), ((one["second"], one["first"]), -1)):
            points = sign * one["difference"] * 100
            kind = "" if one["p"] >= ALPHA else "ok" if points > 0 else "no"
            cells[pair] = f"{points:+.1f}", p_text(one["p"]), kind
    names = [name for name in report["ranking"] if any(name in pair for pair in cells)]
    return names, [[cells.get((row, column), ("–", "", "")) for column in names] for row in names]


def change_of(report: Report) -> str:
    """Return one sentence about how the recommendation changes the route."""
    advice = report["recommendation"]
    now, then = ", ".join(advice["route_now"]) or "empty", ", ".join(advice["route"])
    where = f"{report['assistant']} in region {report['region']}"
    if advice["deployment"] is None:
        return f"The route of {where} does not change: {now}."
    if list(advice["route_now"]) == list(advice["route"]):
        return f"The route of {where} is already the recommended one: {then}."
    return f"The route of {where} should be {then}; it is {now}."


def dots(values: Mapping[str, Mapping[str, Any]], bound: float | None = None) -> list[dict[str, Any]]:
    """Return where the dot, the interval and the bound of each value stand, in percent of the width of a chart.

    The axis covers the intervals and the bound only, so that differences are visible.
    """
    ends = [one[end] for one in values.values() for end in ("low", "value", "high") if one[end] is not None] + [
        bound
    ] * (bound is not None)
    if not ends:
        return []
    least, most = min(ends), max(ends)
    margin = max(0.05 * (most - least), 0.005 * max(abs(most), 0.01))
    scale = 100 / (most - least + 2 * margin)

    def at(value: float | None) -> float:
        return round(float((min(most, most if value is None else value) - least + margin) * scale), 2)

    return [
        {
            "name": name,
            **{end: at(one[end]) for end in ("low", "value", "high")},
            "bound": None if bound is None else at(bound),
        }
        for name, one in values.items()
    ]


def curve(points: Sequence[tuple[float, float]], most: tuple[float, float]) -> str:
    """Return the points of a line in a chart of 300 by 150, whose axes begin at 0 and end at `most`."""
    wide, high = (300 / (most[0] or 1), 150 / (most[1] or 1))
    return " ".join(f"{x * wide:.1f},{150 - y * high:.1f}" for x, y in points)


def shares(values: Iterable[float]) -> list[tuple[float, float]]:
    """Return each value with the share of values up to it, as the steps of the distribution."""
    ordered = sorted(values)
    return [(value, (number + 1) / len(ordered)) for number, value in enumerate(ordered)]


def html_page(report: Report, diff: str) -> str:
    """Return the report as HTML. `diff` is the change of the config in the format of `diff -u`, or empty."""
    environment = _environment(autoescape=True)
    environment.finalize = lambda value: (
        visible_text(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
    )
    return environment.get_template("report.html.j2").render(**_values(report, diff))


def markdown_page(report: Report, diff: str) -> str:
    """Return the report as Markdown. Every inserted text is untrusted, so it is put on one line and escaped."""
    environment = _environment(autoescape=False)
    environment.finalize = lambda value: value if isinstance(value, _Plain) else _escaped(str(value))
    environment.filters["plain"] = _Plain
    return environment.get_template("report.md.j2").render(**_values(report, diff))


class _Plain(str):
    """A text that is inserted as it is."""

    __slots__ = ()


def _escaped(text: str) -> str:
    return html.escape(_SPECIAL.sub(r"\\\1", visible_line(text)), quote=False)


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(  # Markdown is escaped by `finalize`
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,  # noqa: S701  # Markdown is escaped by `finalize`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": percentage, "p": p_text}
    environment.globals |= {"dots": dots, "curve": curve, "shares": shares}
    return environment


def _values(report: Report, diff: str) -> dict[str, Any]:
    names = report["ranking"]
    return {
        "r": report,
        "names": names,
        "axes": AXES,
        "figures": {
            key: FIGURES.get(key, Figure("traffic", key, counts=False))
            for key in dict.fromkeys(
                [*FIGURES, *(key for name in names for key in report["candidates"][name]["figures"])]
            )
            if any(key in report["candidates"][name]["figures"] for name in names)
        },
        "matrices": {key: matrix(report, key) for key in ("totals", "comparisons")},
        "change": change_of(report) if report["recommendation"] else "",
        "colours": {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)},
        "diff": "\n".join(visible_text(diff).splitlines()),
    }


def write_report(out: Path, report: Report, diff: str = "") -> None:
    """Write JSON, HTML and Markdown that only their owner reads, as they have texts of users. Raises StoreError."""
    texts = {
        "report.json": json.dumps(report, ensure_ascii=True, indent=1),
        "report.html": html_page(report, diff),
        "report.md": markdown_page(report, diff),
    }
    try:
        for name, text in texts.items():
            with open_private(out / name) as file:
                file.write(text)
    except OSError as error:
        message = f"the report can't be written to {out}: {error.strerror}"
        raise StoreError(f"{message}; all answers are stored, so run the same command again") from None
