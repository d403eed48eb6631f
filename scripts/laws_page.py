"""Generate the page of laws from `gateway/config/data/laws.toml`."""

from __future__ import annotations

import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "gateway/config/data/laws.toml"
_HEAD = """\
# Law, setting and evidence

For each duty the setting that does it, what shows that it was done, and what of it a gateway cannot do. The law is
yours to read. The last column has the source and the day on which we read it; "unconfirmed": we read no primary source
until then.
"""
_COLUMNS = """
| duty | in force since | setting | evidence | not done here | source |
|---|---|---|---|---|---|
"""
_TAIL = """
## Not included

These also concern companions and minors. Summaries of them ask for what the rows of Washington and California ask for.

| law | why not | source |
|---|---|---|
"""
_DUTIES = """
## Duties that a gateway cannot do

- Age estimation, a parent's consent or account, and a call to a parent or an emergency contact: your login and your
  app do them.
- Publishing a protocol for a crisis, sending a report to an authority, and a clinical measure of risk. A webhook as
  [judge](../operate/moderation.md) is the place for a measure of yours.
- Watermarks in the words of a text: the model's vendor makes them.
- The filing itself with an authority: the gateway holds the number and its end.
"""


def laws_page() -> str:
    """Return the page in Markdown."""
    data = tomllib.loads(DATA.read_text("utf-8"))
    parts = [_HEAD]
    for place, rows in groupby(data["laws"], key=lambda row: row["place"]):
        parts += [f"\n## {place}\n", _COLUMNS, *map(_row, rows)]
    parts += [_TAIL, *(f"| {row['law']} | {row['words']} | none, {row['as_of']} |\n" for row in data["not_included"])]
    return "".join([*parts, _DUTIES])


def _row(row: dict[str, Any]) -> str:
    unconfirmed = f"{row['unconfirmed']} unconfirmed" if "unconfirmed" in row else ""
    source = "; ".join(filter(None, [row["source"], unconfirmed])) or "unconfirmed"
    since = f"{row['since']}, until {row['ends']}" if "ends" in row else str(row["since"])
    cells = [row["duty"], since, row["settings"], row["evidence"], row["not_here"], f"{source}, {row['as_of']}"]
    return f"| {' | '.join(cells)} |\n"
