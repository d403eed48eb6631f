"""The evidence of a region as a page that prints well: one file without scripts, pictures or links to other files.

The file for an approval has a page of the same form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page_of(document: Mapping[str, Any], key: str | None) -> str:
    """Return the page. `key` is the public key of the signature, or None if nothing is signed."""
    shown = {"first": document["from"], "key": key.removeprefix("ed25519:") if key is not None else None}
    if document["object"] == "evidence.approval":
        return _rendered("approval_file.html", {**document, **shown, "lang": "zh"})
    receipts = document["proof"]["receipts"]
    by_day = receipts.get("without_receipt_by_day", {})
    shown |= {
        "lang": "en",
        "vendors": [*map(_vendor, document["vendors"])],
        "samples": " or ".join(f"{share * 100:g}%" for share in receipts.get("samples", ())),
        "without_receipt": [{"day": day, "requests": number} for day, number in by_day.items()],
    }
    return _rendered("evidence_page.html", {**document, **shown})


def _rendered(name: str, values: Mapping[str, Any]) -> str:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = _cell
    return environment.get_template(name).render(values)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
        case int():
            return f"{value:,}"
    return str(value)


def _vendor(vendor: Mapping[str, Any]) -> dict[str, str]:
    """Return what the page has of a vendor, in few columns, because paper is narrow."""
    source = f"{vendor['source']}, {vendor['as_of']}" if vendor["source"] else "stated by the operator"
    unconfirmed = f"; unconfirmed: {_cell(vendor['unconfirmed'])}" if vendor["unconfirmed"] else ""
    hosts = [f"proxy {vendor['proxy']}"] if vendor["proxy"] else []
    hosts += [f"sign-in {host}" for host in vendor["sign_in_hosts"]]
    return {
        **{name: vendor[name] for name in ("provider", "stores", "processes")},
        "deployment": f"{vendor['deployment']}: {vendor['model']}",
        "site": vendor["host"] if vendor["site"] == vendor["host"] else f"{vendor['site']}: {vendor['host']}",
        "facts": source + unconfirmed,
        "other_hosts": "; ".join(hosts),
    }
