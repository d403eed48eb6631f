"""Drawn configurations: choices, routes, regions, approvals, consent, canaries, health and features.

A preference never adds a deployment and states the true reason, and the capabilities agree with the decision.
"""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.model.assistant import Assistant
from gateway.model.decision import Decision, Plan, Refusal, SkipReason, Step, Unavailable
from gateway.model.preference import Preference
from gateway.model.route import WeightedSet, deployments_of
from gateway.model.served import USES
from gateway.policy.canary_assignment import assign_variant, named_sticky_key
from gateway.policy.preference import decide_preferring
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS, plain_needs
from gateway.service.capabilities import capabilities, offer_of
from providers.matching.requirements import FEATURES, Requirements, requirements_of
from providers.openai_json.decode_request import decode_request
from tests.gateway.decisions import names, place_of
from tests.gateway.random_configs import fits
from tests.kit.configs import table_of

NAMES = ["a", "b", "c", "d"]
BOUNDARIES = {"cn": ["CN"], "eu": ["DE"], "default": ["*"]}
REASONS = {
    SkipReason.BOUNDARY: "boundary",
    SkipReason.AVAILABILITY: "availability",
    SkipReason.APPROVAL: "approval",
    SkipReason.CONSENT: "consent",
    SkipReason.CAPABILITY: "capability",
    SkipReason.EXCEPTED: "capability",
    SkipReason.REDACTION: "capability",
    SkipReason.HEALTH: "health",
    SkipReason.DISABLED: "health",
    SkipReason.ENDED: "health",
    SkipReason.WEIGHT: "health",
}
LASTING = {"route", "boundary", "availability", "approval"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
ASKED: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL]},
    "tool_choice_required": {"tools": [TOOL], "tool_choice": "required"},
    "vision": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    "n": {"n": 2},
    "logprobs": {"logprobs": True},
}


def needs_of(feature: str) -> Requirements:
    message = {"role": "user", "content": "hi"}
    return requirements_of(decode_request({"model": "m", "messages": [message], **ASKED[feature]}))


deployments = st.fixed_dictionaries(
    {
        "provider": st.just("openai-compatible"),
        "model": st.just("m"),
        "stores": st.sampled_from(["CN", "DE", "any"]),
        "available": st.sampled_from([["*"], ["*", "!JP"], ["CN", "DE"]]),
        "enabled": st.sampled_from([True, True, False]),
        "capabilities": st.lists(st.sampled_from(sorted({*ASKED} - {"tool_choice_required"})), unique=True, max_size=5),
        "structured_output": st.sampled_from(["native", "emulate"]),
    },
    optional={
        "redact": st.just("personal"),
        "approvals": st.just(
            [{"region": "default", "authority": "x", "kind": "registration", "number": "1", "model_name": "M"}]
        ),
        "consent": st.fixed_dictionaries(
            {
                "mode": st.just("per_request"),
                "recipient": st.just("R"),
                "on_missing": st.sampled_from(["refuse", "skip"]),
            }
        ),
    },
)


@st.composite
def routes(draw: st.DrawFn, names: list[str]) -> list[Any]:
    order = draw(st.permutations(names))
    if len(order) > 1 and draw(st.booleans()):
        shares = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(any))
        rest = order[2:]
        return draw(st.permutations([dict(zip(order, shares, strict=False)), *rest]))
    return list(order)


class Case:
    """A configuration, and a user in it."""

    def __init__(self, config: dict[str, Any], territory: str, intent: str, down: set[str], user: str) -> None:
        self.config = table_of(json.dumps(config))
        self.location = place_of(self.config, territory)
        self.assistant = self.config.assistants["assistant"].for_intent(intent)
        self.health = {name: Unavailable("down", 1.0) for name in down}
        self.user = user
        self._shown = f"{territory} {intent} {down} {user} {json.dumps(config)}"

    def __repr__(self) -> str:
        return self._shown

    def decided(self, assistant: Assistant, needs: Requirements = NO_NEEDS, *, well: bool = False) -> Decision:
        health = {} if well else self.health
        return assign_variant(decide(self.config, assistant, self.location, needs, health, 0.0), self.sticky)

    def sticky(self) -> bytes:
        return named_sticky_key(self.user)

    def preferring(
        self, choice: str, needs: Requirements = NO_NEEDS, *, well: bool = False
    ) -> tuple[Decision, Preference]:
        region = self.location.region
        assert region is not None
        decide_view = lambda view: self.decided(view, needs, well=well)  # noqa: E731
        return decide_preferring(self.assistant, region.name, choice, decide_view, self.sticky)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    made = {name: draw(deployments) for name in NAMES}
    for port, facts in enumerate(made.values(), 1):
        facts |= {"processes": facts["stores"], "endpoint": f"http://127.0.0.1:{port}/v1"}
    own: dict[str, Any] = {}
    for region, boundary in BOUNDARIES.items():
        inside = [name for name in NAMES if fits(made[name], boundary)]
        if inside:
            own[region] = draw(routes(inside))
    assume(own)
    if draw(st.booleans()) and "default" in own:
        own["default"] = {"talk": own["default"], "default": draw(routes(draw(st.permutations(NAMES))[:2]))}
    config = {
        "version": 1,
        "redactions": {"personal": {}},
        "assistants": {
            "assistant": {
                "intents": {"talk": {}},
                "routes": own,
                "choices": {
                    name: {
                        "deployments": draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)),
                        "title": {"en": name},
                    }
                    for name in ("x", "y")
                },
            }
        },
        "regions": {
            name: {
                "territories": boundary,
                "boundary": boundary,
                **({"approvals": "required"} if name == "default" and draw(st.booleans()) else {}),
            }
            for name, boundary in BOUNDARIES.items()
        },
        "deployments": made,
        "location": {"signals": ["edge_header"]},
    }
    return Case(
        config,
        draw(st.sampled_from(["CN", "DE", "JP", "US"])),
        draw(st.sampled_from(["talk", "default"])),
        draw(st.sets(st.sampled_from(NAMES), max_size=2)),
        str(draw(st.integers(0, 9))),
    )


@pytest.mark.slow("decides every combination")
@given(case=cases(), choice=st.sampled_from(["x", "y", "z"]), needs=st.sampled_from([NO_NEEDS, needs_of("vision")]))
def test_preference_changes_the_order_only_and_names_the_true_reason(
    case: Case, choice: str, needs: Requirements
) -> None:
    plain = case.decided(case.assistant, needs)
    decision, preference = case.preferring(choice, needs)
    region = case.location.region
    assert region is not None
    verdicts = {it.name: verdict for it, verdict in plain.verdicts}
    for name in names(decision):
        deployment = case.config.deployments[name]
        assert isinstance(verdicts[name], Step)
        assert deployment.residency.within(region.bounds_of(case.location.territory))
    if isinstance(plain.outcome, Plan) and isinstance(decision.outcome, Plan):
        members = [name for name in names(plain) if name in preference.deployments]
        others = [name for name in names(plain) if name not in preference.deployments]
        assert names(decision) == [*members, *others]
        unchanged = names(decision) == names(plain)
        assert decision.outcome.variant == (plain.outcome.variant if unchanged else None)
    elif isinstance(decision.outcome, Refusal) and isinstance(plain.outcome, Plan):
        assert decision.outcome.code == "consent_required"  # of a step that was moved to the front

    route = case.assistant.routes.get(region.name, ())
    if choice == "z" or not route:
        assert preference.reason == ("unknown" if choice == "z" else "route")
        return
    named = [it.name for it in deployments_of(route) if it.name in case.assistant.choices[choice].deployments]
    if not any(isinstance(step, WeightedSet) for step in route):
        first = verdicts[named[0]] if named else None
        expected = "route" if first is None else None if isinstance(first, Step) else REASONS[first.reason]
        assert preference.reason == expected
    elif preference.reason is None:
        assert (
            decision.outcome.code == "consent_required"
            if isinstance(decision.outcome, Refusal)
            else names(decision)[0] in named
        )
    elif preference.reason == "route":
        assert not set(named) & set(names(plain))
    else:
        whys = [REASONS[it.reason] for name in named if not isinstance(it := verdicts[name], Step)]
        assert preference.reason in whys


@pytest.mark.slow("decides every combination")
@given(case=cases())
def test_capabilities_agree_with_the_decisions(case: Case) -> None:
    plain = case.decided(case.assistant, well=True)
    here = case.location.region.name
    views = [case.assistant.for_use(use) for use in USES if here in case.assistant.routes_for(use)]
    verdicts = [it for view in views for _, it in case.decided(view, plain_needs(view), well=True).verdicts]
    answers = [it for it in verdicts if isinstance(it, Step) or it.reason is SkipReason.CONSENT]
    assert bool(offer_of(case.config, case.assistant, case.location, 0.0)) == bool(answers)
    if not plain.verdicts:
        return
    document: Any = capabilities(case.config, case.assistant, case.location, 0.0, None, case.user)
    possible = [it for _, it in plain.verdicts if isinstance(it, Step) or it.reason is SkipReason.CONSENT]
    for feature in ASKED:
        needs = needs_of(feature)
        assert feature in needs.features <= FEATURES
        asked = case.decided(case.assistant, needs, well=True)
        able = [it for _, it in asked.verdicts if isinstance(it, Step) or it.reason is SkipReason.CONSENT]
        assert (feature in document["supported"]) == bool(able), feature
        assert (feature in document["by_all"]) == (bool(able) and len(able) == len(possible)), feature
    reasons = {it.name: None if isinstance(why, Step) else REASONS[why.reason] for it, why in plain.verdicts}
    for choice in document["choices"]:
        decision, preference = case.preferring(choice["id"], well=True)
        why_not = preference.why_not_used(names(decision)[0]) if names(decision) else preference.reason
        if choice["available"]:
            assert why_not not in LASTING or {"health", "consent"} & {reasons.get(it) for it in preference.deployments}
        else:
            assert choice["reason"] == why_not
