"""The view Spend: cost, tokens and calls by day and by client, project, model or region, as plot, table and CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from gateway.api.raw_responses import RawResponse
from gateway.console.admin_call import AdminFailed
from gateway.console.texts import _
from gateway.console.views import ConsoleView, ViewAnswer, Visit

PATH = "/spend"
GROUPS = {
    "client": _("Client"),
    "project": _("Project"),
    "model": _("Model"),
    "region": _("Region"),
    "provider": _("Provider"),
    "deployment": _("Deployment"),
}
_USER = {"user": _("End user (pseudonym)")}
_WIDTH, _HEIGHT, _TOP, _BOTTOM = 900, 160, 16, 20
_COLUMNS = ("calls", "input_tokens", "output_tokens", "total_tokens", "amount", "currency")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


async def show(visit: Visit) -> ViewAnswer:
    """Show what was spent from one day to another, this month by default."""
    groups = GROUPS | (_USER if visit.is_admin else {})
    by = visit.query.get("by", "client")
    by = by if by in groups else "client"
    client = visit.query.get("client", "")
    begin, end = visit.query.get("from", ""), visit.query.get("to", "")
    values: dict[str, Any] = {"groups": groups, "by": by, "client": client, "first": begin, "last": end}
    values |= {"problem": "", "rows": [], "days": [], "total": None, "zone": "", "plot": None, "previous": None}
    try:
        first, last, by_day = await _by_day(visit, begin, end, client)
        before = _before(first, last)
        reports = ((by, first, last), (by, *before))
        report, earlier = await asyncio.gather(*(_report(visit, *one, client) for one in reports))
    except ValueError:
        return ViewAnswer("spend.html", values | {"problem": _("From and To are days, such as 2026-11-01.")}, 400)
    except AdminFailed as failed:
        if failed.status != 409:
            raise
        return ViewAnswer("spend.html", values | {"problem": str(failed)})
    rows = _rows(by, report["groups"], earlier["groups"])
    if visit.query.get("format") == "csv":
        return _file(by, by_day["groups"], rows, f"spend-{first}-{last}.csv")
    days = by_day["groups"]
    values |= {"first": first.isoformat(), "last": last.isoformat(), "zone": by_day["timezone"], "previous": before}
    values |= {"days": days, "rows": rows, "total": report["total"], "plot": plot_of(days, first, last)}
    return ViewAnswer("spend.html", values)


async def _by_day(visit: Visit, begin: str, end: str, client: str) -> tuple[date, date, Any]:
    """Return the chosen days, or those of the present month, and their report by day. Raises ValueError."""
    if begin and end:
        first, last = date.fromisoformat(begin), date.fromisoformat(end)
        if first > last:
            raise ValueError("the days are in the wrong order")
        return first, last, await _report(visit, "day", first, last, client)
    report = await visit.admin.get("/v1/admin/usage", by="day", **({"client": client} if client else {}))
    first = date.fromisoformat(f"{report['month']}-01")
    return first, first.replace(day=monthrange(first.year, first.month)[1]), report


def _before(first: date, last: date) -> tuple[date, date]:
    """Return the days to compare with: the month before a whole month, else as many days before."""
    end = first - timedelta(days=1)
    if first.day == 1 and last == first.replace(day=monthrange(first.year, first.month)[1]):
        return end.replace(day=1), end
    return first - (last - first) - timedelta(days=1), end


async def _report(visit: Visit, by: str, first: date, last: date, client: str) -> Any:
    query = {"by": by, "from": first.isoformat(), "to": last.isoformat(), **({"client": client} if client else {})}
    return await visit.admin.get("/v1/admin/usage", **query)


def _rows(by: str, groups: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with their amounts before, the most expensive first."""
    before = {(one[by], one["currency"]): one["amount"] for one in earlier}
    rows = [{**one, "name": one[by], "before": before.get((one[by], one["currency"]))} for one in groups]
    return sorted(rows, key=lambda row: (-Decimal(row["amount"] or 0), -row["total_tokens"], str(row["name"])))


def plot_of(days: Sequence[Mapping[str, Any]], first: date, last: date) -> dict[str, Any] | None:
    """Return the bars of a plot of the days: of amounts, or of tokens if no amount is known or currencies differ."""
    currencies = {day["currency"] for day in days if day["amount"] is not None}
    measure = "amount" if len(currencies) == 1 else "total_tokens"
    values = [(str(day["day"]), Decimal(day[measure] or 0), Decimal(day["estimated"][measure] or 0)) for day in days]
    highest = max((value for _, value, _ in values), default=Decimal(0))
    if not highest:
        return None
    step = Decimal(_WIDTH) / max((last - first).days + 1, 7)
    bars = []
    for day, value, estimated in values:
        x = (date.fromisoformat(day) - first).days * step
        sizes = [value / highest * _HEIGHT, estimated / highest * _HEIGHT]
        height, part = (float(round(size, 1)) for size in sizes)
        bars.append({"day": day, "value": value, "x": float(round(x, 1)), "height": height, "estimated": part})
    return {
        "measure": measure,
        "currency": next(iter(currencies)) if len(currencies) == 1 else None,
        "bars": bars,
        "width": float(round(step * Decimal("0.8"), 1)),
        "box": (_WIDTH, _TOP + _HEIGHT + _BOTTOM),
        "base": _TOP + _HEIGHT,
        "highest": highest,
    }


def _file(by: str, days: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], name: str) -> ViewAnswer:
    """Return the table as CSV (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    estimated = [f"estimated_{column}" for column in _COLUMNS[:-1]]
    writer.writerow(["group", "name", *_COLUMNS, *estimated, "amount_before"])
    for group, names in ((by, [(row["name"], row) for row in rows]), ("day", [(day["day"], day) for day in days])):
        for label, row in names:
            part = [row["estimated"][column] for column in _COLUMNS[:-1]]
            cells = [group, label or "", *(row[column] for column in _COLUMNS), *part, row.get("before")]
            writer.writerow([_plain(cell) for cell in cells])
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return ViewAnswer(file=RawResponse(out.getvalue().encode(), 200, headers, "text/csv; charset=utf-8"))


def _plain(cell: object) -> object:
    """Return a cell that no spreadsheet runs as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell


VIEW = ConsoleView(PATH, _("Spend"), show)
