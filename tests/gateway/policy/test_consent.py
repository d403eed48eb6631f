"""Consent: the deployments that a consent permits, the effect of a missing consent, and the scope of a token."""

from dataclasses import fields, replace
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.config_version import ConfigVersion
from gateway.model.consent import NO_CONSENT, ConsentKind, Consents, ConsentStatement
from gateway.model.decision import Decision, Plan, Refusal, RefusalCode, SkipReason, Unavailable
from gateway.model.route import WeightedSet
from gateway.model.served import ServedRequest
from gateway.policy.consent import FORM, LIFETIME_S, Consenting, standing_consents
from gateway.policy.routing import decide
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    NamedTool,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.inputs.embeddings.values import EmbeddingRequest
from providers.matching.requirements import Requirements, requirements_of
from providers.moderations.values import ModerationRequest
from providers.served import InputRequest
from providers.value import replace as change
from tests.gateway.decisions import place_of, planned
from tests.kit.case_files import cases
from tests.kit.configs import Config, table_of

NOTHING: frozenset[str] = frozenset()
NEEDS = Requirements(NOTHING, NOTHING, NOTHING)
NOW = 1_800_000_000.0
KEY = b"k" * 32
REFUSE_EACH = "{mode: per_request, recipient: OpenAI}"
SKIP_EACH = "{mode: per_request, on_missing: skip, recipient: Skipped}"
REFUSE_STANDING = "{mode: standing, recipient: OpenAI}"
SKIP_STANDING = "{mode: standing, on_missing: skip, recipient: Skipped}"


def table(*rules: str, more: str = "{}") -> ConfigVersion:
    """Compile a route of d0, d1, … in that order, each with its rule; "" asks for nothing.

    Args:
        rules: the section `consent` of each deployment, as YAML.
        more: further keys of every deployment, as YAML.
    """
    facts = {"provider": "openai-compatible", "stores": "DE", "processes": "DE", **Config.parse(more).data}
    deployments = {
        f"d{index}": facts
        | {"model": f"m{index}", "endpoint": f"https://d{index}.example/v1"}
        | ({"consent": Config.parse(rule).data} if rule else {})
        for index, rule in enumerate(rules)
    }
    sections = {
        "version": 1,
        "assistants": {"assistant": {"routes": {"de": [*deployments]}}},
        "regions": {"de": {"territories": ["DE"], "boundary": ["DE"]}},
        "deployments": deployments,
        "location": {"signals": ["edge_header"]},
    }
    return table_of(Config(sections), {})


def decided(
    table: ConfigVersion, consents: Consents = NO_CONSENT, health: dict[str, Unavailable] | None = None
) -> Decision:
    location = place_of(table, "DE")
    return decide(table, table.assistants["assistant"], location, NEEDS, health or {}, NOW, consents=consents)


def outcome(decision: Decision) -> list[str] | str:
    """The plan, or the code and whose consent it waits for."""
    if isinstance(decision.outcome, Plan):
        return [step.deployment.name for step in decision.outcome.steps]
    asks = decision.outcome.asks
    return f"{decision.outcome.code} {asks.name if asks else '-'}"


@cases("rules", "expected")
def test_missing_consent_has_the_configured_effect_on_the_plan(rules: list[str], expected: list[str] | str) -> None:
    assert outcome(decided(table(*rules))) == expected


def test_a_weighted_step_asks_only_if_no_member_can_do_without() -> None:
    def weighted(*rules: str) -> ConfigVersion:
        made = table(*rules)
        (assistant,) = {found.name: found for found in made.assistants.values()}.values()
        members = WeightedSet(tuple((made.deployments[name], 50.0) for name in made.deployments))
        return replace(made, assistants={"assistant": replace(assistant, routes={"de": (members,)})})

    assert outcome(decided(weighted(REFUSE_EACH, ""))) == ["d1"]
    assert outcome(decided(weighted("", REFUSE_EACH))) == ["d0"]
    assert outcome(decided(weighted(SKIP_EACH, REFUSE_EACH))) == "consent_required d1"


def test_missing_consent_is_reported_with_its_recipient() -> None:
    found = decided(table(SKIP_EACH, ""))
    assert [(item.deployment, item.reason) for item in found.considered] == [("d0", SkipReason.CONSENT), ("d1", None)]
    assert found.considered[0].detail == "the user's consent to Skipped is missing"
    refusal = decided(table(REFUSE_EACH)).outcome
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.CONSENT_REQUIRED
    assert "send this request to OpenAI (stores data in: DE; processes it in: DE)" in refusal.message


@pytest.mark.parametrize(
    ("rule", "consents", "kind"),
    [
        (REFUSE_STANDING, Consents(standing=frozenset({"OpenAI"})), ConsentKind.CLAIM),
        (REFUSE_STANDING, Consents(standing=frozenset({"Other", "openai", "*"})), None),
        (REFUSE_STANDING, Consents(asserted=True), ConsentKind.ASSERTION),
        (REFUSE_STANDING, Consents(confirmed=frozenset({"d0"})), ConsentKind.TOKEN),
        (REFUSE_EACH, Consents(standing=frozenset({"OpenAI"}), asserted=True), None),
        (REFUSE_EACH, Consents(confirmed=frozenset({"d0"})), ConsentKind.TOKEN),
        (REFUSE_EACH, Consents(confirmed=frozenset({"d1"})), None),
    ],
)
def test_kinds_of_consent_that_each_rule_accepts(rule: str, consents: Consents, kind: ConsentKind | None) -> None:
    found = decided(table(rule, ""), consents)
    if kind is None:
        assert outcome(found) == "consent_required d0"
    else:
        assert [step.consent for step in planned(found).steps] == [kind, None]


def test_consent_is_not_requested_for_an_unavailable_deployment() -> None:
    health = {"d0": Unavailable("benched", 5.0)}
    assert outcome(decided(table(REFUSE_EACH, ""), health=health)) == ["d1"]
    assert outcome(decided(table(REFUSE_EACH), health=health)) == "no_healthy_deployment -"
    assert outcome(decided(table(REFUSE_EACH, "", more="{enabled: false}"))) == "no_healthy_deployment -"


def test_cached_decision_is_not_shared_between_different_consents() -> None:
    asked = table(REFUSE_EACH, "")
    agreed = Consents(confirmed=frozenset({"d0"}))
    for _ in range(2):
        assert outcome(decided(asked, agreed)) == ["d0", "d1"]
        assert outcome(decided(asked)) == "consent_required d0"
    # A decision for a user with one consent is not reused for a user with another consent.
    both = table(REFUSE_EACH, SKIP_EACH)
    for _ in range(2):
        assert outcome(decided(both, Consents(confirmed=frozenset({"d0"})))) == ["d0"]
        assert outcome(decided(both, Consents(confirmed=frozenset({"d1"})))) == "consent_required d0"
        assert outcome(decided(both, Consents(confirmed=frozenset({"d0", "d1"})))) == ["d0", "d1"]


@given(
    rules=st.lists(
        st.sampled_from(["", REFUSE_EACH, SKIP_EACH, REFUSE_STANDING, SKIP_STANDING]), min_size=1, max_size=4
    ),
    standing=st.sets(st.sampled_from(["OpenAI", "Skipped", "x"])),
    asserted=st.booleans(),
    confirmed=st.sets(st.sampled_from(["d0", "d1", "d2", "d3"])),
)
def test_no_step_of_any_plan_lacks_the_consent_that_it_asks_for(
    rules: list[str], standing: set[str], asserted: bool, confirmed: set[str]
) -> None:
    found = decided(table(*rules), Consents(frozenset(standing), asserted, frozenset(confirmed))).outcome
    agreed = [
        not rule
        or f"d{index}" in confirmed
        or ("mode: standing" in rule and (asserted or rule.split("recipient: ")[1].rstrip("}") in standing))
        for index, rule in enumerate(rules)
    ]
    first = next((i for i, rule in enumerate(rules) if agreed[i] or "on_missing: skip" not in rule), None)
    if isinstance(found, Plan):
        assert [step.deployment.name for step in found.steps] == [f"d{i}" for i in range(len(rules)) if agreed[i]]
        assert first is not None
        assert agreed[first]
    else:
        assert found.code is RefusalCode.CONSENT_REQUIRED
        assert first is None or not agreed[first]


# --- tokens ---------------------------------------------------------------------------------------

ASKED = table(REFUSE_EACH, "{mode: standing, recipient: OpenAI}", "{mode: per_request, recipient: Other}", "")
REQUEST = ChatRequest("assistant", (SystemMessage("Be brief."), UserMessage("a secret")))
SAID = ConsentStatement(caller="me")


def consenting(
    request: ServedRequest = REQUEST,
    statement: ConsentStatement = SAID,
    key: bytes = KEY,
    now: float = NOW,
    former: tuple[bytes, ...] = (),
) -> Consenting:
    needs = requirements_of(request) if isinstance(request, ChatRequest) else request.needs()
    return Consenting(statement, request, needs, (key, *former), now)


def token(deployment: str = "d0", **changes: Any) -> str:
    return consenting(**changes).ask(ASKED.deployments[deployment], ASKED.regions["de"]).token


def confirmed(sent: str, table: ConfigVersion = ASKED, region: str = "de", **changes: Any) -> frozenset[str]:
    statement = replace(changes.pop("statement", SAID), token=sent)
    return consenting(statement=statement, **changes).under(table, table.regions[region]).confirmed


def test_a_token_is_good_for_its_recipient_and_again_until_it_ends() -> None:
    sent = token()
    for _ in range(2):
        assert confirmed(sent) == {"d0", "d1"}
    assert confirmed(token("d2")) == {"d2"}
    assert confirmed(sent, now=NOW + LIFETIME_S - 1) == {"d0", "d1"}
    assert confirmed(sent, now=NOW + LIFETIME_S) == frozenset()


def test_consent_token_of_the_former_key_stays_valid_while_the_key_is_replaced() -> None:
    new = b"new" * 16
    assert confirmed(token(), key=new) == frozenset()
    assert confirmed(token(), key=new, former=(KEY,)) == {"d0", "d1"}
    assert confirmed(token(key=new, former=(KEY,)), key=new) == {"d0", "d1"}, "the new key signs"


MORE = (*REQUEST.messages, AssistantMessage("no"), UserMessage("now"))
OTHERS = {
    "another word": replace(REQUEST, messages=(SystemMessage("Be brief."), UserMessage("another secret"))),
    "another role": replace(REQUEST, messages=(UserMessage("Be brief."), UserMessage("a secret"))),
    "a message more": replace(REQUEST, messages=MORE),
    "a message less": replace(REQUEST, messages=REQUEST.messages[1:]),
    "an image": replace(
        REQUEST, messages=(UserMessage((TextPart("a secret"), ImagePart("data:image/png;base64,aa"))),)
    ),
    "a tool": replace(REQUEST, tools=(Tool("send"),)),
    "a format": replace(REQUEST, response_format=JsonObjectFormat()),
    "a user": replace(REQUEST, user="somebody"),
    "an unknown field": replace(REQUEST, extra={"documents": ["more"]}),
    "a stop sequence": replace(REQUEST, stop=("text that was added",)),
    "a bias": replace(REQUEST, logit_bias={"50256": -100.0}),
    "a chosen tool": replace(REQUEST, tool_choice=NamedTool("text that was added")),
    "an effort": replace(REQUEST, reasoning_effort="text that was added"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_consent_token_is_valid_only_for_the_confirmed_content(other: ChatRequest) -> None:
    assert confirmed(token(), request=other) == frozenset()
    assert confirmed(token(request=other), request=other) == {"d0", "d1"}


def test_each_field_of_a_chat_is_covered_by_a_consent_token_or_carries_no_text() -> None:
    covered = {
        "messages",
        "tools",
        "response_format",
        "user",
        "extra",
        "stop",
        "logit_bias",
        "tool_choice",
        "reasoning_effort",
    }
    changed = {field.name for field in fields(ChatRequest) for one in OTHERS.values() if _differs(one, field.name)}
    assert changed == covered, "each covered field has an example in OTHERS"
    assert {field.name for field in fields(ChatRequest)} == covered | FORM, "decide whether a new field carries text"
    assert not covered & FORM
    carry_no_text = (bool, int, float, NoneType)
    hints = get_type_hints(ChatRequest)
    of_form = {name for name in FORM if not set(get_args(hints[name]) or (hints[name],)) <= {*carry_no_text}}
    assert of_form == {"model", "place", "unread"}, "none is sent: a deployment has its own model and its own place"


def _differs(other: ChatRequest, name: str) -> bool:
    return bool(getattr(other, name) != getattr(REQUEST, name))


CALLED = AssistantMessage("no", tool_calls=(ToolCall("c1", "f", "{}"),))


def called(**fields: Any) -> ChatRequest:
    """A chat with a tool call, and the fields of its result."""
    return replace(REQUEST, messages=(*MORE[:2], CALLED, ToolMessage("c1", "done", **fields)))


def test_consent_token_of_a_version_without_marks_of_errors_and_caches_stays_valid() -> None:
    assert token(request=called()) == "c1.1800000300.szOMv8Jp5PwTYQaopCx4hcm0FH4okqciQHBYjuRKBv8"
    assert confirmed(token(request=called()), request=called(is_error=True)) == frozenset()
    assert confirmed(token(request=called()), request=called(cache="5m")) == frozenset()


EMBEDDED = EmbeddingRequest("assistant", ("one", "two"), user="u", extra={"b": 1}, unread=frozenset({"z", "y"}))
MODERATED = ModerationRequest("assistant", ("one", "two"))
OTHER_INPUTS: dict[str, tuple[InputRequest, InputRequest]] = {
    "another text": (EMBEDDED, change(EMBEDDED, inputs=("one", "three"))),
    "a text less": (EMBEDDED, change(EMBEDDED, inputs=("one",))),
    "tokens": (EMBEDDED, change(EMBEDDED, inputs=((1, 2),))),
    "another user": (EMBEDDED, change(EMBEDDED, user="somebody")),
    "an unknown field": (EMBEDDED, change(EMBEDDED, extra={"b": 2})),
    "another text to moderate": (MODERATED, change(MODERATED, inputs=("one", "three"))),
    "a moderation": (EmbeddingRequest("assistant", MODERATED.inputs), MODERATED),
}


@pytest.mark.parametrize(("request_", "other"), OTHER_INPUTS.values(), ids=OTHER_INPUTS.keys())
def test_consent_token_is_valid_only_for_the_confirmed_inputs(request_: InputRequest, other: InputRequest) -> None:
    sent = token(request=request_)
    assert confirmed(sent, request=request_) == {"d0", "d1"}
    assert confirmed(sent, request=other) == frozenset()


def test_consent_token_covers_reasoning_in_the_history() -> None:
    one, two = (replace(REQUEST, messages=(*MORE[:2], AssistantMessage("no", reasoning=thought))) for thought in "ab")
    assert confirmed(token(request=one), request=two) == frozenset()


def test_consent_token_ignores_the_form_of_the_answer() -> None:
    assert confirmed(token(), request=replace(REQUEST, stream=True, temperature=0.3, max_tokens=5)) == {"d0", "d1"}


def test_consent_token_is_bound_to_client_region_secret_and_recipient() -> None:
    sent = token()
    assert confirmed(sent, statement=ConsentStatement(caller="you")) == frozenset()
    assert confirmed(sent, key=b"x" * 32) == frozenset()
    elsewhere = table_of(
        """
version: 1
assistants: {assistant: {routes: {de: [d0], fr: [d0]}}}
regions: {de: {territories: [DE], boundary: ["@EU"]}, fr: {territories: [FR], boundary: ["@EU"]}}
deployments:
  d0: {provider: openai-compatible, model: m, endpoint: "https://d0.example/v1", stores: [DE, FR], processes: DE,
    consent: {mode: per_request, recipient: OpenAI}}
location: {signals: [edge_header]}
""",
        {},
    )
    assert confirmed(sent, elsewhere) == frozenset()
    there = consenting().ask(elsewhere.deployments["d0"], elsewhere.regions["de"]).token
    assert confirmed(there, elsewhere) == {"d0"}
    assert confirmed(there, elsewhere, region="fr") == frozenset()


@given(st.data())
def test_changed_token_is_never_valid(data: st.DataObject) -> None:
    sent = token()
    position = data.draw(st.integers(0, len(sent) - 1))
    letter = data.draw(st.sampled_from("0123456789abcABC._-=+ /é"))
    forged = sent[:position] + letter + sent[position + 1 :]
    if forged != sent:
        assert confirmed(forged) == frozenset()


@given(st.text(max_size=80))
def test_random_text_is_never_a_valid_token(text: str) -> None:
    assert confirmed(text) == frozenset()


@pytest.mark.parametrize(
    ("statement", "note"),
    [
        (SAID, ""),
        (replace(SAID, token="yes"), "the value is not a consent token"),
        (replace(SAID, token=""), "the value is not a consent token"),
        (replace(SAID, token=token(now=NOW - LIFETIME_S)), "the token has expired"),
        (
            replace(SAID, token=token(key=b"x" * 32)),
            "the token is for another request, key, user, recipient or residency",
        ),
        (replace(SAID, note="twice"), "twice"),
        (replace(SAID, asserted=True), "this deployment does not accept standing consent"),
        (replace(SAID, standing=frozenset({"OpenAI"})), "this deployment does not accept standing consent"),
    ],
)
def test_reason_for_an_insufficient_consent_is_reported(statement: ConsentStatement, note: str) -> None:
    asked = consenting(statement=statement).ask(ASKED.deployments["d0"], ASKED.regions["de"])
    assert asked.note.startswith(note)
    assert bool(asked.note) == bool(note)


def test_consent_question_names_recipient_places_and_fields() -> None:
    asked = consenting().ask(ASKED.deployments["d0"], ASKED.regions["de"])
    assert (asked.recipient, asked.stores, asked.processes) == ("OpenAI", "DE", "DE")
    assert (asked.would_send, asked.expires_at) == (("messages",), NOW + LIFETIME_S)
    assert "secret" not in asked.token


def would_send(request: ServedRequest, more: str = "{}") -> tuple[str, ...]:
    asking = table(REFUSE_EACH, more=more)
    return consenting(request).ask(asking.deployments["d0"], asking.regions["de"]).would_send


def test_consent_question_lists_the_fields_that_would_be_sent() -> None:
    seen = (TextPart("x"), ImagePart("data:image/png;base64,aa"), FilePart("data:application/pdf;base64,aa", "a.pdf"))
    rich = ChatRequest("assistant", (UserMessage(seen),), tools=(Tool("t"),), response_format=JsonObjectFormat())
    assert would_send(rich) == ("messages", "images", "files", "tools", "response_format")
    assert would_send(replace(REQUEST, stop=("x",))) == ("messages", "stop")
    spoken = ChatRequest("assistant", (UserMessage((AudioPart("aa", "wav"),)),))
    assert would_send(spoken) == ("messages", "audio")
    request = replace(REQUEST, user="u", extra={"metadata": {"a": "b"}, "documents": [], "odd": 1})
    assert would_send(request) == ("messages",)
    assert would_send(request, "{identity: pass}") == ("messages", "user")
    assert would_send(request, "{passthrough: [documents, metadata]}") == ("messages", "documents", "metadata")


def test_consent_question_lists_the_inputs_that_would_be_sent() -> None:
    assert would_send(EMBEDDED) == ("input",)
    assert would_send(EMBEDDED, "{identity: pass, passthrough: [b]}") == ("input", "b", "user")
    pictured = change(MODERATED, inputs=((TextPart("x"), ImagePart("data:image/png;base64,aa")),))
    assert would_send(pictured) == ("input", "images")


@cases("identity", "named")
def test_identity_fields_are_named_as_they_would_be_sent(identity: Any, named: tuple[str, ...]) -> None:
    first = ASKED.deployments["d0"]
    knowing = replace(first.capabilities, parameters=first.capabilities.parameters | {"metadata", "verbosity"})
    deployment = replace(first, capabilities=knowing, identity=identity)
    request = replace(REQUEST, user="u", extra={"metadata": {"a": "b"}, "verbosity": "low", "odd": 1})
    assert consenting(request).ask(deployment, ASKED.regions["de"]).would_send == named


def test_salt_of_a_cache_is_named_as_a_pseudonym_of_the_user() -> None:
    salted = replace(ASKED.deployments["d0"], cache_isolation="user")
    shown = consenting(REQUEST).ask(salted, ASKED.regions["de"]).would_send
    assert shown == ("messages", "user (a pseudonym of it)")
    shared = replace(salted, cache_isolation="client")
    assert consenting(REQUEST).ask(shared, ASKED.regions["de"]).would_send == ("messages",)


def test_consent_token_ignores_the_order_of_members() -> None:
    one, other = ({"documents": [{"a": 1, "b": 2}]}, {"documents": [{"b": 2, "a": 1}]})
    statement = replace(SAID, token=token(request=replace(REQUEST, extra=one)))
    agreed = consenting(replace(REQUEST, extra=other), statement).under(ASKED, ASKED.regions["de"])
    assert "d0" in agreed.confirmed


def test_request_without_a_token_uses_only_standing_consents() -> None:
    assert consenting(statement=ConsentStatement()).under(ASKED, ASKED.regions["de"]) is NO_CONSENT
    standing = consenting(statement=ConsentStatement(standing=frozenset({"OpenAI"}))).under(ASKED, ASKED.regions["de"])
    assert standing == Consents(frozenset({"OpenAI"}))


def test_standing_consents_for_unknown_recipients_are_dropped() -> None:
    statement = ConsentStatement(standing=frozenset({"OpenAI", "elsewhere"}))
    assert standing_consents(ASKED, statement) == Consents(frozenset({"OpenAI"}))
    assert standing_consents(ASKED, ConsentStatement()) is NO_CONSENT
    assert standing_consents(ASKED, ConsentStatement(asserted=True)) == Consents(asserted=True)
