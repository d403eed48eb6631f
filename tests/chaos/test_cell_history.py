"""Each rule of the cell finds its planted bad history, and accepts a good one with faults."""

from __future__ import annotations

from typing import Any

import pytest

from providers.value import replace
from tests.architecture.source_tree import ROOT
from tests.chaos.cell_history import (
    RULES,
    Answer,
    Call,
    Command,
    Fault,
    History,
    KeyChange,
    Lease,
    Look,
    Row,
    longest_recovery_s,
    violations,
)
from tests.chaos.cell_plants import PLANTS

FREE = Answer("free-1", "free", "k-free", 100.0, 101.0, 200)
PAID = Answer("paid-1", "paid", "k-paid", 100.0, 101.0, 200, needs_valkey=True)
REFUSED = Answer("r-refused", "paid", "k-paid", 202.0, 202.1, 503, "gate_unavailable", needs_valkey=True)
CRY = Answer("cry-1", "free", "k-new", 93.0, 94.0, 200, "stop", kind="cry")
ASKED = Answer("asked-1", "free", "k-free", 93.0, 96.0, 200, kind="agree", agreed_s=94.0)
CHILD = Answer("child-1", "child", "k-child", 100.0, 101.0, 200, needs_valkey=True, user="kim")
GOOD = History(
    answers=(FREE, PAID, REFUSED, CHILD, CRY, ASKED),
    calls=(
        Call("free-1", "de", 100.5, 100.9),
        Call("paid-1", "de", 100.5, 100.9),
        Call("asked-1", "asked", 95.0, 95.5),
    ),
    rows=(
        Row("c0", "asked-1", "free", "answered", 5),
        Row("c1", "free-1", "free", "answered", 5),
        Row("c2", "paid-1", "paid", "answered", 100),
    ),
    faults=(Fault("stop", "valkey", 200.0, 240.0, "valkey"), Fault("kill", "g1", 300.0, 305.0, cuts=True)),
    commands=(Command(110.0, "v1"), Command(150.0, "")),
    made=(KeyChange("k-new", 90.0, "new"),),
    blocks=(KeyChange("k-old", 50.0, "old"),),
    looks=(
        Look(140.0, "g0", frozenset(), "v1"),
        Look(235.0, "g0", frozenset({"valkey"}), ""),
        Look(280.0, "g1", frozenset(), ""),
    ),
    leases=(Lease(1.0, "a", 1), Lease(2.0, "a", 1), Lease(3.0, "b", 2)),
    budgets={"paid": 100},
    quotas={"de": 3},
    slots={"paid": 1},
    day_s=20.0,
    audited=frozenset({"new", "old"}),
    boundary={"free": frozenset({"de"}), "asked": frozenset({"asked"}), "paid": frozenset({"de"})},
)
LATE = replace(REFUSED, request="r-late", began_s=251.0, ended_s=251.1)
CUT = replace(FREE, request="r-cut", began_s=304.0, ended_s=304.5, status=0)


def with_answer(answer: Answer, **changes: Any) -> History:
    return replace(GOOD, answers=(*GOOD.answers, replace(answer, **changes)))


BAD: list[tuple[str, History]] = [
    ("every_call_has_one_row", replace(GOOD, rows=GOOD.rows[:1])),
    ("every_call_has_one_row", replace(GOOD, rows=(*GOOD.rows, GOOD.rows[0]))),
    ("every_call_has_one_row", replace(GOOD, rows=(*GOOD.rows, Row("c3", "free-1", "free", "lost", 5)))),
    ("no_budget_is_exceeded", replace(GOOD, budgets={"paid": 99})),
    ("no_quota_is_exceeded", replace(GOOD, calls=tuple(Call("free-1", "de", 10.0 + n) for n in range(10)))),
    ("no_slot_is_used_twice", replace(GOOD, calls=(*GOOD.calls, replace(GOOD.calls[1], at_s=100.6)))),
    ("a_day_of_a_child_is_not_exceeded", with_answer(CHILD, began_s=130.0, ended_s=131.0)),
    ("no_unsigned_version_is_applied", replace(GOOD, looks=(Look(140.0, "g0", frozenset(), "v1", "v2"),))),
    ("no_call_leaves_its_boundary", replace(GOOD, boundary={**GOOD.boundary, "paid": frozenset({"cn"})})),
    ("no_call_leaves_its_boundary", replace(GOOD, calls=(*GOOD.calls, Call("r-unknown", "de", 1.0)))),
    ("every_request_has_a_documented_answer", with_answer(FREE, request="r", ended_s=121.0)),
    ("every_request_has_a_documented_answer", with_answer(FREE, request="r", status=0)),
    ("every_request_has_a_documented_answer", with_answer(FREE, request="r", status=500, code="internal_error")),
    ("every_request_has_a_documented_answer", with_answer(FREE, request="r", status=429, code="made_up")),
    ("what_needs_no_store_is_answered", with_answer(REFUSED, request="r", client="free", needs_valkey=False)),
    (
        "all_is_as_before_after_a_fault",
        replace(GOOD, answers=tuple(replace(REFUSED, began_s=at_s, ended_s=at_s) for at_s in (250.5, 251.5, 252.5))),
    ),
    ("a_crisis_is_answered_with_help", with_answer(CRY, code="")),
    ("nothing_is_sent_without_consent", with_answer(ASKED, agreed_s=95.1)),
    ("a_made_key_is_accepted", with_answer(CRY, status=401)),
    ("a_change_of_a_key_is_in_the_trail", replace(GOOD, audited=frozenset({"old"}))),
    ("a_blocked_key_is_refused", with_answer(FREE, request="r", key="k-old", began_s=52.1, ended_s=53.0)),
    ("a_rollback_reaches_all_instances", replace(GOOD, looks=(Look(170.0, "g1", frozenset(), "v1"),))),
    ("one_judge_at_each_moment", replace(GOOD, leases=(*GOOD.leases, Lease(4.0, "a", 1)))),
    ("one_judge_at_each_moment", replace(GOOD, leases=(*GOOD.leases, Lease(4.0, "a", 2)))),
    ("the_audit_trails_verify", replace(GOOD, trails=("line 3 was changed",))),
    ("status_names_a_lost_store", replace(GOOD, looks=(Look(235.0, "g0", frozenset(), ""),))),
    ("status_names_a_lost_store", replace(GOOD, looks=(*GOOD.looks, Look(280.0, "g0", frozenset({"valkey"}), "")))),
]


def test_good_history_with_faults_breaks_no_rule() -> None:
    assert violations(replace(GOOD, answers=(*GOOD.answers, CUT, LATE))) == {}


def test_restored_backup_may_lack_the_rows_and_the_epochs_of_its_time_and_no_others() -> None:
    lost = Fault("restore", "database", 90.0, 103.0, "database", loses=True)
    again = (*GOOD.leases, Lease(104.0, "c", 1))
    assert violations(replace(GOOD, rows=(), leases=again, faults=(*GOOD.faults, lost))) == {}
    early = replace(lost, began_s=200.0, ended_s=203.0)
    assert "every_call_has_one_row" in violations(replace(GOOD, rows=(), faults=(*GOOD.faults, early)))


@pytest.mark.parametrize(("rule", "history"), BAD, ids=[f"{number}-{rule}" for number, (rule, _) in enumerate(BAD)])
def test_rule_finds_its_planted_bad_history(rule: str, history: History) -> None:
    assert rule in violations(history)


def test_each_rule_has_a_planted_bad_history() -> None:
    assert {rule for rule, _ in BAD} == RULES.keys()


def test_recovery_lasts_from_the_end_of_a_fault_to_its_last_sign() -> None:
    looks = tuple(Look(at_s, "g0", frozenset({"valkey"}), "") for at_s in (210.0, 243.5, 290.0))
    assert longest_recovery_s(replace(GOOD, looks=looks)) == 3.5
    assert longest_recovery_s(GOOD) == 0.0


@pytest.mark.parametrize("name", PLANTS)
def test_planted_fault_has_one_place_in_the_product_and_rules_that_find_it(name: str) -> None:
    plant = PLANTS[name]
    assert (ROOT / plant.file).read_text("utf-8").count(plant.before) == 1
    assert set(plant.rules) <= RULES.keys()
