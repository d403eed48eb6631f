"""The evidence of a region as a page that prints well: one file without scripts, pictures or links to other files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
@page { size: A4; margin: 15mm; }
body { font: 11pt/1.4 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #111; }
h1 { font-size: 18pt; }
h2 { margin-top: 1.5em; border-bottom: 1px solid #999; }
h2, h3 { break-after: avoid; }
table { border-collapse: collapse; width: 100%; font-size: 9pt; }
th, td { border: 1px solid #bbb; padding: .2em .5em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
.missing { color: #b00020; font-weight: bold; }
pre { white-space: pre-wrap; background: #f4f4f4; padding: .6em; font-size: 9pt; }
@media print { body { margin: 0; padding: 0; max-width: none; } tr { break-inside: avoid; } }
"""
_CHECK = """sha256sum -c SHA256SUMS
openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
openssl pkey -pubin -in key.pem -outform DER | tail -c 32 | base64"""


def page_of(document: Mapping[str, Any], key: str | None) -> str:
    """Return the page. `key`: the public key of the signature, or None if nothing is signed."""
    names = document["names"]
    title = f"Evidence of region {document['region']}, {document['from']} to {document['to']}"
    receipts, audit = document["proof"]["receipts"], document["proof"]["audit"]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Made at {escape(document['made_at'])} by the gateway {escape(document['gateway'])}. "
        f"Months are those of the time zone {escape(document['timezone'])}.</p>",
        f"<p>The region had several names in this time: {escape(', '.join(names))}.</p>" if len(names) > 1 else "",
        *(
            f'<p class="missing">{month}: missing. Records of this month were deleted (usage.retention).</p>'
            for month in document["missing_months"]
        ),
        *(
            f'<p class="missing">{month}: receipts are missing. It has requests from before the oldest receipt, so '
            "requests that were not answered are not complete.</p>"
            for month in document["months_with_missing_receipts"]
        ),
        "<h2>Where prompts went</h2>",
        "<p>Calls to deployments, as the ledger has them. An empty territory was not known, or may not be kept.</p>",
        _table(("territory", "deployment", "site", "processes", "calls"), document["prompts"]),
        "<h2>Configurations that were active</h2>",
        *_configurations(document["configurations"], document["recorded_since"]),
        *(
            f'<p class="missing">Version {escape(version)} cannot be read: rules, approvals, attestations, consents, '
            "vendors and issuers below are without those of it.</p>"
            for version in document["configurations_not_read"]
        ),
        "<h2>Labels, moderation and duties</h2>",
        "<p>Of the last of these configurations that can be read.</p>",
        *(_rules(document["rules"]) if document["rules"] else ["<p>Not known: no configuration can be read.</p>"]),
        "<h2>Approvals</h2>",
        _table(
            ("region", "deployment", "authority", "kind", "number", "model_name", "valid_from", "valid_until"),
            document["approvals"],
        ),
        "<h2>Attestations of the operator</h2>",
        _table(("deployment", "attests"), document["attestations"]),
        "<h2>Consents</h2>",
        _table(("deployment", "mode", "on_missing", "recipient"), document["consents"]),
        "<h2>Requests that were not answered</h2>",
        *(
            ["<p>By reason, as the receipts have them.</p>", _table(("reason", "requests"), document["refusals"])]
            if receipts["oldest"]
            else ["<p>Not known, because there are no receipts here.</p>"]
        ),
        "<h2>Duties of time and crisis</h2>",
        _table(("month", "territory", "assistant", "age_band", "kind", "count"), document["duties"]),
        "<h2>Register of vendors</h2>",
        _table(
            ("provider", "deployment", "site", "stores", "processes", "facts", "other_hosts"),
            map(_vendor, document["vendors"]),
        ),
        "<h2>Issuers of clients' tokens</h2>",
        _table(("name", "issuer", "keys_from", "rules"), document["token_issuers"]),
        "<h2>Proof</h2>",
        *_receipts(receipts),
        f"<p>The audit trail has {audit['lines']:,} lines, and its chain is whole.</p>"
        if audit["ok"]
        else f'<p class="missing">The audit trail is not proven: {escape(str(audit["problem"]))}.</p>',
        _table(("instance", "lines", "head", "problem"), audit["trails"]),
        "<h2>Check this folder</h2>",
        _signature(key),
    ]
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    return f"{head}<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, parts)) + "\n</body></html>\n"


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    lines = ["".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in columns) for row in rows]
    if not lines:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


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


def _configurations(items: Sequence[Mapping[str, Any]], recorded_since: str | None) -> Iterator[str]:
    """Yield each configuration. One that was activated again has its text once."""
    if recorded_since is not None:
        yield f'<p class="missing">No configuration is recorded before {escape(recorded_since)}.</p>'
    shown: set[str] = set()
    for item in items:
        by = f", by {escape(item['who'])}" if item["who"] else ""
        at = f" at instance {escape(item['instance'])}" if item["instance"] else ""
        until = f" until {escape(item['until'])}" if item["until"] else ""
        yield f"<h3>Version {escape(item['version'])}</h3>"
        yield f"<p>Active from {escape(item['at'])}{until}{at}{by} ({escape(item['cause'])}).</p>"
        if item["version"] in shown:
            yield "<p>The same version as above.</p>"
        else:
            yield f"<pre>{escape(chr(10).join(item['lines']))}</pre>"
        shown.add(item["version"])


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


def _rules(rules: Mapping[str, Any]) -> Iterator[str]:
    yield (
        _table(("locale", "name", "text", "show", "signed"), rules["labels"])
        if rules["labels"]
        else "<p>Labels: none.</p>"
    )
    yield f"<p>Moderation: {escape(rules['moderation'] or 'none')}.</p>"
    yield from (f"<p>{escape(it['rule'].capitalize())}: {escape(it['text'])}.</p>" for it in rules["features"])


def _receipts(receipts: Mapping[str, Any]) -> Iterator[str]:
    if receipts["transit"]:
        when = "in a part of this time" if receipts["kept"] else "in this time"
        yield f"<p>The gateway was outside the boundary of the region {when} (transit), and kept no receipts of it.</p>"
    if not receipts["kept"]:
        return
    if receipts["oldest"] is None:
        yield '<p class="missing">There are no receipts in this state directory, so nothing was compared with them.</p>'
        return
    if receipts["instances"] > 1:
        yield (
            f"<p>The ledger is of {receipts['instances']} instances, and these receipts are of one of them: a receipt "
            "that is missing here may be in the state directory of another one.</p>"
        )
    left_out, missing = receipts["requests_left_out_by_the_sample"], receipts["requests_without_receipt"]
    kind = ' class="missing"' if receipts["changed"] or missing else ""
    samples = " or ".join(f"{share * 100:g}%" for share in receipts["samples"])
    yield (
        f"<p{kind}>{receipts['receipts']:,} receipts of the region. The seals of all {receipts['seals_checked']:,} "
        f"receipts of this time were checked, and {receipts['changed']:,} were changed. The oldest receipt is of "
        f"{escape(receipts['oldest'])}. Of the requests since then, {left_out:,} have no "
        f"receipt because of the sample ({samples} of the successful ones are kept), and "
        f"{missing:,} for no such reason.</p>"
    )
    if by_day := receipts["without_receipt_by_day"]:
        yield _table(("day", "requests"), [{"day": day, "requests": number} for day, number in by_day.items()])


def _signature(key: str | None) -> str:
    if key is None:
        return '<p class="missing">Nothing is signed: the gateway had no key for receipts.</p>'
    return (
        "<p>With coreutils and OpenSSL 3 alone. The last line must be the public key that the operator gave you in "
        f"another way: {escape(key.removeprefix('ed25519:'))}</p>\n<pre>{escape(_CHECK)}</pre>"
    )
