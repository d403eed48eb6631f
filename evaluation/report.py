"""Write the report of a run as Markdown, format its figures, and write the report files."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluation.results import AXES, Report
from evaluation.run_store import StoreError
from evaluation.visible_text import escaped_json, open_private, visible_line, visible_text

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
    low, high = _time(one["low"]), "∞" if one["high"] is None else _time(one["high"])
    return f"{_time(one['value'])} ({low} to {high})"


def number(one: Mapping[str, Any] | None) -> str:
    """Format a number with its interval. An end that the data does not determine is shown as infinite."""
    if one is None:
        return _NONE
    low, high = (
        "-∞" if one["low"] is None else f"{one['low']:.1f}",
        "∞" if one["high"] is None else f"{one['high']:.1f}",
    )
    return f"{one['value']:.1f} ({low} to {high})"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def tie_label(name: str, report: Mapping[str, Any]) -> str:
    """Return the tie group of a candidate: its number, and `out` for one that misses a requirement."""
    for index, group in enumerate(report["recommendation"]["groups"], 1):
        if name in group:
            return f"group {index}" if len(report["recommendation"]["groups"]) > 1 else "one group"
    return "out" if name in report["out"] else "not scored"


def tie_sentences(report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each tie group."""
    return [
        f"Group {index}: {', '.join(group)}" + (" are not distinguished." if len(group) > 1 else ".")
        for index, group in enumerate(report["recommendation"]["groups"], 1)
    ]


def pair_matrix(report: Mapping[str, Any], key: str) -> tuple[list[str], list[list[tuple[str, str, str]]]]:
    """Return the compared candidates, and for each pair the difference (row minus column), its p value and a class.

    Args:
        report: The report.
        key: `totals` for the weighted scores, `comparisons` for the performance items.
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
_MAX_SHOWN_CHARACTERS = 300
_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~!@])")


def markdown_page(report: Report, diff: str) -> str:
    """Return the report as Markdown. `diff` is the change of the config, or empty."""
    names: list[str] = report["ranking"]
    one = report["candidates"]
    advice = report["recommendation"]
    lines = [f"# Evaluation {report['suite']['name']}: {report['assistant']} in region {report['region']}", ""]
    about = (
        f"{report['at']}, config {report['table']}, seed {report['suite']['seed']}, suite {report['suite']['digest']}."
    )
    lines += [about, ""]
    if report["simulated"]:
        lines += ["**The candidates are simulated. The figures do not apply to real providers.**", ""]
    if report["stopped"]:
        lines += [f"**Incomplete: {_text(report['stopped'])}.**", ""]
    lines += [*(f"- **{_text(notice)}**" for notice in report["notices"]), *([""] if report["notices"] else [])]
    lines += ["## Ranking", ""]
    lines += _table(
        ["group", "candidate", "total", *AXES, "misses"],
        (
            [
                tie_label(name, report),
                name,
                interval(one[name]["score"]["total"]),
                *(percentage(one[name]["score"]["axes"].get(axis)) for axis in AXES),
                "; ".join(q["name"] for q in one[name]["requirements"] if not q["met"]),
            ]
            for name in names
        ),
    )
    lines += [*(f"- {_text(sentence)}" for sentence in tie_sentences(report)), ""]
    lines += _matrix(report, "totals", "Differences of the weighted score in points (row minus column):")
    lines += _performance(report, names) + _judge(report) + _people(report, names) + _compliance(report, names)
    lines += _scalability(one, names) + _failed(one, names) + _best(one, names)
    lines += ["## Recommendation", "", f"**{advice['deployment'] or 'No candidate'}.** {_text(change_of(report))}", ""]
    lines += [f"- {_text(reason)}" for reason in advice["reasons"]]
    if diff:
        lines += ["", "```diff", *visible_text(diff).splitlines(), "```"]
    return "\n".join(lines) + "\n"


def shadow_markdown(report: Report) -> str:
    """Return the report of shadow traffic as Markdown."""
    lines = [f"# Shadow traffic: {report['assistant']} in region {report['region']}", ""]
    lines += [f"Recorded from {report['from']} until {report['until']}; config {report['table']}.", ""]
    if report["simulated"]:
        lines += ["**The deployments are simulated. The figures do not apply to real providers.**", ""]
    if report["stopped"]:
        lines += [f"**Incomplete: {_text(report['stopped'])}.**", ""]
    lines += [*(f"- {_text(line)}" for line in report["words"]), ""]
    shadows: dict[str, Any] = report["shadows"]
    figures = ("answered", "acceptable", "refused", "in_language")
    rows = (
        [name, str(one["requests"]), str(one["texts"]), *(interval(one[key]) for key in figures)]
        for name, one in shadows.items()
    )
    head = ["shadow", "requests", "with text", "answered", "acceptable", "refused", "in the question's language"]
    lines += _table(head, rows)
    for name, one in shadows.items():
        if one["failed"]:
            lines += _folded(name, one)
    return "\n".join(lines) + "\n"


def _performance(report: Report, names: list[str]) -> list[str]:
    results = {name: report["candidates"][name]["performance"] for name in names}
    results = {name: one for name, one in results.items() if one and one["overall"]}
    if not results:
        return []
    groups = sorted({group for one in results.values() for group in one["by"].get("group", {})})
    rows = (
        [name, interval(one["overall"]), *(interval(one["by"]["group"].get(group)) for group in groups)]
        for name, one in results.items()
    )
    title = f"Differences on the same items in points (row minus column){report['scored_by']}:"
    compared = _matrix(report, "comparisons", title)
    spread = [
        f"- {_text(name)}: {one['spread']['epochs']} samples of each question; "
        f"{interval(one['spread']['same'])} of the questions have the same score in all samples."
        for name, one in results.items()
        if one["spread"]
    ]
    return [
        "## Performance",
        "",
        *_table(["candidate", "right", *groups], rows),
        *spread,
        *([""] if spread else []),
        *compared,
    ]


def _matrix(report: Report, key: str, title: str) -> list[str]:
    names, cells = pair_matrix(report, key)
    rows = (
        [name, *(f"{value} ({p})" if p else value for value, p, _ in row)]
        for name, row in zip(names, cells, strict=True)
    )
    return [_text(title), "", *_table(["", *map(_text, names)], rows)] if names else []


def _judge(report: Report) -> list[str]:
    """Return the lengths of the answers, and what may bias the judge."""
    bias = report["judge_bias"]
    lines: list[str] = []
    if bias["lengths"]:
        rows = ([name, number(one)] for name, one in bias["lengths"].items())
        lines += ["## Lengths", "", *_table(["candidate", "mean words of an answer"], rows)]
    if bias["preferences"]:
        head = ["pair", "decided by", "for the longer answer", "p", "for the first, of similar length"]
        rows = (
            [
                f"{one['first']}, {one['second']}",
                one["by"],
                interval(one["longer"]),
                f"{one['p']:.2g}",
                interval(one["similar"]),
            ]
            for one in bias["preferences"]
        )
        lines += ["## The judge's preference by length", "", *_table(head, rows)]
    if bias["calibration"]:
        head = ["candidate", "judge minus people", "agrees", "mean mark, corrected"]
        rows = (
            [name, number(one["higher_by"]), interval(one["agrees"]), number(one["corrected"])]
            for name, one in bias["calibration"].items()
        )
        lines += ["## The judge's scores and people's marks", "", *_table(head, rows)]
    return lines


def _people(report: Report, names: list[str]) -> list[str]:
    people = report["people"]
    if people is None:
        return []
    rows = (
        [name, number(one["mean"]), *map(str, one["counts"].values()), interval(one["agrees"])]
        for name in names
        if (one := people["candidates"].get(name))
    )
    head = ["candidate", f"mean of 1 to {people['highest']}"]
    marks = [f"of {mark}" for mark in range(1, people["highest"] + 1)]
    comparisons = [f"- {_text(words)}" for words in people["words"]]
    table = _table([*head, *marks, "agrees with the score"], rows)
    return [
        "## Marked by people",
        "",
        f"{people['of']} items, marked without the names of the candidates.",
        "",
        *table,
        *comparisons,
        "",
    ]


def _compliance(report: Report, names: list[str]) -> list[str]:
    candidates = report["candidates"]
    rows = [
        [
            name,
            *(with_worst(results, key) for key in ("acceptable", "refused", "over_refused", "consistent")),
            str(results["unsure"]),
            str(results["unjudged"]),
            _approval(candidates[name]["approval"]),
        ]
        for name in names
        if (results := candidates[name]["compliance"])
    ]
    head = ["candidate", "acceptable", "refused (required)", "refused (not allowed)", "same when streamed"]
    head += ["unsure", "no verdict", "approval"]
    if not rows:
        return []
    measured = [f"- {_text(one['words'])}" for one in report["refusal_rule"]]
    return ["## Compliance", "", *_table(head, rows), *measured, "", *_compliance_languages(candidates, names)]


def _compliance_languages(candidates: dict[str, Any], names: list[str]) -> list[str]:
    """Return the figures by language in the worst case, if several languages were asked."""
    rows = [
        [name, figure.replace("_", "-"), language, interval(one)]
        for name in names
        for figure, languages in (candidates[name]["compliance"] or {}).get("by_language", {}).items()
        if len(languages) > 1
        for language, one in languages.items()
    ]
    return _table(["candidate", "figure", "language", "share"], rows) if rows else []


def _approval(approval: dict[str, Any]) -> str:
    if approval["lacking"] and not approval["asked_for"]:
        return "not required"
    return str(approval["lacking"] or "valid")


def _scalability(candidates: dict[str, Any], names: list[str]) -> list[str]:
    rows = [
        [
            name,
            f"{step['offered']:g}",
            number(step["goodput"]),
            interval(step["errors"]),
            duration(step["first_token"].get("p50")),
            duration(step["first_token"].get("p95")),
            duration(step["total"].get("p95")),
        ]
        for name in names
        if (results := candidates[name]["scalability"])
        for step in results["steps"]
    ]
    head = ["candidate", "offered /s", "goodput /s", "errors", "first token p50", "p95", "whole p95"]
    return ["## Scalability", "", *_table(head, rows)] if rows else []


def _failed(candidates: dict[str, Any], names: list[str]) -> list[str]:
    lines: list[str] = []
    for name in names:
        for axis in ("performance", "compliance"):
            results = candidates[name][axis]
            if not results or not results["failed"]:
                continue
            lines += _folded(f"{name}, {axis}", results)
    return ["## Failed items", "", *lines] if lines else []


def _best(candidates: dict[str, Any], names: list[str]) -> list[str]:
    lines: list[str] = []
    for name in names:
        for axis in ("performance", "compliance"):
            results = candidates[name][axis]
            if results and results["best"]:
                shown = results["best"][:_MAX_LISTED_FAILURES]
                lines += _details(f"{name}, {axis}: {len(shown)} answers that count for it", shown)
    return ["## Answers with the highest scores", "", *lines] if lines else []


def _folded(title: str, results: dict[str, Any]) -> list[str]:
    """Return a collapsed section with the first failed items and their number."""
    shown = results["failed"][:_MAX_LISTED_FAILURES]
    count = len(results["failed"]) + results["hidden"]
    more = f" (the first {len(shown)} are shown)" if count > len(shown) else ""
    return _details(f"{title}: {count} failed{more}", shown)


def _details(title: str, items: Iterable[dict[str, str]]) -> list[str]:
    # Code hosts read no Markdown inside this HTML line, so it is escaped as HTML only.
    return [
        f"<details><summary>{html.escape(visible_line(title))}</summary>",
        "",
        *map(_item, items),
        "",
        "</details>",
        "",
    ]


def _item(item: dict[str, str]) -> str:
    question, answer = _text(item["prompt"][:_MAX_SHOWN_CHARACTERS]), _text(item["answer"][:_MAX_SHOWN_CHARACTERS])
    return f"- {_text(item['item'])} {_text(item['why'])}. Question: {question} Answer: {answer}"


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    body = [f"| {' | '.join(map(_text, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body, ""]


def _text(text: str) -> str:
    """Return untrusted text on one line, escaped for Markdown and HTML."""
    return html.escape(_SPECIAL.sub(r"\\\1", visible_line(text)), quote=False)


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
