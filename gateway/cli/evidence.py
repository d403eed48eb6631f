"""`gateway evidence`: write what an auditor asks for about one region and some months, into a new folder.

It reads the ledger, the history, the receipts and the audit trail, and changes nothing. Of the requests it writes only
numbers: nothing of a prompt, a user, a key or a pseudonym, and no request id.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.cli.cell import opened_cell
from gateway.cli.evidence_page import page_of
from gateway.cli.plan import named_state, opened_history
from gateway.cli.terminal import settings_of
from gateway.cli.usage import ledger_place
from gateway.config.problems import ConfigRejected
from gateway.files import path_exists
from gateway.model.refusal_reason import REASON_BY_CODE
from gateway.model.sampling import is_number_kept, number_of
from gateway.operator_errors import CommandError, StateError

if TYPE_CHECKING:
    from gateway.changes.compile_job import CompiledState
    from gateway.model.config_version import ConfigVersion
    from gateway.settings import Settings
    from gateway.state.history import Activation
    from gateway.usage.reports import UsageReader

_now_s = time.time
_MOST_ACTIVATIONS = 10_000
_DAY_S = 86_400.0
_PLACES = "territory", "deployment", "site", "processes"
_SHOWN_EVERY = 20_000
_BAR = 30


def write_evidence(options: argparse.Namespace) -> int:
    """Write the folder. Raises CommandError, StateError."""
    from gateway.usage.installation import usage_reader

    settings, out = settings_of(options), Path(options.out)
    if path_exists(out):
        raise CommandError(f"--out: {out} exists already: name a new folder")
    if options.last < options.first:
        raise CommandError(f"--to {options.last} is before --from {options.first}: exchange them")
    place = ledger_place(options)
    with usage_reader(*place) as reader:
        if options.last > reader.month(_now_s()):
            raise CommandError(f"--to {options.last} is in the future: name a month that has begun")
        period = _Period(options.first, options.last, reader)
        configs = _Configurations.read(settings, options.region, period)
        counted = _Counted(period, configs.names)
        counted.read_rows(reader)
    receipts = _Receipts.read(settings, period, configs, counted)
    document = {
        "object": "evidence",
        "gateway": __version__,
        "made_at": _iso(_now_s()),
        "region": options.region,
        "names": sorted(configs.names),
        "from": options.first,
        "to": options.last,
        "timezone": str(period.zone),
        "missing_months": counted.missing_months,
        "prompts": counted.prompts(),
        **configs.document(),
        "refusals": receipts.refusals(),
        "duties": _duties(place, options, configs.names),
        "proof": {"receipts": receipts.document(), "audit": _audit(settings)},
    }
    _write(out, document, settings)
    missing = f"; records of {', '.join(counted.missing_months)} are missing" if counted.missing_months else ""
    print(f"wrote {out} with the evidence of region {options.region}, {options.first} to {options.last}{missing}")
    return 0


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


def _months(first: str, last: str) -> Iterator[str]:
    while first <= last:
        yield first
        first = _next_month(first)


def _next_month(month: str) -> str:
    return f"{date.fromisoformat(f'{month}-28') + timedelta(days=4):%Y-%m}"


@dataclass(slots=True)
class _Configurations:
    """The configurations that were active in the period, oldest first, and the last one of them.

    Attributes:
        names: All names that the region had in them.
        last: The last one, with the name of the region there.
    """

    names: set[str]
    items: list[dict[str, object]]
    last: tuple[CompiledState, str]

    @classmethod
    def read(cls, settings: Settings, region: str, period: _Period) -> _Configurations:
        """Compile each version once, without secrets. Raises CommandError if none has the region."""
        compiled: dict[str, CompiledState | str] = {}
        activations = _activations(settings)
        shown = [item for item in activations if period.since_s <= item.at_s < period.until_s]
        shown = [*[item for item in activations if item.at_s < period.since_s][-1:], *shown]
        for item in shown:
            if item.version not in compiled:
                compiled[item.version] = _compiled(item.version, settings)
        states = [state for item in shown if not isinstance(state := compiled[item.version], str)]
        if not states:
            raise CommandError("no configuration of these months can be read: the history has none with its text")
        names = _names_of(region, [state.config for state in states])
        if not names:
            known = sorted({name for state in states for name in state.config.regions})
            raise CommandError(
                f"--region: no configuration of these months has {region!r}; they have {', '.join(known)}"
            )
        items = [_configuration(item, compiled[item.version], names) for item in shown]
        last = [(state, name) for state in states for name in state.config.regions if name in names][-1]
        return cls(names, items, last)

    def document(self) -> dict[str, object]:
        """Return what the last configuration states: approvals, attestations, rules and vendors."""
        from gateway.changes.plan import deployments_by_assistant
        from gateway.service.explain import consent_of, facts_of

        state, name = self.last
        config = state.config
        asked = {it.name: it for steps in deployments_by_assistant(config, name).values() for it in steps}
        judges = config.moderation.get(name)
        asked |= {it.name: it for it in (*judges.input, *judges.output)} if judges is not None else {}
        written = state.written.values.get("deployments") if state.written is not None else None
        sections: Mapping[str, Any] = written if isinstance(written, dict) else {}
        return {
            "configurations": self.items,
            "approvals": [
                {
                    "deployment": it.name,
                    "authority": approval.authority,
                    "kind": approval.kind,
                    "number": approval.number,
                    "valid_until": str(approval.valid_until) if approval.valid_until is not None else None,
                }
                for it in asked.values()
                for approval in it.approvals
                if approval.region == name
            ],
            "attestations": [
                {"deployment": it, "attests": list(sections.get(it, {}).get("attests") or ())}
                for it in asked
                if sections.get(it, {}).get("attests")
            ],
            "consents": [
                {"deployment": it.name, **rule} for it in asked.values() if (rule := consent_of(it)) is not None
            ],
            "vendors": [
                {
                    "provider": it.provider,
                    "deployment": it.name,
                    "host": it.origin,
                    **{part: fact for part, fact in facts_of(it).items() if part not in ("places", "proxy")},
                    "proxy": it.proxy.origin if it.proxy is not None else None,
                    "sign_in_hosts": [place.host for place in it.sign_in.places] if it.sign_in is not None else [],
                }
                for it in asked.values()
            ],
        }


def _activations(settings: Settings) -> list[Activation]:
    """Return the activations of the cell, or of the state directory, oldest first. Raises CommandError."""
    from gateway.usage.postgres_record import CellRecord

    try:
        with opened_cell(settings) as database:
            if database is not None:
                return [item for _, item in CellRecord(database).activations(_MOST_ACTIVATIONS)][::-1]
        with opened_history(settings) as versions:
            return versions.activations(_MOST_ACTIVATIONS)[::-1]
    except StateError as error:
        raise CommandError(f"{error}; without a history, it is not known which configuration was active") from None


def _compiled(version: str, settings: Settings) -> CompiledState | str:
    """Return a version, or why it cannot be compiled any more."""
    try:
        return named_state(version, settings, secrets=False)
    except (CommandError, ConfigRejected) as error:
        return str(error)


def _names_of(region: str, configs: Iterable[ConfigVersion]) -> set[str]:
    """Return all names of the region: another name of the same territories in the next version is a new name of it."""
    versions = [*configs]
    names = {region} if any(region in config.regions for config in versions) else set()
    is_growing = bool(names)
    while is_growing:
        before = len(names)
        for one, other in (*pairwise(versions), *pairwise(versions[::-1])):
            for name in names & one.regions.keys() - other.regions.keys():
                places = one.regions[name].territories
                new = other.regions.keys() - one.regions.keys()
                names |= {it for it in new if other.regions[it].territories == places}
        is_growing = len(names) > before
    return names


def _configuration(item: Activation, state: CompiledState | str, names: set[str]) -> dict[str, object]:
    from gateway.changes.plan import deployments_by_assistant
    from gateway.config.check_report import region_lines

    lines: list[str] = []
    if isinstance(state, str):
        lines = [f"it can't be shown: {state}"]
    else:
        config = state.config
        for name in (it for it in config.regions if it in names):
            lines += [line.strip() for line in region_lines(config.regions[name], config)]
            for assistant, steps in deployments_by_assistant(config, name).items():
                where = (f"{it.name} (stores {it.places[0]}, processes {it.places[1]})" for it in steps)
                lines.append(f"prompts of {assistant} go to: {', '.join(where) or 'no deployment'}")
    return {
        "version": item.version,
        "at": _iso(item.at_s),
        "who": item.who or None,
        "cause": item.cause,
        "summary": item.summary,
        "lines": lines or ["the region did not exist"],
    }


@dataclass(slots=True)
class _Counted:
    """The calls of the region by place, and the numbers of their requests (see `gateway.model.sampling`)."""

    period: _Period
    names: set[str]
    calls: Counter[tuple[str, ...]] = field(default_factory=Counter)
    requests: array[int] = field(default_factory=lambda: array("Q"))
    times_s: array[float] = field(default_factory=lambda: array("d"))

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
                _show("the ledger", (at_s - self.period.since_s) / (self.period.until_s - self.period.since_s))
            if request is not None and region in self.names:
                self.requests.append(number_of(request))
                self.times_s.append(at_s)
        _show("the ledger", 1.0)

    def prompts(self) -> list[dict[str, object]]:
        """Return the calls by place."""
        return [
            {**{name: part or None for name, part in zip(_PLACES, key, strict=True)}, "calls": calls}
            for key, calls in sorted(self.calls.items())
        ]


@dataclass(slots=True)
class _Receipts:
    """The receipts of the region, compared with the rows of the ledger."""

    keeps: bool
    share: float
    oldest_s: float | None = None
    count: int = 0
    changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    missing: int = 0

    @classmethod
    def read(cls, settings: Settings, period: _Period, configs: _Configurations, counted: _Counted) -> _Receipts:
        """Read all receipts of the period once, and check the seal of each. Raises StateError."""
        from gateway.state.receipts import oldest_receipt_s, receipts_between

        state, name = configs.last
        found = cls(state.config.regions[name].keeps_receipts, state.config.receipts_sample)
        directory = settings.state_dir
        if directory is None or not path_exists(directory / "receipts.db"):
            return found
        found.oldest_s = oldest_receipt_s(directory)
        rows = zip(counted.requests, counted.times_s, strict=True)
        wanted = {number for number, at_s in rows if found.oldest_s is not None and at_s >= found.oldest_s}
        # The receipt of a request is written when it ends, maybe in the next month.
        pairs, until = receipts_between(directory, period.since_s, period.until_s + _DAY_S), _iso(period.until_s)
        for number, (request, receipt) in enumerate(pairs, 1):
            if number % _SHOWN_EVERY == 0:
                _show("the receipts", min(1.0, number / max(1, len(counted.requests))))
            wanted.discard(number_of(request))
            if receipt is None:
                found.changed += 1
            elif receipt.get("region") in configs.names and str(receipt.get("at")) < until:
                found.count += 1
                if (code := receipt.get("code")) is not None:
                    found.reasons[str(REASON_BY_CODE.get(str(code), code))] += 1
        _show("the receipts", 1.0)
        found.missing = sum(1 for number in wanted if is_number_kept(number, found.share))
        found.left_out = len(wanted) - found.missing
        return found

    def refusals(self) -> list[dict[str, object]]:
        """Return how many requests were not answered, by reason. Their receipts are always kept."""
        return [{"reason": reason, "requests": number} for reason, number in sorted(self.reasons.items())]

    def document(self) -> dict[str, object]:
        """Return what the receipts prove."""
        return {
            "kept": self.keeps,
            "oldest": _iso(self.oldest_s) if self.oldest_s is not None else None,
            "receipts": self.count,
            "changed": self.changed,
            "sample": self.share,
            "requests_left_out_by_the_sample": self.left_out,
            "requests_without_receipt": self.missing,
        }


def _duties(place: tuple[Any, Path], options: argparse.Namespace, names: set[str]) -> list[dict[str, Any]]:
    """Return the counts of duties in the period, of fewer than five only that they were."""
    from gateway.usage.duty_counts import report_rows
    from gateway.usage.installation import duty_sums

    sums = duty_sums(*place, (options.first, options.last))
    return [row for name in sorted(names) for row in report_rows(sums, "month", name, 5)]


def _audit(settings: Settings) -> dict[str, object]:
    """Return the result of checking the chain of the audit trail of this state directory."""
    from gateway.state.audit import verify_trail
    from gateway.state.history import has_history, open_history

    if settings.state_dir is None or not has_history(settings.state_dir):
        return {"lines": 0, "ok": None, "problem": "this state directory has no history"}
    with closing(open_history(settings.state_dir, make=False)) as versions:
        verdict = verify_trail(settings.state_dir, {"history.db": versions.audit_head()})
    problem = f"line {verdict.fault.line} {verdict.fault.reason}" if verdict.fault is not None else None
    return {"lines": verdict.lines, "ok": problem is None, "head": verdict.head.hash, "problem": problem}


def _write(out: Path, document: Mapping[str, object], settings: Settings) -> None:
    """Write the files, their sums and the signature of the sums. Raises CommandError."""
    from gateway.signing import KeyUnusable, Signer

    try:
        signer = Signer.read(settings.receipt_key) if settings.receipt_key is not None else None
    except KeyUnusable as error:
        raise CommandError(f"GATEWAY_RECEIPT_KEY: {error}") from None
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
    else:
        print("gateway: GATEWAY_RECEIPT_KEY is not set, so SHA256SUMS is not signed", file=sys.stderr)
    try:
        out.mkdir(parents=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise CommandError(f"--out: {out} can't be written ({os.strerror(error.errno or 0)})") from None


def _show(what: str, share: float) -> None:
    """Show how much was read, on a terminal only."""
    if sys.stderr.isatty():
        done = round(_BAR * max(0.0, min(1.0, share)))
        end = "\n" if share >= 1 else ""
        print(f"\rreading {what:14}[{'#' * done}{' ' * (_BAR - done)}]", end=end, file=sys.stderr, flush=True)


def _iso(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
