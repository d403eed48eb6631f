"""Write the report of a run as Markdown, format its figures, and write the report files."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.results import AXES, Report
from evaluation.run_store import StoreError
from evaluation.visible_text import escaped_json, open_private, visible_line, visible_text

TEMPLATES = Path(__file__).parent / "templates"
_NONE = "–"
_ALPHA, _SMALLEST_P = 0.05, 0.0001


def percentage(value: float | None) -> str:
    """Format a share as a percentage."""
    return _NONE if value is None else f"{value:.1%}"


def interval(one: Mapping[str, Any] | None) -> str:
    """Format a share with its interval."""
    return _NONE if one is None else f"{one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%})"


def with_worst(results: Mapping[str, Any], key: str) -> str:
    """Format a figure of the compliance axis, with its worst case if answers have no verdict."""
    if key == "consistent" and results["repeated"]:
        return f"{interval(results[key])}; {results['repeated']['value']:.1%} between samples without streaming"
    worst = results["worst"].get(key)
    if not results["missing"].get(key) or worst is None:
        return interval(results[key])
    return f"{interval(results[key])}; {worst['value']:.1%} if missing verdicts count against it"


def duration(one: Mapping[str, Any] | None) -> str:
    """Format a time with its interval. An upper end that the data does not determine is shown as infinite."""
    if one is None:
        return _NONE
    return f"{_time(one['value'])} ({_time(one['low'])} to {'∞' if one['high'] is None else _time(one['high'])})"


def number(one: Mapping[str, Any] | None) -> str:
    """Format a number with its interval. An end that the data does not determine is shown as infinite."""
    if one is None:
        return _NONE
    low = "-∞" if one["low"] is None else f"{one['low']:.1f}"
    high = "∞" if one["high"] is None else f"{one['high']:.1f}"
    return f"{one['value']:.1f} ({low} to {high})"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def tie_label(name: str, report: Mapping[str, Any]) -> str:
    """Return the tie group of a candidate: its number, and `out` for one that misses a requirement."""
    for index, group in enumerate(report["recommendation"]["groups"], 1):
        if name in group:
            return f"group {index}" if len(report["recommendation"]["groups"]) > 1 else "one group"
    return "out" if name in report["out"] else "not scored"


def pair_matrix(report: Mapping[str, Any], key: str) -> tuple[list[str], list[list[tuple[str, str, str]]]]:
    """Return the compared candidates, and for each pair the difference (row minus column), its p value and a class.

    `key` is `totals` for the weighted scores, or `comparisons` for the performance items.
    """
    cells: dict[tuple[str, str], tuple[str, str, str]] = {}
    for one in report[key]:
        points, p = one["difference"] * 100, p_text(one["p"])
        for pair, value in (((one["first"], one["second"]), points), ((one["second"], one["first"]), -points)):
            kind = "" if one["p"] >= _ALPHA else "ok" if value > 0 else "no"
            cells[pair] = (f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0"), p, kind)
    names = [name for name in report["ranking"] if any(name in pair for pair in cells)]
    return names, [[cells.get((row, column), (_NONE, "", "")) for column in names] for row in names]


def p_text(p: float) -> str:
    """Format a p value. The report's values are rounded, so a very small one is only a bound."""
    return f"p = {p:.2g}" if p >= _SMALLEST_P else f"p < {_SMALLEST_P:g}"


def change_of(report: Mapping[str, Any]) -> str:
    """Return one sentence about how the recommendation changes the route."""
    advice = report["recommendation"]
    if advice["deployment"] is None:
        return "The route does not change, because no candidate meets all requirements."
    current, recommended = ", ".join(advice["route_now"]) or "empty", ", ".join(advice["route"])
    where = f"{report['assistant']} in region {report['region']}"
    if list(advice["route_now"]) == list(advice["route"]):
        return f"The route of {where} is already the recommended one: {recommended}."
    return f"The route of {where} should be {recommended}; it is {current}."


_MAX_LISTED_FAILURES = 10
_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~!@])")


def markdown_page(report: Report, diff: str) -> str:
    """Return the report as Markdown. `diff` is the change of the config, or empty."""
    candidates: dict[str, Any] = {name: report["candidates"][name] for name in report["ranking"]}
    measured = {name: one["performance"] for name, one in candidates.items()}
    performances = {name: one for name, one in measured.items() if one and one["overall"]}
    axes = [
        (f"{name}, {axis}", one[axis])
        for name, one in candidates.items()
        for axis in ("performance", "compliance")
        if one[axis]
    ]
    shown = [(title, one["best"][:_MAX_LISTED_FAILURES]) for title, one in axes]
    return _page(
        "report.md.j2",
        r=report,
        axes=AXES,
        candidates=candidates,
        matrices={key: pair_matrix(report, key) for key in ("totals", "comparisons")},
        performances=performances,
        groups=sorted({group for one in performances.values() for group in one["by"].get("group", {})}),
        languages=_compliance_languages(candidates),
        steps=[
            (name, step) for name, one in candidates.items() for step in (one["scalability"] or {}).get("steps", ())
        ],
        failed=[_folded(title, one) for title, one in axes if one["failed"]],
        best=[(f"{title}: {len(items)} answers that count for it", items) for title, items in shown if items],
        change=change_of(report),
        diff="\n".join(visible_text(diff).splitlines()),
    )


def shadow_markdown(report: Report) -> str:
    """Return the report of shadow traffic as Markdown."""
    failed = [_folded(name, one) for name, one in report["shadows"].items() if one["failed"]]
    return _page("shadow.md.j2", r=report, failed=failed)


class _Plain(str):
    """A text that is inserted as it is."""

    __slots__ = ()


def _page(name: str, **values: object) -> str:
    """Return the Markdown of a template, in which every inserted text is escaped."""
    environment = Environment(  # noqa: S701  # `finalize` escapes
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, _Plain) else _text(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Code hosts read no Markdown inside an HTML line, so a summary is escaped as HTML only.
    summary = {"plain": _Plain, "summary": lambda text: _Plain(html.escape(visible_line(text)))}
    environment.filters |= {**FILTERS, "worst": with_worst, **summary}
    return environment.get_template(name).render(**values)


def _compliance_languages(candidates: Mapping[str, Any]) -> list[tuple[str, str, str, Any]]:
    """Return the figures by language in the worst case, if several languages were asked."""
    return [
        (name, figure.replace("_", "-"), language, share)
        for name, one in candidates.items()
        for figure, languages in (one["compliance"] or {}).get("by_language", {}).items()
        if len(languages) > 1
        for language, share in languages.items()
    ]


def _folded(title: str, results: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]]:
    """Return the title of a collapsed section, and the first failed items."""
    shown = results["failed"][:_MAX_LISTED_FAILURES]
    count = len(results["failed"]) + results["hidden"]
    more = f" (the first {len(shown)} are shown)" if count > len(shown) else ""
    return f"{title}: {count} failed{more}", shown


def _text(text: str) -> str:
    """Return untrusted text on one line, escaped for Markdown and HTML."""
    return html.escape(_SPECIAL.sub(r"\\\1", visible_line(text)), quote=False)


FILTERS: Mapping[str, Callable[..., str]] = {
    "pct": percentage,
    "interval": interval,
    "time": duration,
    "number": number,
    "tie": tie_label,
}
"""The filters of the templates."""


def write_report(out: Path, report: Mapping[str, Any], html: str, markdown: str) -> None:
    """Write the report as JSON, HTML and Markdown. Raises StoreError.

    The files contain answers of candidates and, for shadow traffic, text of users. Like `run.db`, only their owner can
    read them.
    """
    try:
        _write(out / "report.json", escaped_json(json.dumps(report, ensure_ascii=False, indent=1)))
        _write(out / "report.html", html)
        _write(out / "report.md", markdown)
    except OSError as error:
        message = f"the report can't be written to {out}: {error.strerror}"
        raise StoreError(f"{message}; all answers are stored, so run the same command again") from None


def _write(path: Path, text: str) -> None:
    with open_private(path) as file:
        file.write(text)
