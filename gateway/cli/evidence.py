"""`gateway evidence`: write what an auditor asks for about one region and some months, into a new folder.

With `--for approval` it is what an operator files with an authority, made of the same evidence.

It reads the ledger, the history, the receipts and the audit trail, and changes nothing. Of the requests it writes only
numbers: nothing of a prompt, a user, a key or a pseudonym, and no request id.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway import __version__
from gateway.cli.approval_file import approval_document
from gateway.cli.evidence_configs import ActiveConfigs, RecordedChanges
from gateway.cli.terminal import read_report, settings_of, tell
from gateway.cli.usage import ledger_place
from gateway.files import path_exists
from gateway.model.refusal_reason import REASON_BY_CODE
from gateway.model.sampling import is_number_kept, number_of
from gateway.model.units import at_second
from gateway.operator_errors import CommandError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.signing import Signer
    from gateway.usage.reports import UsageReader

_now_s = time.time
_DAY_S = 86_400.0
_PLACES = "territory", "deployment", "site", "processes"
_SHOWN_EVERY = 20_000
_BAR = 30


def write_evidence(options: argparse.Namespace) -> int:
    """Write the folder. Raises CommandError, StateError."""
    from gateway.installation import duty_sums, usage_reader
    from gateway.usage.duty_counts import report_rows

    settings, out = settings_of(options), Path(options.out or f"{options.purpose}-{options.region}")
    if path_exists(out):
        raise CommandError(f"--out: {out} exists already: name a new folder")
    report = read_report(options.evaluation) if options.evaluation is not None else None
    signer, place = _signer(settings), ledger_place(options)
    with usage_reader(*place) as reader:
        this_month = reader.month(_now_s())
        options.last = options.last or this_month
        options.first = options.first or _next_month(f"{int(options.last[:4]) - 1}{options.last[4:]}")
        if options.last < options.first:
            raise CommandError(f"--to {options.last} is before --from {options.first}: exchange them")
        if options.last > reader.month(_now_s()):
            raise CommandError(f"--to {options.last} is in the future: name a month that has begun")
        period = _Period(options.first, options.last, reader)
        recorded = RecordedChanges.read(settings)
        configs = ActiveConfigs.read(recorded, settings, options.region, period.since_s, period.until_s)
        counted = _Counted(period, configs.names)
        counted.read_rows(reader)
    _tell_unreadable(options.region, configs, counted)
    receipts = _Receipts.read(settings, period, configs, counted)
    sums = duty_sums(*place, (options.first, options.last))
    document = {
        "object": "evidence",
        "gateway": __version__,
        "made_at": at_second(_now_s()),
        "region": options.region,
        "names": sorted(configs.names),
        "from": options.first,
        "to": options.last,
        "timezone": str(period.zone),
        "missing_months": counted.missing_months,
        "months_with_missing_receipts": receipts.missing_months,
        "prompts": counted.prompts(),
        **configs.document(_now_s()),
        "refusals": receipts.refusals(),
        "duties": [row for name in sorted(configs.names) for row in report_rows(sums, "month", name, 5)],
        "proof": {"receipts": receipts.document(), "audit": recorded.audit()},
    }
    if options.purpose == "approval":
        document = approval_document(document, configs, report)
    _write(out, document, signer)
    missing = f"; records of {', '.join(counted.missing_months)} are missing" if counted.missing_months else ""
    what = "file for an approval" if options.purpose == "approval" else "evidence"
    print(f"wrote {out} with the {what} of region {options.region}, {options.first} to {options.last}{missing}")
    return 0


def _tell_unreadable(region: str, configs: ActiveConfigs, counted: _Counted) -> None:
    """Name the versions whose rules are not in the evidence. Raises CommandError if nothing is known of the region."""
    told = [f"the rules of version {version} are not in it: {why}" for version, why in configs.unreadable.items()]
    for line in told:
        tell(f"{line}; write a secret as ${{NAME}} or ${{file:…}}, and the next is kept")
    if not configs.states and not counted.calls:
        raise CommandError(
            f"--region: the ledger has no call of {region!r} in these months, and no configuration of them can be read"
        )


class _Period:
    """Whole months in the time zone of the ledger."""

    def __init__(self, first: str, last: str, reader: UsageReader) -> None:
        self.zone = reader.zone
        self.deleted_through = reader.deleted_through
        self.first_day, self.last_day = f"{first}-01", f"{last}-31"
        self.months = [*_months(first, last)]
        after = _next_month(last)
        self.since_s, self.until_s = (
            datetime.fromisoformat(f"{month}-01").replace(tzinfo=self.zone).timestamp() for month in (first, after)
        )

    def share_until(self, at_s: float) -> float:
        """Return the share of the period that ended at this Unix time."""
        return (at_s - self.since_s) / (min(self.until_s, _now_s()) - self.since_s)


def _months(first: str, last: str) -> Iterator[str]:
    while first <= last:
        yield first
        first = _next_month(first)


def _next_month(month: str) -> str:
    return f"{date.fromisoformat(f'{month}-28') + timedelta(days=4):%Y-%m}"


class _Counted(msgspec.Struct):
    """The calls of the region by place, and the numbers of their requests (see `gateway.model.sampling`)."""

    period: _Period
    names: set[str]
    calls: Counter[tuple[str, ...]] = msgspec.field(default_factory=Counter)
    requests: array[int] = msgspec.field(default_factory=lambda: array("Q"))
    times_s: array[float] = msgspec.field(default_factory=lambda: array("d"))

    @property
    def missing_months(self) -> list[str]:
        """The months of which rows were deleted."""
        deleted = self.period.deleted_through
        return [month for month in self.period.months if deleted is not None and f"{month}-01" <= deleted]

    def read_rows(self, reader: UsageReader) -> None:
        """Add up the calls, then read the requests of the period once."""
        from gateway.usage.reports import UsageQuery

        days = self.period.first_day, self.period.last_day
        for group in reader.report(UsageQuery(("region", *_PLACES), *days)).groups:
            if group.key[0] in self.names:
                self.calls[tuple(part or "" for part in group.key[1:])] += group.all.calls
        for number, (time_ns, request, region) in enumerate(reader.requests(UsageQuery((), *days)), 1):
            at_s = time_ns / 1e9
            if number % _SHOWN_EVERY == 0:
                _show("the ledger", self.period.share_until(at_s))
            if request is not None and region in self.names:
                self.requests.append(number_of(request))
                self.times_s.append(at_s)
        _show("the ledger", 1.0, end="\n")

    def of_requests(self) -> Iterator[tuple[int, float]]:
        """Yield number and Unix time of the request of each call. A request may have several."""
        return zip(self.requests, self.times_s, strict=True)

    def prompts(self) -> list[dict[str, object]]:
        """Return the calls by place."""
        return [
            {**{name: part or None for name, part in zip(_PLACES, key, strict=True)}, "calls": calls}
            for key, calls in sorted(self.calls.items())
        ]


class _Receipts(msgspec.Struct):
    """The receipts of the region, compared with the rows of the ledger."""

    configs: ActiveConfigs
    """The configurations by whose rules receipts were kept."""
    oldest_s: float = math.inf
    """The Unix time of the oldest receipt of any region, which is infinite without receipts."""
    count: int = 0
    checked: int = 0
    """The receipts of all regions whose seals were checked."""
    changed: int = 0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    left_out: int = 0
    """The requests of the region whose receipt the sample left out, if they were successful."""
    missing_by_day: Counter[str] = msgspec.field(default_factory=Counter)
    """The requests whose receipt should be here and is not."""
    missing_months: list[str] = []
    """The months with requests more than a day before the oldest receipt."""

    @classmethod
    def read(cls, settings: Settings, period: _Period, configs: ActiveConfigs, counted: _Counted) -> _Receipts:
        """Read all receipts of the period once, and check the seal of each. Raises StateError."""
        from gateway.state.receipts import oldest_receipt_s, receipts_between

        found, directory = cls(configs), settings.state_dir
        if directory is not None and path_exists(directory / "receipts.db"):
            found.oldest_s = oldest_receipt_s(directory) or math.inf
        wanted = {number for number, at_s in counted.of_requests() if at_s >= found.oldest_s}
        if directory is not None and found.oldest_s < math.inf:
            # The receipt of a request is written when it ends, maybe in the next month.
            found._read(receipts_between(directory, period.since_s, period.until_s + _DAY_S), wanted, period)
        found._compare(wanted, period, counted)
        return found

    def _read(
        self, pairs: Iterable[tuple[str, Mapping[str, object] | None]], wanted: set[int], period: _Period
    ) -> None:
        """Count the receipts, and remove the numbers of their requests from `wanted`."""
        until = at_second(period.until_s)
        for request, receipt in pairs:
            wanted.discard(number_of(request))
            self.checked += 1
            if receipt is None:
                self.changed += 1
                continue
            at = str(receipt.get("at"))
            if self.checked % _SHOWN_EVERY == 0:
                _show("the receipts", period.share_until(datetime.fromisoformat(at).timestamp()))
            if receipt.get("region") in self.configs.names and at < until:
                self.count += 1
                if (code := receipt.get("code")) is not None:
                    self.reasons[str(REASON_BY_CODE.get(str(code), code))] += 1
        _show("the receipts", 1.0, end="\n")

    def _compare(self, wanted: set[int], period: _Period, counted: _Counted) -> None:
        """Note the requests without a receipt: by the sample's rule, before the oldest one, and for no such reason."""
        # Receipts are deleted by age. On the day before the oldest one, a request may have been running.
        deleted = (at_s for at_s in counted.times_s if at_s < self.oldest_s - _DAY_S)
        self.missing_months = sorted({f"{datetime.fromtimestamp(at_s, period.zone):%Y-%m}" for at_s in deleted})
        for number, at_s in counted.of_requests() if wanted else ():
            if number in wanted:
                wanted.discard(number)
                if is_number_kept(number, self.configs.least_sample(at_s)):
                    self.missing_by_day[f"{datetime.fromtimestamp(at_s, period.zone):%Y-%m-%d}"] += 1
                else:
                    self.left_out += 1

    def refusals(self) -> list[dict[str, object]]:
        """Return how many requests were not answered, by reason. Their receipts are always kept."""
        return [{"reason": reason, "requests": number} for reason, number in sorted(self.reasons.items())]

    def document(self) -> dict[str, object]:
        """Return what the receipts prove."""
        kept = [state.config.regions[name].keeps_receipts for state, name in self.configs.states]
        return {
            "kept": any(kept) if kept else self.count > 0,
            "transit": not all(kept),
            "instances": self.configs.instances,
            "oldest": at_second(self.oldest_s) if self.oldest_s < math.inf else None,
            "receipts": self.count,
            "seals_checked": self.checked,
            "changed": self.changed,
            "samples": sorted({share for _, _, share in self.configs.samples}),
            "requests_left_out_by_the_sample": self.left_out,
            "requests_without_receipt": self.missing_by_day.total(),
            "without_receipt_by_day": dict(sorted(self.missing_by_day.items())),
        }


def _signer(settings: Settings) -> Signer | None:
    """Return the key of receipts, before anything is read. Raises CommandError."""
    from gateway.signing import KeyUnusable, Signer

    if settings.receipt_key is None:
        tell("GATEWAY_RECEIPT_KEY is not set, so SHA256SUMS is not signed")
        return None
    try:
        return Signer.read(settings.receipt_key)
    except KeyUnusable as error:
        raise CommandError(f"GATEWAY_RECEIPT_KEY: {error}") from None


def _write(out: Path, document: Mapping[str, object], signer: Signer | None) -> None:
    """Write the files, their sums and the signature of the sums. Raises CommandError."""
    key = signer.public.text if signer is not None else None
    files = {
        "evidence.json": json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n",
        "index.html": page_of(document, key).encode(),
    }
    if signer is not None:
        files["key.pem"] = signer.public.pem
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()
    files["SHA256SUMS"] = sums
    if signer is not None:
        files["SHA256SUMS.sig"] = signer.sign_bytes(sums)
    try:
        out.mkdir(parents=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise CommandError(f"--out: {out} can't be written ({os.strerror(error.errno or 0)})") from None


def _show(what: str, share: float, end: str = "") -> None:
    """Show how much was read, on a terminal only."""
    if sys.stderr.isatty():
        done = round(_BAR * max(0.0, min(1.0, share)))
        print(f"\rreading {what:14}[{'#' * done}{' ' * (_BAR - done)}]", end=end, file=sys.stderr, flush=True)


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
