"""Write the report of a run as one HTML page with charts."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from evaluation.report import FILTERS, TEMPLATES, change_of, pair_matrix
from evaluation.results import AXES, Report
from evaluation.visible_text import visible_text

# Okabe and Ito's palette, which is distinguishable with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
# One fewer than the colours, so that the ninth candidate differs from the first. Lines without marks use dashes.
_MARKS = "osD^vP*"
_DASHES = ("-", "--", ":", "-.")
_MAX_NAME_CHARACTERS = 30
_WIDTH_INCHES, _BASE_HEIGHT_INCHES = 4.6, 1.0
_LEAST_MARGIN = 0.01

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}

_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_GROUP_ID = re.compile(r'(?<=<g) id="[^"]*"')
Interval = Mapping[str, Any]
"""An estimate of the report: value, low, high (null if unbounded), of."""


def dots(title: str, values: Mapping[str, Interval], colours: Mapping[str, str], bound: float | None, unit: str) -> str:
    """Draw one dot with its interval for each name, and a line at the required bound.

    The axis covers the intervals and the bound only, so that differences are visible.
    """

    def draw(axes: Any) -> None:
        for row, (name, one) in enumerate(values.items()):
            low, high = _ends(one)
            axes.plot([low, high], [row, row], color=colours[name], linewidth=2.2, solid_capstyle="butt", alpha=0.6)
            axes.plot(one["value"], row, marker="o", markersize=6, color=colours[name])
        axes.set_yticks(range(len(values)), list(map(_short, values)))
        axes.set_ylim(max(len(values), 2) - 0.4, -0.6)  # the first one on top
        axes.set_xlim(*_reach(values.values(), bound, 1.0 if unit == "%" else None))
        if unit == "%":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g}%"))
        axes.locator_params(axis="x", nbins=6)
        if bound is not None:
            axes.axvline(bound, color="#B00020", linewidth=1.4, linestyle="--")
        axes.grid(visible=False, axis="y")

    return _drawn(title, _BASE_HEIGHT_INCHES + 0.28 * len(values), draw)


def _ends(one: Interval) -> tuple[float, float]:
    return one["low"], one["high"] if one["high"] is not None else one["value"]


def _reach(values: Iterable[Interval], bound: float | None, most: float | None) -> tuple[float, float]:
    """Return the range of an axis that shows all intervals and the bound, with a margin."""
    ends = [end for one in values for end in _ends(one)] + ([bound] if bound is not None else [])
    low, high = min(ends), max(ends)
    margin = max(0.08 * (high - low), _LEAST_MARGIN * max(abs(high), _LEAST_MARGIN))
    low, high = max(0.0, low - margin), high + margin
    return low, high if most is None else min(most + 0.01, high)


def curves(title: str, lines: Mapping[str, Sequence[tuple[float, Interval]]], colours: Mapping[str, str]) -> str:
    """Draw goodput against offered load, with intervals and the line of no loss."""

    def draw(axes: Any) -> None:
        highest = max((offered for points in lines.values() for offered, _ in points), default=1.0)
        axes.plot([0, highest], [0, highest], color="#888888", linestyle=":", linewidth=1)
        for index, (name, points) in enumerate(lines.items()):
            xs = [offered for offered, _ in points]
            ys = [one["value"] for _, one in points]
            spread = [
                [one["value"] - one["low"] for _, one in points],
                [one["high"] - one["value"] for _, one in points],
            ]
            mark = _MARKS[index % len(_MARKS)]
            axes.errorbar(
                xs, ys, yerr=spread, color=colours[name], marker=mark, markersize=4, capsize=2, label=_short(name)
            )
        axes.set_xlabel("offered requests per second")
        axes.set_ylabel("within the objectives, per second")
        axes.set_ylim(bottom=0)
        _legend(axes)

    return _drawn(title, 3.4, draw)


def distributions(title: str, values: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> str:
    """Draw the share of requests whose first token arrived within a time.

    The band is the 95 % confidence band of the whole line (Dvoretzky, Kiefer, Wolfowitz; Massart 1990).
    """

    def draw(axes: Any) -> None:
        for index, (name, times) in enumerate(values.items()):
            ordered = sorted(times)
            shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
            dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
            axes.step(ordered, shares, where="post", color=colours[name], linestyle=dash, label=_short(name))
            reach = math.sqrt(math.log(2 / 0.05) / (2 * len(ordered)))
            band = [[max(0.0, share - reach) for share in shares], [min(1.0, share + reach) for share in shares]]
            axes.fill_between(ordered, *band, step="post", color=colours[name], alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(_duration))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("time to first token")
        axes.set_ylabel("share of requests")
        _legend(axes)

    return _drawn(title, 3.4, draw)


def scatter(title: str, points: Mapping[str, tuple[float, Interval]], colours: Mapping[str, str], label: str) -> str:
    """Draw quality against cost, with the interval of the quality."""

    def draw(axes: Any) -> None:
        for index, (name, (cost, one)) in enumerate(points.items()):
            spread = [[one["value"] - one["low"]], [one["high"] - one["value"]]]
            mark = _MARKS[index % len(_MARKS)]
            axes.errorbar(
                [cost], [one["value"]], yerr=spread, color=colours[name], marker=mark, capsize=2, label=_short(name)
            )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlabel(label)
        axes.set_ylabel("right answers")
        axes.margins(x=0.15, y=0.15)
        axes.locator_params(axis="x", nbins=5)
        _legend(axes)

    return _drawn(title, 3.4, draw)


def over_time(title: str, samples: Sequence[Sequence[float]]) -> str:
    """Draw memory in MB over the seconds of a run. The axis starts at zero, so that small changes stay small."""

    def draw(axes: Any) -> None:
        axes.plot([at for at, _ in samples], [value for _, value in samples], color=COLOURS[0], linewidth=1.2)
        axes.set_ylim(bottom=0, top=1.25 * max(value for _, value in samples))
        axes.set_xlabel("seconds since the run began")
        axes.set_ylabel("MB")

    return _drawn(title, 2.2, draw)


def _short(name: str) -> str:
    """Shorten a name for a chart. The tables show the full name."""
    half = _MAX_NAME_CHARACTERS // 2
    return name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"


def _duration(value: float, _: object) -> str:
    return f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"


def _legend(axes: Any) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, frameon=False)


def _drawn(title: str, height: float, draw: Callable[[Any], None]) -> str:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):  # element ids must be unique in the page
        figure = Figure(figsize=(_WIDTH_INCHES, height))
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=10, loc="left")
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    text = written.getvalue()
    text = _GROUP_ID.sub("", _METADATA.sub("", text[text.index("<svg") :]))  # no element refers to group ids
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


_MIN_SAMPLES = 8


def html_page(report: Report, diff: str, drawings: Mapping[str, list[str]] | None = None) -> str:
    """Return the report as HTML.

    `diff` is the change of the config in the format of `diff -u`, or empty. `drawings` are the charts, if they are
    drawn already.
    """
    charts = drawings if drawings is not None else drawings_of(report)
    matrices = {key: pair_matrix(report, key) for key in ("totals", "comparisons")}
    return _page("report.html.j2", r=report, drawings=charts, diff=diff, change=change_of(report), matrices=matrices)


def shadow_html(report: Report) -> str:
    """Return the report of shadow traffic as HTML."""
    drawn: list[str] = []
    shadows: dict[str, Any] = report["shadows"]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(shadows)}
    figures = (
        ("answered", "Answered"),
        ("acceptable", "Acceptable"),
        ("refused", "Refused"),
        ("in_language", "In the language of the question"),
    )
    for key, title in figures:
        values = {name: one[key] for name, one in shadows.items() if one[key]}
        drawn += [dots(title, values, colours, None, "%")] if values else []
    return _page("shadow.html.j2", r=report, drawings=drawn)


def _page(name: str, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(name).render(**values)


def _visible(value: Any) -> Any:
    """Make control characters of inserted texts visible. Markup, such as a chart, is kept."""
    return visible_text(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def drawings_of(report: Report) -> dict[str, list[str]]:
    """Return the charts of each section. A section without measurements has none."""
    names = report["ranking"]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    one = {name: report["candidates"][name] for name in names}
    found: dict[str, list[str]] = {"overall": [], "performance": [], "compliance": [], "scalability": []}

    def add_dots(section: str, title: str, key: str, unit: str = "%", bound: float | None = None) -> None:
        # A figure with missing verdicts is drawn in its worst case.
        found_of = {name: figures for name in names if (figures := one[name][section])}
        worst = {name: figures["worst"] if section == "compliance" else {} for name, figures in found_of.items()}
        values = {name: worst[name].get(key) or figures[key] for name, figures in found_of.items()}
        values = {name: value for name, value in values.items() if value}
        if values:
            found[section].append(dots(title, values, colours, bound, unit))

    totals = {name: one[name]["score"]["total"] for name in names if one[name]["score"]["total"]}
    if totals:
        found["overall"].append(dots("Weighted score", totals, colours, None, "%"))
    for axis in AXES:
        intervals = {name: one[name]["score"].get("intervals", {}).get(axis) for name in names}
        values = {name: found_interval for name, found_interval in intervals.items() if found_interval}
        if values:
            found["overall"].append(dots(f"Axis: {axis}", values, colours, None, "%"))
    lacks_verdicts = any(each["performance"] and each["performance"]["missing"] for each in one.values())
    add_dots("performance", "Right answers", "worst" if lacks_verdicts else "overall")
    add_dots("compliance", "Acceptable answers", "acceptable", bound=0.90)
    add_dots("compliance", "Refused (required)", "refused", bound=0.95)
    add_dots("compliance", "Refused (not allowed)", "over_refused", bound=0.05)
    add_dots("scalability", "Highest goodput, requests per second", "goodput", unit="")
    steps = {name: one[name]["scalability"]["steps"] for name in names if one[name]["scalability"]}
    steps = {name: found_steps for name, found_steps in steps.items() if found_steps}
    if steps:
        lines = {name: [(step["offered"], step["goodput"]) for step in ones] for name, ones in steps.items()}
        found["scalability"].append(curves("Goodput against offered load", lines, colours))
        first = {name: ones[0]["histogram"] for name, ones in steps.items() if ones[0]["histogram"]}
        if first:
            found["scalability"].append(distributions("First token at the lowest rate", first, colours))
    memory = report.get("memory_mb", ())
    found["run"] = [over_time("Memory of this process", memory)] if len(memory) >= _MIN_SAMPLES else []
    found["performance"] += _cost_against_quality(one, colours, report["currency"])
    return found


def _cost_against_quality(one: dict[str, Any], colours: dict[str, str], currency: str) -> list[str]:
    """Draw the cost in money if every candidate has a price, else in answer tokens."""
    asked = {name: found for name, found in one.items() if found["performance"] and found["performance"]["overall"]}
    if not asked:
        return []
    priced = all(found["cost"] is not None for found in asked.values())
    points = {
        name: (found["cost"] if priced else found["tokens"]["completion"], found["performance"]["overall"])
        for name, found in asked.items()
    }
    label = f"cost of the answers, {currency}" if priced else "tokens of the answers (no prices are set)"
    return [scatter("Quality against cost", points, colours, label)]
