"""Checks that must pass before a change, and the rules of protected regions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gateway.changes.plan import ChangePlan, Check, deployments_by_assistant, deployments_prompted
from gateway.model.answer_change import AnswerChange
from gateway.model.config_version import ConfigVersion, Region
from gateway.policy.fence import lacking_approval
from gateway.policy.labels import TextMarks
from gateway.policy.location.claim import ClaimRules
from gateway.policy.territory_answers import answer_changes
from providers.value import replace

_MOST_NAMED = 40
_MOST_ACCEPTED = 8


def protected_changes(old: ConfigVersion, new: ConfigVersion, plan: ChangePlan) -> dict[str, str]:
    """Return each protected region of the old version that the plan changes, with the changes as text."""
    changes_by_region: dict[str, str] = {}
    for name, region in old.regions.items():
        if region.protected and (changes := _changes_in(old, new, region, plan)):
            changes_by_region[name] = changes
    return changes_by_region


def _changes_in(old: ConfigVersion, new: ConfigVersion, region: Region, plan: ChangePlan) -> str:
    reasons: list[str] = []
    if set(old.admin_keys) != set(new.admin_keys):
        reasons.append("admin_keys")
    if _territory_of(old) != _territory_of(new):
        reasons.append("where the gateway stands")
    for item in plan.regions:
        if item.name == region.name:
            reasons += [change.what for change in item.changes] or [item.kind]
    reasons += [f"the region of client {name}" for name in _moved_clients(old, new, region.name)]
    routes = [route for route in plan.routes if route.region == region.name]
    reasons += [f"the route of {route.assistant}" for route in routes if route.before != route.after]
    reasons += _changed_selection(old, new, region.name)
    assistants = (*old.assistants.values(), *new.assistants.values())
    asked = {deployment.name for assistant in assistants for deployment in deployments_prompted(assistant, region.name)}
    for config in (old, new):
        judges = config.moderation.get(region.name)
        asked |= {judge.name for judge in (*judges.input, *judges.output)} if judges is not None else set()
        here = config.regions.get(region.name)
        asked |= set(here.judges) if here is not None else set()
    reasons += [f"the deployment {name}" for name in sorted(_rewritten(asked, plan))]
    used = {it.sign_in for config in (old, new) for name in asked if (it := config.deployments.get(name)) is not None}
    names = {name for it in used if it is not None for name in (it.name, it.source) if name is not None}
    reasons += [f"the sign-in {name}" for name in sorted(names) if _is_among(f"sign_ins.{name}", plan.keys)]
    if _age_member(old) != _age_member(new):
        reasons.append("location.claim.age_band")
    if _has_marks(region) and (old.parts.of(TextMarks) != new.parts.of(TextMarks) or _is_among("marks", plan.keys)):
        reasons.append("marks")
    if _exporters_of(old, region.name) != _exporters_of(new, region.name):
        reasons.append("exporters")
    if region.keeps_receipts and old.receipts.sample != new.receipts.sample:
        reasons.append("receipts.sample")
    return ", ".join(dict.fromkeys(reasons))


def _changed_selection(old: ConfigVersion, new: ConfigVersion, region: str) -> Iterator[str]:
    """Yield what changes about the selection of a route of the region by intents and by users' choices."""
    for name, was in old.assistants.items():
        will_be = new.assistants.get(name)
        if name != was.name or will_be is None or region not in (*was.routes, *will_be.routes):
            continue
        if was.intents != will_be.intents:
            yield f"the intents of {name}"
        if was.choices != will_be.choices:
            yield f"the choices of {name}"
    was_judged, is_judged = old.moderation.get(region), new.moderation.get(region)
    if was_judged != is_judged:
        yield "moderation"
    before, after = ({it.name for it in config.clients.values() if "intent" in it.may_assert} for config in (old, new))
    if any(assistant.intents and region in assistant.routes for assistant in new.assistants.values()):
        yield from (f"may_assert of client {name}" for name in sorted(before ^ after))


def _moved_clients(old: ConfigVersion, new: ConfigVersion, region: str) -> list[str]:
    """Return the clients whose keys move into or out of the region.

    Clients that are new or removed do not count: a removed client is not answered any more.
    """
    named = {client.name: client for client in new.clients.values()}
    moved: set[str] = set()
    for key, before in old.clients.items():
        for now in (new.clients.get(key), named.get(before.name)):
            if now is not None and before.region != now.region and region in (before.region, now.region):
                moved.add(before.name)
    return sorted(moved)


def _age_member(config: ConfigVersion) -> str | None:
    """Return the member of claims that names the age band of a user."""
    claim = config.location.rules.of(ClaimRules)
    return claim.age_band if claim is not None else None


def _has_marks(region: Region) -> bool:
    """Return whether answers of the region have a signed mark."""
    return region.texts is not None and any(locale.marked for locale in region.texts.locales.values())


def _territory_of(config: ConfigVersion) -> str | None:
    """Return the territory of the gateway. It is a place of processing for each region that it serves."""
    return config.cell.territory if config.cell is not None else None


def _rewritten(names: Collection[str], plan: ChangePlan) -> set[str]:
    """Return the deployments that the plan changes, even if only a key of an account changes."""
    changed = {item.name for item in plan.deployments}
    return {name for name in names if name in changed or _is_among(f"deployments.{name}", plan.keys)}


def _is_among(path: str, keys: Collection[str]) -> bool:
    return any(key == path or key.startswith(f"{path}.") for key in keys)


def _exporters_of(config: ConfigVersion, region: str) -> list[tuple[object, ...]]:
    """Return the exporters of the region's requests, with their addresses and residencies."""
    known = config.regions.get(region)
    return [
        (exporter.name, exporter.permit.origin, exporter.path, exporter.residency)
        for exporter in config.exporters
        if exporter.may_export(known)
    ]


def compiles(errors: Sequence[str]) -> Check:
    """Return the check that the new config has no errors. Its findings are the errors."""
    return Check("compiles", not errors, tuple(errors))


def checks_of(
    old: ConfigVersion,
    new: ConfigVersion,
    warnings: Sequence[str],
    now_s: float,
    *,
    answers: Sequence[AnswerChange] | None = None,
    accepted: Collection[str] = (),
) -> tuple[Check, ...]:
    """Return the checks of a change between two versions that compile.

    `warnings` are those that the old version does not have, and `answers` the result of `answer_changes`, which is
    computed if it is None. `accepted` are the territories and regions whose users may lose their answer. `now_s` is
    Unix time, for approvals that end.
    """
    unapproved = tuple(_unapproved(old, new, now_s))
    return (
        _answered(answer_changes(old, new, now_s) if answers is None else answers, accepted),
        Check("approved", not unapproved, unapproved),
        Check("warnings", True, tuple(warnings)),
    )


def _answered(answers: Sequence[AnswerChange], accepted: Collection[str]) -> Check:
    """Return the check that no user loses an answer, except where the operator accepts it."""
    lost = [change for change in answers if change.kind == "lost"]
    refused = [rest for change in lost if (rest := _unaccepted(change, lost, accepted)) is not None]
    if not refused:
        return Check("answered", True, tuple(f"accepted: {change.summary}" for change in lost))
    return Check("answered", False, tuple(map(_finding, refused)))


def _unaccepted(change: AnswerChange, lost: Sequence[AnswerChange], accepted: Collection[str]) -> AnswerChange | None:
    """Return the part of a loss that is not accepted, or None."""
    if change.territories:
        rest = tuple(code for code in change.territories if not {code, code[:2]} & set(accepted))
        return replace(change, territories=rest) if rest else None
    # Acceptance for all territories of a region is meant for its other callers too.
    same = [other for other in lost if other.route == change.route and other.territories]
    is_accepted = bool(same) and all(_unaccepted(other, lost, accepted) is None for other in same)
    return None if is_accepted or change.region in accepted else change


def _finding(change: AnswerChange) -> str:
    where = change.territories[:_MOST_ACCEPTED]
    is_long = len(change.territories) > len(where)
    words = "'*'" if is_long else ",".join(where or (str(change.region),))
    who = change.who(_MOST_NAMED)
    lost = f"{change.route}: no deployment answers these users any more: {who} ({change.why})"
    return f"{lost}; `--accept-loss {words}` accepts this"


def _unapproved(old: ConfigVersion, new: ConfigVersion, now_s: float) -> Iterator[str]:
    """Yield each step without a valid approval that is new, or was approved before, where approvals are required."""
    for name, region in new.regions.items():
        known = old.regions.get(name)
        before = deployments_by_assistant(old, name) if known is not None else {}
        for assistant, steps in deployments_by_assistant(new, name).items():
            for step in steps:
                lacking = lacking_approval(region, step, now_s)
                was = [one for one in before.get(assistant, ()) if one.name == step.name]
                if lacking is None or (known and was and lacking_approval(known, was[0], now_s) is not None):
                    continue
                yield f"{assistant}/{name}: {step.name}: {lacking}"
