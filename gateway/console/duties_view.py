"""The view Duties: how often a duty of time or crisis was met in a year, by region."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.console.admin_call import AdminFailed
from gateway.console.texts import _
from gateway.console.views import ConsoleView, ViewAnswer, Visit
from gateway.public_names import DUTIES, names_in

PATH = "/duties"
KINDS = names_in(DUTIES)


def headings(language: str) -> dict[str, str]:
    """Return the heading of the column of each kind."""
    titles = [title for row in DUTIES.values() for title in row["titles"][language]]
    return dict(zip(KINDS, titles, strict=True))


async def show(visit: Visit) -> ViewAnswer:
    """Show the counts of a year, the current one by default."""
    year = visit.query.get("year", "") or time.strftime("%Y", time.gmtime())
    values: dict[str, Any] = {"year": year, "kinds": headings(visit.texts.language), "rows": {}, "problem": ""}
    if re.fullmatch(r"[0-9]{4}", year) is None:
        return ViewAnswer("duties.html", values | {"problem": _("The year has four digits, such as 2027.")}, 400)
    try:
        query = {"from": f"{year}-01", "to": f"{year}-12", "by": "year"}
        report = await visit.admin.get("/v1/admin/duties", **query)
    except AdminFailed as failed:
        if failed.status != 409:
            raise
        return ViewAnswer("duties.html", values | {"problem": str(failed)})
    return ViewAnswer("duties.html", values | {"rows": by_region(report["rows"])})


def by_region(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the sum of each kind, by region."""
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        region = sums.setdefault(row["region"] or "", dict.fromkeys(KINDS, 0))
        region[row["kind"]] += row["count"]
    return dict(sorted(sums.items()))


VIEW = ConsoleView(PATH, _("Duties"), show)
