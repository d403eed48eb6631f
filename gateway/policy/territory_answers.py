"""Find the deployments that answer in each territory, and compare two config versions, as traffic would be routed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.model.answer_change import AnswerChange, AnswerChangeKind, FirstAnswer
from gateway.model.approval import days_at
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, remember
from gateway.model.decision import Considered, Decision, Plan, RefusalCode, SkipReason
from gateway.model.location import Location
from gateway.model.served import INPUTS, USES, Use
from gateway.policy.location.resolution import locate
from gateway.policy.routing import decide
from providers.matching.requirements import Requirements
from providers.territories import parent, parts_of, territory_data
from providers.value import Value, replace

NO_NEEDS = Requirements(frozenset(), frozenset(), frozenset())
_REFUSED = "refused"
# The fields that decide about a territory, apart from the assistant's own routes.
_SHARED = ("regions", "region_by_territory", "default_region", "blocked", "cell", "location", "recipients", "demo")


def plain_needs(assistant: Assistant) -> Requirements:
    """Return the needs of a request of the assistant's use with nothing special in its body.

    A transcription has audio in every request, which the site of a deployment or its redaction may exclude.
    """
    features = NO_NEEDS.features if assistant.use == "chat" else INPUTS[assistant.use].media
    return NO_NEEDS if assistant.use == "chat" else replace(NO_NEEDS, features=features, use=assistant.use)


@dataclass(frozen=True, slots=True)
class TerritoryAnswer:
    """The deployments that answer in a territory, whose region is None if no region has it."""

    region: str | None
    deployments: tuple[str, ...]
    """The deployments in the order in which they would be asked."""
    refusal: str | None = None
    """The code of the refusal, if there is no answer."""
    why: str = field(default="", compare=False)
    """The skipped deployments with their reasons, or the message of the refusal, if there is no answer."""
    with_keys: tuple[str, ...] = field(default=(), compare=False)
    """The deployments that would be asked if every key were set."""
    shares: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    """The share of users (0 to 1) whom each deployment answers first."""
    skipped: tuple[Considered, ...] = field(default=(), compare=False)
    """The deployments that `why` names."""

    @property
    def first(self) -> str:
        """The deployment that is asked first, or `refused`."""
        return self.deployments[0] if self.deployments else _REFUSED

    @property
    def has_answer(self) -> bool:
        """Whether a user can get an answer. One who is asked for consent can."""
        return bool(self.deployments) or self.refusal == RefusalCode.CONSENT_REQUIRED


Answers = Mapping[str, TerritoryAnswer]
_Alike = Mapping[str, str]
"""Of each territory the first one between which and it the config makes no difference."""
_NOT_OFFERED = TerritoryAnswer(None, (), str(RefusalCode.REGION_BLOCKED), "there is no such assistant")


def territories_of(*configs: ConfigVersion) -> list[str]:
    """Return the ISO 3166-1 codes, and all parts of each country for a part of which a config has a rule."""
    ruled = [(*it.region_by_territory, *(it.blocked.included or ()), *it.blocked.excluded) for it in configs]
    countries = {code[:2] for codes in ruled for code in codes if parent(code)}
    parts = {part for country in countries for part in parts_of(country)}
    return sorted({*territory_data().names, *(parts - territory_data().aliases.keys())})


def _places_of(*configs: ConfigVersion) -> list[str]:
    """Return these territories, and each part of a country in which a vendor serves other users than in the rest."""
    deployments = [deployment for config in configs for deployment in config.deployments.values()]
    named = {code for it in deployments for code in (*(it.available.included or ()), *it.available.excluded)}
    return sorted({*territories_of(*configs), *filter(parent, named)})


def answers_of(config: ConfigVersion, assistant: Assistant, now_s: float, territories: Iterable[str]) -> Answers:
    """Return who answers in each of the territories. Deployments that are unavailable at the moment are included."""
    return {code: _answer(config, assistant, locate(config, code), code, now_s) for code in territories}


def _alike(codes: Iterable[str], *configs: ConfigVersion) -> _Alike:
    """Return these territories, each with the first one that is alike: of 250, about ten are not."""
    firsts, served = dict[Hashable, str](), {it.available for one in configs for it in one.deployments.values()}
    return {
        code: firsts.setdefault((*[it.contains(code) for it in served], *[_rules_of(it, code) for it in configs]), code)
        for code in codes
    }


def _rules_of(config: ConfigVersion, code: str) -> Hashable:
    location = locate(config, code)
    region = location.region or config.region_of(code)
    places = (region.name, region.required_places(code)) if region is not None else None
    return places, location.problem


def _answers_at(config: ConfigVersion, assistant: Assistant, now_s: float, alike: _Alike) -> Answers:
    """Return who answers in each of these territories. The words of an answer name the first one that is alike."""
    answers = answers_of(config, assistant, now_s, {*alike.values()})
    return {code: answers[first] for code, first in alike.items()}


def _answer(config: ConfigVersion, assistant: Assistant, place: Location, code: str, now_s: float) -> TerritoryAnswer:
    decision = decide(config, assistant, place, plain_needs(assistant), {}, now_s)
    outcome = decision.outcome
    region = place.region or config.region_of(code)
    name = region.name if region is not None else None
    considered = decision.considered
    with_keys = tuple(it.deployment for it in considered if it.reason in (None, SkipReason.CREDENTIAL))
    if isinstance(outcome, Plan):
        steps = tuple(step.deployment.name for step in outcome.steps)
        return TerritoryAnswer(name, steps, with_keys=with_keys, shares=_shares(decision, steps[0]))
    skipped = tuple(it for it in considered if it.reason is not None)
    why = "; ".join(f"{it.deployment}: {it.detail}" for it in skipped) or outcome.message
    return TerritoryAnswer(name, (), str(outcome.code), why, with_keys, skipped=skipped)


def _shares(decision: Decision, first: str) -> tuple[tuple[str, float], ...]:
    able = next((lane for lane in decision.lanes if lane.able), None)
    if able is None:
        return ((first, 1.0),)
    total = sum(able.weights[name] for name in able.able)
    return tuple((name, able.weights[name] / total) for name in able.able)


class RegionAnswer(Value, frozen=True):
    """The deployments that answer the users of an assistant in a region first."""

    assistant: str
    region: str
    shares: Mapping[str, float]
    """The share of users (0 to 1) of each deployment."""
    refusal: str | None = None
    """The code of the refusal, if there is no answer."""
    territories: tuple[str, ...] = ()
    """The territories that it is about. Empty for all that no other answer of the region names."""
    is_frozen: bool = False
    """Whether a rollback keeps the shares as they are."""

    def __str__(self) -> str:
        places = f" in {', '.join(self.territories)}" if self.territories else ""
        shares = ", ".join(f"{name} {share * 100:.3g}%" for name, share in self.shares.items())
        frozen = " (frozen until `gateway rollback --release` or another version)" if self.is_frozen else ""
        return f"{self.assistant}/{self.region}{places}: {shares or f'nobody (refused with {self.refusal})'}{frozen}"


def region_answers(config: ConfigVersion, now_s: float) -> tuple[RegionAnswer, ...]:
    """Return who answers in each region, as the config alone decides: deployments that are unavailable count too."""
    answers: tuple[RegionAnswer, ...] = remember(
        config, ("region_answers", days_at(now_s)), lambda: tuple(_region_answers(config, now_s))
    )
    return answers


def _region_answers(config: ConfigVersion, now_s: float) -> Iterator[RegionAnswer]:
    alike = _alike(territories_of(config), config)
    for assistant in config.own_assistants.values():
        # One without chats answers another use.
        seen = assistant.for_use(next((use for use in USES if assistant.routes_for(use)), "chat"))
        answers = _answers_at(config, seen, now_s, alike)
        for name in seen.routes:
            groups: dict[tuple[tuple[tuple[str, float], ...], str | None], list[str]] = {}
            for code, answer in answers.items():
                if answer.region == name:
                    groups.setdefault((answer.shares, answer.refusal), []).append(code)
            if not groups:
                answer = _answer(config, seen, Location(config.regions[name], None, "", ()), "", now_s)
                groups[answer.shares, answer.refusal] = []
            schedule = seen.schedules.get(name)
            is_frozen = schedule is not None and schedule.is_frozen
            largest, *others = sorted(groups.items(), key=lambda group: -len(group[1]))
            for (shares, refusal), codes in [(largest[0], []), *others]:
                yield RegionAnswer(
                    assistant.name, name, dict(shares), refusal, tuple(codes), is_frozen=is_frozen and not refusal
                )


def unanswered(config: ConfigVersion, assistant: Assistant, now_s: float) -> Mapping[str, list[str]]:
    """Return the territories of each region of the assistant's routes where no deployment may answer, by region.

    A missing key does not count, nor a blocked territory, a region that another cell serves, or a country whose part
    must be known.
    """
    elsewhere = (RefusalCode.WRONG_CELL, RefusalCode.REGION_UNKNOWN)
    codes: dict[str, list[str]] = {name: [] for name in assistant.routes}
    if not codes:
        return {}
    alike: _Alike = remember(config, ("unanswered",), lambda: _alike(_places_of(config), config))
    for code, answer in _answers_at(config, assistant, now_s, alike).items():
        is_meant = answer.region in codes and not config.blocked.contains(code)
        if is_meant and not answer.has_answer and not answer.with_keys and answer.refusal not in elsewhere:
            codes[str(answer.region)].append(code)
    return {name: listed for name, listed in codes.items() if listed}


def _unlocated(config: ConfigVersion, assistant: Assistant, now_s: float) -> Answers:
    """Return who answers the callers whose region is known and whose territory is not, by region."""
    assumed = config.location.rules.unknown
    bound = {client.region for client in config.clients.values()}
    return {
        name: _answer(config, assistant, Location(region, None, "", (), assumed=name not in bound), "", now_s)
        for name, region in config.regions.items()
        if name == assumed or name in bound
    }


def answer_changes(old: ConfigVersion, new: ConfigVersion, now_s: float) -> tuple[AnswerChange, ...]:
    """Return the territories that lose, gain or change their first answer, losses first, for each assistant and use.

    Where the old version has no answer only because keys are not set, such as in CI, all keys count as set.
    """
    if old.version == new.version:
        return ()
    before, after = old.own_assistants, new.own_assistants
    is_shared_equal = all(getattr(old, name) == getattr(new, name) for name in _SHARED)
    pairs = [
        (shown, use, was, will_be)
        for name in dict.fromkeys([*before, *after])
        for use in USES
        for shown, was, will_be in _views(name, use, before.get(name), after.get(name))
        if not (is_shared_equal and _routes_of(was) == _routes_of(will_be))
    ]
    if not pairs:
        return ()
    alike = _alike(_places_of(old, new), old, new)
    changes: list[AnswerChange] = []
    for name, use, was, will_be in pairs:
        changes += _compared(name, use, _table(old, was, now_s, alike), _table(new, will_be, now_s, alike))
    order: list[AnswerChangeKind] = ["lost", "gained", "changed"]
    return tuple(sorted(changes, key=lambda it: (order.index(it.kind), -len(it.territories))))


_Key = tuple[str, bool]
"""A territory; or a region and True, for its callers without a territory."""
_Table = Mapping[_Key, TerritoryAnswer]


def _table(config: ConfigVersion, assistant: Assistant | None, now_s: float, alike: _Alike) -> _Table:
    if assistant is None:
        return {}
    located = {(code, False): answer for code, answer in _answers_at(config, assistant, now_s, alike).items()}
    return located | {(name, True): answer for name, answer in _unlocated(config, assistant, now_s).items()}


def _for_use(assistant: Assistant | None, use: Use) -> Assistant | None:
    return assistant.for_use(use) if assistant is not None and assistant.routes_for(use) else None


def _views(
    name: str, use: Use, before: Assistant | None, after: Assistant | None
) -> Iterator[tuple[str, Assistant | None, Assistant | None]]:
    """Yield the assistant before and after for a use, and then for each intent, with the name that is shown."""
    yield name, _for_use(before, use), _for_use(after, use)
    if use == "chat":
        intents = [view.intent for it in (before, after) if it is not None for view in it.views[1:]]
        for intent in dict.fromkeys(intents):
            yield (
                f"{name} ({intent})",
                before.for_intent(intent) if before is not None and before.routes else None,
                after.for_intent(intent) if after is not None and after.routes else None,
            )


def _routes_of(assistant: Assistant | None) -> object:
    return (assistant.routes, assistant.barriers) if assistant is not None else None


def _compared(name: str, use: Use, before: _Table, after: _Table) -> Iterator[AnswerChange]:
    """Yield the changes of one assistant, with the territories in which the change is the same."""
    groups: dict[tuple[AnswerChangeKind, str | None, FirstAnswer, FirstAnswer, bool], list[_Key]] = {}
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key, _NOT_OFFERED), after.get(key, _NOT_OFFERED)
        is_unlocated = key[1]
        if is_unlocated and before and after and not (key in before and key in after):
            continue  # such callers exist in one version only
        if not old.has_answer and old.with_keys:
            old, new = _if_keys_were_set(old), _if_keys_were_set(new)
        first = _first_of(old), _first_of(new)
        if old.has_answer and not new.has_answer:
            groups.setdefault(("lost", old.region, *first, is_unlocated), []).append(key)
        elif first[0] != first[1] and new.has_answer:
            kind: AnswerChangeKind = "changed" if old.has_answer else "gained"
            groups.setdefault((kind, new.region, *first, is_unlocated), []).append(key)
    for (kind, region, first_before, first_after, is_unlocated), keys in groups.items():
        now = after.get(keys[0], _NOT_OFFERED)
        why, skipped = (now.why, now.skipped) if kind == "lost" else ("", ())
        territories = () if is_unlocated else tuple(code for code, _ in keys)
        yield AnswerChange(name, use, kind, region, first_before, first_after, why, territories, skipped)


def _if_keys_were_set(answer: TerritoryAnswer) -> TerritoryAnswer:
    if not answer.with_keys:
        return answer
    return TerritoryAnswer(answer.region, answer.with_keys)


def _first_of(answer: TerritoryAnswer) -> FirstAnswer:
    return FirstAnswer(answer.deployments[0]) if answer.deployments else FirstAnswer(refusal=answer.refusal)
