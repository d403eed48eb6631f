"""Drawings of a report as SVG that stands in the page itself: no script, no font, nothing that is fetched.

Each is as wide as a phone and is shown at its own size, so that its letters are read alike on both.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

__all__ = ["COLOURS", "bars", "curves", "distributions", "over_time", "scatter"]

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
# One fewer than colours, so that the ninth candidate has not the look of the first; lines without marks are dashed.
_MARKS = "osD^vP*"
_DASHES = ("-", "--", ":", "-.")
_MOST_LETTERS = 30
_WIDTH, _LOW = 4.6, 1.0
_LOW_SHARE = 0.4
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
"""An estimate as the report has it: value, low, high (null: without end), of."""


def bars(title: str, values: Mapping[str, Interval], colours: Mapping[str, str], bound: float | None, unit: str) -> str:
    """One bar with its interval for each name; a line at the bound that is required."""

    def draw(axes: Any) -> None:
        for row, (name, one) in enumerate(values.items()):
            high = one["high"] if one["high"] is not None else one["value"]
            axes.barh(row, one["value"], height=0.55, color=colours[name], alpha=0.85)
            axes.plot([one["low"], high], [row, row], color="#222222", linewidth=1.4, solid_capstyle="butt")
        axes.set_yticks(range(len(values)), list(map(_short, values)))
        axes.set_ylim(max(len(values), 2) - 0.4, -0.6)  # the first one on top; one alone is no block
        reach = max((one["high"] or one["value"] for one in values.values()), default=1.0)
        low = unit == "%" and max(reach, bound or 0.0) < _LOW_SHARE
        axes.set_xlim(left=0, right=_LOW_SHARE if low else 1.0 if unit == "%" else None)
        if unit == "%":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        if bound is not None:
            axes.axvline(bound, color="#B00020", linewidth=1.4, linestyle="--")
        axes.grid(visible=False, axis="y")

    return _drawn(title, _LOW + 0.28 * len(values), draw)


def curves(title: str, lines: Mapping[str, Sequence[tuple[float, Interval]]], colours: Mapping[str, str]) -> str:
    """Goodput against offered load, with intervals, and the line on which nothing is lost."""

    def draw(axes: Any) -> None:
        most = max((offered for points in lines.values() for offered, _ in points), default=1.0)
        axes.plot([0, most], [0, most], color="#888888", linestyle=":", linewidth=1)
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
    """Which share of the requests had their first token within a time."""

    def draw(axes: Any) -> None:
        for index, (name, times) in enumerate(values.items()):
            ordered = sorted(times)
            shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
            dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
            axes.step(ordered, shares, where="post", color=colours[name], linestyle=dash, label=_short(name))
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
    """Quality against cost, with the interval of the quality."""

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
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
        _legend(axes)

    return _drawn(title, 3.4, draw)


def over_time(title: str, samples: Sequence[Sequence[float]]) -> str:
    """Memory in MB over the seconds of a run, from zero, so that flat looks flat."""

    def draw(axes: Any) -> None:
        axes.plot([at for at, _ in samples], [value for _, value in samples], color=COLOURS[0], linewidth=1.2)
        axes.set_ylim(bottom=0, top=1.25 * max(value for _, value in samples))
        axes.set_xlabel("seconds since the run began")
        axes.set_ylabel("MB")

    return _drawn(title, 2.2, draw)


def _short(name: str) -> str:
    """A name as it stands in a drawing, which a long one would leave no room for; the tables have it whole."""
    half = _MOST_LETTERS // 2
    return name if len(name) <= _MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _duration(value: float, _: object) -> str:
    return f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"


def _legend(axes: Any) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, frameon=False)


def _drawn(title: str, height: float, draw: Callable[[Any], None]) -> str:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):  # the ids of one drawing must not be those of another
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=10, loc="left")
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    text = written.getvalue()
    text = _GROUP_ID.sub("", _METADATA.sub("", text[text.index("<svg") :]))  # nothing refers to the names of groups
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
