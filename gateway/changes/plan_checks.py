"""Checks that must pass before a change, and the rules of protected regions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from gateway.changes.plan import ChangePlan, Check, deployments_by_assistant, deployments_prompted
from gateway.model.answer_change import AnswerChange
from gateway.model.config_version import ConfigVersion, Region
from gateway.policy.fence import lacking_approval
from gateway.policy.location.claim import ClaimRules
from gateway.policy.territory_answers import answer_changes
from providers.value import Value, replace

_MOST_NAMED = 40
_MOST_ACCEPTED = 8


class _RegionChange(Value, frozen=True):
    """The checks of a change for one protected region of the old version."""

    old: ConfigVersion
    new: ConfigVersion
    region: Region
    plan: ChangePlan


_Part = Callable[[_RegionChange], Iterable[str]]
"""Returns the words for each change of one part of a version that a region depends on."""


def protected_changes(old: ConfigVersion, new: ConfigVersion, plan: ChangePlan) -> dict[str, str]:
    """Return each protected region of the old version that the plan changes, with the changes as text."""
    changes_by_region: dict[str, str] = {}
    for name, region in old.regions.items():
        if region.protected:
            change = _RegionChange(old, new, region, plan)
            if words := dict.fromkeys(words for part in _PARTS for words in part(change)):
                changes_by_region[name] = ", ".join(words)
    return changes_by_region


def _value(words: str, value: Callable[[ConfigVersion, Region], object]) -> _Part:
    return lambda change: [words] if value(change.old, change.region) != value(change.new, change.region) else []


def _own_changes(change: _RegionChange) -> Iterator[str]:
    for item in change.plan.regions:
        if item.name == change.region.name:
            yield from [it.what for it in item.changes] or [item.kind]


def _moved_clients(change: _RegionChange) -> list[str]:
    """Return the clients, neither new nor removed, whose keys move into or out of the region."""
    region, now_by_key = change.region.name, change.new.clients
    named = {client.name: client for client in now_by_key.values()}
    moved: set[str] = set()
    for key, before in change.old.clients.items():
        for now in (now_by_key.get(key), named.get(before.name)):
            if now is not None and before.region != now.region and region in (before.region, now.region):
                moved.add(before.name)
    return [f"the region of client {name}" for name in sorted(moved)]


def _selection(change: _RegionChange) -> Iterator[str]:
    """Yield what changes about the selection of a route of the region by intents and by users' choices."""
    for name, was in change.old.assistants.items():
        will_be = change.new.assistants.get(name)
        if name != was.name or will_be is None or change.region.name not in (*was.routes, *will_be.routes):
            continue
        if was.intents != will_be.intents:
            yield f"the intents of {name}"
        if was.choices != will_be.choices:
            yield f"the choices of {name}"


def _intents_of_clients(change: _RegionChange) -> Iterator[str]:
    """Yield the clients that may name an intent, or may not any more, if a route of the region depends on it."""
    versions = (change.old, change.new)
    before, after = ({it.name for it in version.clients.values() if "intent" in it.may_assert} for version in versions)
    if any(it.intents and change.region.name in it.routes for it in change.new.assistants.values()):
        yield from (f"may_assert of client {name}" for name in sorted(before ^ after))


def _deployments(change: _RegionChange) -> Iterator[str]:
    """Yield the deployments that get prompts of the region, and their sign-ins, even if only a key of them changes."""
    name, versions, keys = change.region.name, (change.old, change.new), change.plan.keys
    asked: set[str] = set()
    for version in versions:
        for assistant in version.assistants.values():
            asked |= {deployment.name for deployment in deployments_prompted(assistant, name)}
        judges = version.moderation.get(name)
        asked |= {judge.name for judge in (*judges.input, *judges.output)} if judges is not None else set()
        here = version.regions.get(name)
        asked |= set(here.judges) if here is not None else set()
    changed = {
        item.name for item in change.plan.deployments if not item.changes or not all(it.informs for it in item.changes)
    }
    for deployment in sorted(asked):
        if deployment in changed or _is_among(f"deployments.{deployment}", keys):
            yield f"the deployment {deployment}"
    used = (it.sign_in for version in versions for item in asked if (it := version.deployments.get(item)) is not None)
    sign_ins = {
        it for sign_in in used if sign_in is not None for it in (sign_in.name, sign_in.source) if it is not None
    }
    yield from (f"the sign-in {it}" for it in sorted(sign_ins) if _is_among(f"sign_ins.{it}", keys))


def _age_member(config: ConfigVersion, _: Region) -> str | None:
    """Return the member of claims that names the age band of a user."""
    claim = config.location.rules.of(ClaimRules)
    return claim.age_band if claim is not None else None


def _proof(change: _RegionChange) -> Iterator[str]:
    """Yield the section that proves answers of the region, if its keys or its rules change."""
    proof = change.region.texts.default_locale.proof if change.region.texts is not None else None
    if proof is None:
        return
    before, now = ([it for it in one.parts.every if it.plan_name == proof.section] for one in (change.old, change.new))
    if before != now or _is_among(proof.section, change.plan.keys):
        yield proof.section


def _exporters_of(config: ConfigVersion, region: Region) -> list[tuple[object, ...]]:
    """Return the exporters of the region's requests, with their addresses and residencies."""
    known = config.regions.get(region.name)
    return [
        (exporter.name, exporter.permit.origin, exporter.path, exporter.residency)
        for exporter in config.exporters
        if exporter.may_export(known)
    ]


_PARTS: tuple[_Part, ...] = (
    _value("admin_keys", lambda config, _: set(config.admin_keys)),
    # The territory of the gateway is a place of processing for each region that it serves.
    _value("where the gateway stands", lambda config, _: config.cell.territory if config.cell is not None else None),
    _own_changes,
    _moved_clients,
    lambda change: (
        f"the route of {it.assistant}"
        for it in change.plan.routes
        if it.region == change.region.name and it.before != it.after
    ),
    _selection,
    _value("moderation", lambda config, region: config.moderation.get(region.name)),
    _intents_of_clients,
    _deployments,
    _value("location.claim.age_band", _age_member),
    # The keys of `location` decide which region a caller is in.
    lambda change: (key for key in change.plan.keys if key.partition(".")[0] == "location"),
    _proof,
    _value("exporters", _exporters_of),
    _value("receipts.sample", lambda config, region: config.receipts.sample if region.keeps_receipts else None),
)


def _is_among(path: str, keys: Collection[str]) -> bool:
    return any(key == path or key.startswith(f"{path}.") for key in keys)


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
