"""The table of causes that open a barrier: every reason has its place, and a reference written from the contract."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.retry import rule_of
from gateway.model.decision import Exclusion, SkipReason
from gateway.model.hand_off import BarrierRule, HandOffCause
from gateway.policy.hand_off import (
    _OF_FAILURE,
    _OF_SKIP,
    Outcome,
    declines,
    hand_off_after,
    outcomes_of_kinds,
    outcomes_of_skip,
    shared,
)
from providers.chat import ChatRequest, JsonObjectFormat, Message, SystemMessage, ToolMessage, UserMessage
from providers.failures import Failure, FailureKind, InvalidRequest

ROOT = Path(__file__).parents[3]
BY_ABILITY = {"capability", "parameter", "excepted", "unsupported", "field_refused"}
OF_LENGTH = {"context_length"}
NEVER_SKIPPED = set(
    "disabled ended credential weight approval boundary availability requirement moves_data inference_geo redaction "
    "consent".split()
)
NEVER_FAILED = set("credentials model_not_found quota geo_refused content_filter invalid_request deadline".split())


def test_every_reason_and_kind_has_its_place() -> None:
    """A new one fails here until the table has it."""
    assert {*_OF_SKIP} == {*SkipReason}
    assert {*_OF_FAILURE} == {*FailureKind}
    assert {it for it in SkipReason if _OF_SKIP[it] is None} == NEVER_SKIPPED | {"health"}
    assert {it for it in FailureKind if _OF_FAILURE[it] is None} == NEVER_FAILED


def reference(when: frozenset[str], steps: list[list[str | None]], last_fails_over: bool) -> str | None:
    """Return the cause by the words of the contract. A step of health is the list of the failures that caused it."""
    for outcomes in steps:
        if not outcomes or any(it is None or it in NEVER_SKIPPED | NEVER_FAILED | {"health"} for it in outcomes):
            return None
    by_ability = [outcomes[-1] in BY_ABILITY for outcomes in steps]
    of_length = [outcomes[-1] in OF_LENGTH for outcomes in steps]
    covered = [
        (ability and "capability" in when) or (length and "context" in when)
        for ability, length in zip(by_ability, of_length, strict=True)
    ]
    failed = [not ability and not length for ability, length in zip(by_ability, of_length, strict=True)]
    if "capability" in when and all(by_ability):
        return "capability"
    if "context" in when and any(of_length) and all(covered):
        return "context"
    if "failure" in when and any(failed) and last_fails_over:
        return "failure" if all(a or b for a, b in zip(failed, covered, strict=True)) else None
    return None


OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from([*SkipReason, *FailureKind, None])
# Most sequences of any reasons have one that keeps the barrier closed.
OPENING: st.SearchStrategy[Outcome] = st.sampled_from(
    [it for it, cause in [*_OF_SKIP.items(), *_OF_FAILURE.items()] if cause is not None]
)
STEPS = st.lists(st.lists(OPENING, min_size=1, max_size=3), min_size=1, max_size=4) | st.lists(
    st.lists(OUTCOMES, max_size=3), min_size=1, max_size=4
)


@given(when=st.frozensets(st.sampled_from(HandOffCause), min_size=1), steps=STEPS, fails_over=st.booleans())
def test_barrier_opens_as_the_reference_does(
    when: frozenset[HandOffCause], steps: list[list[Outcome]], fails_over: bool
) -> None:
    rule = BarrierRule(tuple(when))
    found = hand_off_after(rule, steps, may_fail_over=fails_over)
    words = [[None if it is None else str(it) for it in outcomes] for outcomes in steps]
    assert (found.cause if found is not None else None) == reference(frozenset(map(str, when)), words, fails_over)
    assert found is None or found.cause in when


def test_no_step_opens_nothing() -> None:
    assert hand_off_after(BarrierRule(tuple(HandOffCause)), [], may_fail_over=True) is None


@pytest.mark.parametrize("kind", FailureKind)
def test_failures_that_end_a_request_are_no_cause(kind: FailureKind) -> None:
    """A kind with the cause `failure` is one after which a request may fail over."""
    if _OF_FAILURE[kind] is HandOffCause.FAILURE:
        assert rule_of(Failure(kind, "")).next_step


@pytest.mark.parametrize("kind", [it for it in FailureKind if _OF_FAILURE[it] in (HandOffCause.FAILURE, None)])
def test_health_counts_as_the_failures_that_caused_it(kind: FailureKind) -> None:
    rule = BarrierRule((HandOffCause.FAILURE,))
    kinds = frozenset({FailureKind.UNAVAILABLE, kind})
    outcomes = outcomes_of_skip(Exclusion(SkipReason.HEALTH, "", kinds=kinds))
    is_open = hand_off_after(rule, [outcomes], may_fail_over=True) is not None
    assert is_open == (_OF_FAILURE[kind] is HandOffCause.FAILURE)
    for unknown in (frozenset[FailureKind | None](), frozenset({FailureKind.UNAVAILABLE, None})):
        assert hand_off_after(rule, [outcomes_of_kinds(unknown)], may_fail_over=True) is None


LAST_TURN = BarrierRule((HandOffCause.FAILURE,), "last_turn")


@pytest.mark.parametrize(
    ("messages", "last"),
    [
        ((UserMessage("a"),), "a"),
        ((SystemMessage("s"), UserMessage("a"), UserMessage("b", name="n")), "b"),
        ((UserMessage("a"), UserMessage(" ")), "a"),
        ((UserMessage("a"), SystemMessage("s")), None),
        ((UserMessage("a"), ToolMessage("1", "r")), None),
        ((), None),
        ((UserMessage(""),), None),
    ],
)
def test_last_turn(messages: tuple[Message, ...], last: str | None) -> None:
    request = ChatRequest("m", messages, user="u", temperature=0.5, stop=("s",), extra={"x": "y"})
    found = shared(request, LAST_TURN)
    assert found == (ChatRequest("m", (UserMessage(last),), temperature=0.5) if last is not None else None)
    assert shared(request, BarrierRule((HandOffCause.FAILURE,))) is request
    assert shared(ChatRequest("m", messages, response_format=JsonObjectFormat()), LAST_TURN) is None


@pytest.mark.parametrize(("values", "declined"), [((), False), (("never",), True), (("Never", "never"), True)])
def test_declined(values: tuple[str, ...], declined: bool) -> None:
    assert declines(values) is declined


@pytest.mark.parametrize("values", [("",), ("always",), ("never", "yes")])
def test_other_values_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        declines(values)


def test_only_the_table_makes_a_hand_off_and_only_one_method_gives_the_steps() -> None:
    """Code that wants to step over a barrier needs a `HandOff`, which only the table makes."""
    sources = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py")}
    making = {name for name, text in sources.items() if re.search(r"\bHandOff\(", text)}
    assert making == {"gateway/policy/hand_off.py", "gateway/model/hand_off.py"}
    listing = {name for name, text in sources.items() if re.search(r"\.listed\b(?!\()", text)}
    assert listing <= {
        *("gateway/model/assistant.py", "gateway/policy/preference.py", "gateway/service/decider.py"),
        *("gateway/config/routes.py", "gateway/config/check_report.py"),
    }
    asking = {name for name, text in sources.items() if re.search(r"\.behind\(", text)}
    assert asking == {f"gateway/service/{name}.py" for name in ("decider", "explain", "capabilities", "disclosure")}
