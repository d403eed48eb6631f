"""Compile `quotas`, and check the deployments that name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.field_types import names_in
from gateway.config.problems import KeyPath, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.schema.usage import QuotaSection
from gateway.config.usage import check_currency
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.budget import Money, Window
from gateway.model.config_version import ConfigVersion
from gateway.model.quota import MOST_QUOTAS, Keep, Quota, QuotaEntry, QuotaUnit
from gateway.model.section import members_of

_LEAST_BURST_S, _MOST_BURST_S = 1.0, 60.0


def compile_quotas(draft: Draft) -> dict[str, Quota]:
    """Return the quotas of a draft by name."""
    usage = draft.config.usage
    currency = usage.currency if usage is not None else None
    timezone = (usage.timezone if usage is not None else None) or "UTC"
    compiled: dict[str, Quota] = {}
    for name, section in draft.config.quotas.items():
        path: KeyPath = ("quotas", name)
        entries = tuple(_entries(draft, path, section, currency))
        has_error = any(problem.path[:2] == path for problem in draft.problems)
        if not entries and not has_error and draft.is_whole("quotas", name):
            hint = "give it `requests`, `tokens` or another limit, such as requests: {minute: 500}"
            draft.error(path, "sets no limit", hint)
        check_keep(draft, path, section.keep)
        if not _LEAST_BURST_S <= section.burst <= _MOST_BURST_S:
            draft.error((*path, "burst"), "must be a time from 1s to 60s", "write burst: 10s")
        compiled[name] = Quota(
            name,
            entries,
            section.timezone or timezone,
            section.keep,
            section.burst,
            section.count_cached,
            section.reserve,
            section.output_weight,
            currency or "",
        )
    return compiled


def _entries(draft: Draft, path: KeyPath, section: QuotaSection, currency: str | None) -> Iterator[QuotaEntry]:
    for unit in QuotaUnit:
        if (limits := getattr(section, unit)) is None:
            continue
        for window, limit in members_of(limits).items():
            at: KeyPath = (*path, str(unit), window)
            if isinstance(limit, Money):
                check_currency(draft, at, limit, currency)
                limit = limit.nano
                if not limit:
                    draft.error(at, "must be more than 0", "remove it, or disable its deployments")
            if limit:
                yield QuotaEntry(unit, Window(window), limit)


def check_keep(findings: Findings, path: KeyPath, keep: Keep) -> None:
    """Report a `keep` by which clients with a low priority have more than normal ones."""
    if keep.low is not None and keep.low < (keep.normal or 0):
        message = f"is below that of `normal` ({keep.normal}%), so low clients would have more than normal ones"
        findings.error((*path, "keep", "low"), message, f"write low: {keep.normal}% or more")


def quotas_of(
    draft: Draft, path: KeyPath, section: DeploymentSection, quotas: Mapping[str, Quota]
) -> tuple[Quota, ...]:
    """Return the quotas that a deployment names."""
    names, found = section.quota or [], list[Quota]()
    for index, name in enumerate(names):
        at: KeyPath = (*path, "quota") if len(names) == 1 else (*path, "quota", index)
        if name in names[:index]:
            draft.error(at, f"{quoted(name)} is listed twice", "remove one")
        elif index >= MOST_QUOTAS:
            draft.error(at, f"a deployment has at most {MOST_QUOTAS} quotas", "remove one")
        elif check_reference(draft, at, "quotas", name, none="define it in `quotas`") and name in quotas:
            found.append(quotas[name])
    return tuple(found)


def check_quotas(draft: Draft, config: ConfigVersion) -> None:
    """Warn of a quota that limits nothing, and of a route that ends with a group that has no way out."""
    named = {name for one in draft.config.deployments.values() for name in one.quota or ()}
    for name in config.quotas:
        if name not in named and draft.is_whole("deployments"):
            draft.warn(("quotas", name), "limits nothing: no deployment names it", f"write quota: {name} at one")
    full = {name for name, one in config.deployments.items() if one.quotas}
    for name, assistant in draft.config.assistants.items():
        for region, by_intent in assistant.routes.items():
            for intent, steps in by_intent.items():
                members = names_in(steps[-1]) if steps else []
                if len(members) > 1 and not full.isdisjoint(members):
                    path: KeyPath = ("assistants", name, "routes", region, intent, len(steps) - 1)
                    message = "a user whose member has no room in its quota gets no answer: no step comes after it"
                    draft.warn(path, message, f"add its members as steps of their own: {', '.join(members)}")
