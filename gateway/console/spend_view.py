"""The view Spend: cost, tokens and calls by day and by client, assistant, model and so on, next to those before."""

from __future__ import annotations

import asyncio
import csv
import io
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from gateway.api.raw_responses import RawResponse
from gateway.console.admin_call import AdminFailed
from gateway.console.texts import WORDS, _
from gateway.console.views import ConsoleView, ViewAnswer, Visit
from gateway.usage.reports import zone_of

PATH = "/spend"
GROUPS: dict[str, str] = WORDS["groups"]
_USER = {"user": _("End user (pseudonym)")}
_WIDTH, _HEIGHT, _TOP, _BOTTOM = 900, 160, 16, 20
_INSIDE = {"client": "assistant", "assistant": "model"}
"""The groups that may be chosen by a click, and how their calls are grouped then."""
_NAMELESS = {"assistant": _("No assistant recorded")}
_COLUMNS = ("calls", "input_tokens", "output_tokens", "total_tokens", "amount", "currency")
_NO_CALLS: dict[str, Any] = {**dict.fromkeys(_COLUMNS[:4], 0), "amount": None, "vendor": {}}
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


async def show(visit: Visit) -> ViewAnswer:
    """Show what was spent from one day to another, this month by default."""
    chosen = {name: visit.query[name] for name in _INSIDE if visit.query.get(name)}
    groups = GROUPS | (_USER if visit.is_admin and "assistant" not in chosen else {})
    by = visit.query.get("by", "client")
    by = by if by in groups else "client"
    begin, end = visit.query.get("from", ""), visit.query.get("to", "")
    values: dict[str, Any] = {"groups": groups, "by": by, "chosen": chosen, "first": begin, "last": end}
    values |= {"problem": "", "rows": [], "by_day": [], "total": None, "plot": None}
    values |= {"inside": _INSIDE, "nameless": _NAMELESS.get(by, "–")}
    try:
        first, last, by_day = await _by_day(visit, begin, end, chosen)
        today = datetime.now(zone_of(by_day["timezone"])).date()
        before = days_before(first, last, today)
        reports = ((by, first, last), (by, *before))
        report, earlier = await asyncio.gather(*(_report(visit, *one, chosen) for one in reports))
    except (ValueError, OverflowError):
        return ViewAnswer("spend.html", values | {"problem": _("From and To are days, such as 2026-11-01.")}, 400)
    except AdminFailed as failed:
        if failed.status != 409:
            raise
        return ViewAnswer("spend.html", values | {"problem": str(failed)})
    rows = rows_of(by, report["groups"], earlier["groups"])
    if visit.query.get("format") == "csv":
        return _file(by, by_day["groups"], rows, f"spend-{first}-{last}.csv")
    days = by_day["groups"]
    total = {**report["total"], **_compared(report["total"], earlier["total"])}
    values |= {"first": first.isoformat(), "last": last.isoformat(), "zone": by_day["timezone"], "previous": before}
    values |= {"by_day": days, "rows": rows, "total": total, "plot": plot_of(days, first, last)}
    month_ended = today.replace(day=1) - timedelta(days=1)
    last_month = month_ended.replace(day=1), month_ended
    values |= {"largest": largest_change(rows, total["change"]), "last_month": last_month}
    # Amounts are shown with cents, or with six decimals if all are small. The file is exact.
    is_small = all(Decimal(one["amount"] or 0) < 1 for one in (report["total"], earlier["total"]))
    values |= {"rounded": partial(_rounded, Decimal("0.000001" if is_small else "0.01"))}
    return ViewAnswer("spend.html", values)


async def _by_day(visit: Visit, begin: str, end: str, chosen: Mapping[str, str]) -> tuple[date, date, Any]:
    """Return the chosen days, or the days of the current month, and their report by day. Raises ValueError."""
    if begin or end:
        first, last = date.fromisoformat(begin), date.fromisoformat(end)
        if first > last:
            raise ValueError("the days are in the wrong order")
        return first, last, await _report(visit, "day", first, last, chosen)
    report = await visit.admin.get("/v1/admin/usage", by="day", **chosen)
    first = date.fromisoformat(f"{report['month']}-01")
    return first, first.replace(day=monthrange(first.year, first.month)[1]), report


def days_before(first: date, last: date, today: date) -> tuple[date, date]:
    """Return the days to compare with: of the month before, or as many days before.

    If the days are not over, they are compared with the part of the days before that is as long as the part until now.
    """
    now = min(last, max(first, today))
    end = first - timedelta(days=1)
    if first.day == 1 and last == first.replace(day=monthrange(first.year, first.month)[1]):
        start = end.replace(day=1)
        return start, end if now == last else min(end, start + (now - first))
    start = first - (last - first) - timedelta(days=1)
    return start, start + (now - first)


async def _report(visit: Visit, by: str, first: date, last: date, chosen: Mapping[str, str]) -> Any:
    query = {"by": by, "from": first.isoformat(), "to": last.isoformat(), **chosen}
    return await visit.admin.get("/v1/admin/usage", **query)


def rows_of(by: str, groups: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each group with its previous days, the most expensive first. Some have calls only before."""
    before = {(one[by], one["currency"]): one for one in earlier}
    now = {key: {**_NO_CALLS, "currency": key[1], "estimated": _NO_CALLS} for key in before}
    now |= {(one[by], one["currency"]): dict(one) for one in groups}
    total = sum(Decimal(one["amount"] or 0) for one in groups) if len({key[1] for key in now}) == 1 else 0
    rows = [{**row, "name": key[0], "share": None, **_compared(row, before.get(key))} for key, row in now.items()]
    for row in rows if total else ():
        row["share"], row["estimated_share"] = (Decimal(one["amount"] or 0) / total for one in (row, row["estimated"]))
    return sorted(rows, key=lambda row: (-Decimal(row["amount"] or 0), -row["total_tokens"], str(row["name"])))


def _compared(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the sums before, and how much more was spent since. A change is None if a cost is not known."""
    with_calls = [one for one in (now, before) if one is not None and one["calls"]]
    currencies = {one["currency"] for one in with_calls}
    if len(currencies) != 1 or any(one["amount"] is None for one in with_calls):
        return {"before": before, "change": None}
    cost, cost_before = (Decimal(one["amount"]) if one in with_calls else Decimal(0) for one in (now, before))
    return {"before": before, "currency": currencies.pop(), "change": cost - cost_before, "cost_before": cost_before}


def largest_change(rows: Sequence[Mapping[str, Any]], change: Decimal | None) -> Mapping[str, Any] | None:
    """Return the group that contributed most to a change, or None if none did."""
    sign = 1 if change is None or change >= 0 else -1
    changed = [row for row in rows if row["change"] is not None and row["change"] * sign > 0]
    return max(changed, key=lambda row: abs(row["change"]), default=None)


def _rounded(to: Decimal, amount: str | Decimal | None) -> Decimal | None:
    return Decimal(amount).quantize(to) if amount is not None else None


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
        "levels": [(highest * part, float(_TOP + _HEIGHT * (1 - part))) for part in (1, Decimal("0.5"), 0)],
    }


def _file(by: str, days: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], name: str) -> ViewAnswer:
    """Return the table as CSV (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    estimated = [f"estimated_{column}" for column in _COLUMNS[:-1]]
    writer.writerow(["group", "name", *_COLUMNS, *estimated, "amount_before", "change"])
    for group, names in ((by, [(row["name"], row) for row in rows]), ("day", [(day["day"], day) for day in days])):
        for label, row in names:
            part = [row["estimated"][column] for column in _COLUMNS[:-1]]
            cells = [
                group,
                label or "",
                *(row[column] for column in _COLUMNS),
                *part,
                (row.get("before") or {}).get("amount"),
                row.get("change"),
            ]
            # No spreadsheet runs such a cell as a formula.
            plain = [f"'{it}" if isinstance(it, str) and it.startswith(_FORMULAS) else it for it in cells]
            writer.writerow(plain)
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return ViewAnswer(file=RawResponse(out.getvalue().encode(), 200, headers, "text/csv; charset=utf-8"))


VIEW = ConsoleView(PATH, _("Spend"), show)
