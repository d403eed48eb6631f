"""An evaluation permit waives a missing approval and never the boundary. Traffic never gets such a permit."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from evaluation.asking import CandidateClient, NotPermitted
from evaluation.measuring import Evaluation, budget_of
from evaluation.questions import Item
from evaluation.store import RunStore
from evaluation.work import SpendReached
from gateway.assembly.usage import command_accounting
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, RefusalCode, SkipReason
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.policy.fence import evaluation_permit, prompt_permit
from gateway.policy.routing import decide, decide_evaluation
from gateway.usage.usage_row import UsageRow, UsageSource
from providers.chat import ChatRequest, UserMessage
from providers.matching.requirements import Requirements
from providers.testkit.scenario import Scenario
from tests.evaluation.candidates import QuietProgress, config_of, servers, suite_in, table_for
from tests.kit.configs import table_of
from tests.kit.usage_rows import kept_rows

NOTHING = Requirements(frozenset(), frozenset(), frozenset())
NOW_S = 1_790_000_000.0
HOME, ABROAD = "http://127.0.0.1:9001", "http://127.0.0.1:9002"
TABLE = table_for({"home": HOME, "abroad": ABROAD}, stores={"abroad": "US"})
REQUEST = ChatRequest("assistant", (UserMessage("?"),))


def expired(deployment: Deployment) -> Deployment:
    return replace(
        deployment, approvals=tuple(replace(one, valid_until=date(2025, 1, 1)) for one in deployment.approvals)
    )


def outcome(table: ConfigVersion, deployment: Deployment | None, needs: Requirements = NOTHING):
    place = Location(table.regions["cn"], None, "evaluation", ())
    assistant = table.assistants["assistant"]
    if deployment is None:
        return decide(table, assistant, place, needs, {}, NOW_S)
    return decide_evaluation(table, assistant, place, needs, deployment, NOW_S)


def test_approved_candidate_needs_no_waiver() -> None:
    plan = outcome(TABLE, TABLE.deployments["home"]).outcome
    assert isinstance(plan, Plan)
    assert [step.permit.waives for step in plan.steps] == [None]
    assert plan.steps[0].permit == prompt_permit(TABLE, TABLE.regions["cn"], TABLE.deployments["home"], NOW_S)


def test_missing_approval_is_waived_and_noted_in_the_permit() -> None:
    candidate = expired(TABLE.deployments["home"])
    plan = outcome(TABLE, candidate).outcome
    assert isinstance(plan, Plan)
    assert plan.steps[0].permit.waives == "its approval for region 'cn' ended on 2025-01-01"
    assert prompt_permit(TABLE, TABLE.regions["cn"], candidate, NOW_S) is None


def test_decision_for_traffic_is_unchanged() -> None:
    candidate = expired(TABLE.deployments["home"])
    assistant = replace(TABLE.assistants["assistant"], routes={"cn": (candidate,)})
    table = replace(TABLE, assistants={"assistant": assistant}, deployments={**TABLE.deployments, "home": candidate})
    refusal = outcome(table, None).outcome
    assert not isinstance(refusal, Plan)
    assert refusal.code is RefusalCode.NO_APPROVED_DEPLOYMENT
    assert isinstance(outcome(table, candidate).outcome, Plan)
    assert not isinstance(outcome(table, None).outcome, Plan), "the evaluation's decision must not be remembered"


def test_boundary_is_never_waived() -> None:
    abroad = TABLE.deployments["abroad"]
    found = outcome(TABLE, abroad)
    assert not isinstance(found.outcome, Plan)
    assert [item.reason for item in found.considered] == [SkipReason.BOUNDARY]
    assert evaluation_permit(TABLE, TABLE.regions["cn"], abroad, NOW_S) is None
    assert evaluation_permit(TABLE, TABLE.regions["us"], abroad, NOW_S) is not None


def test_requirements_of_a_site_are_never_waived() -> None:
    found = outcome(TABLE, replace(TABLE.deployments["home"], unmet=("zdr",)))
    assert not isinstance(found.outcome, Plan)
    assert [item.reason for item in found.considered] == [SkipReason.REQUIREMENT]


def test_request_that_stores_data_is_refused_as_for_traffic() -> None:
    keeps = Requirements(frozenset(), frozenset({"store"}), frozenset({"store"}))
    found = outcome(TABLE, TABLE.deployments["home"], keeps)
    assert [item.reason for item in found.considered] == [SkipReason.MOVES_DATA]


async def test_nothing_is_sent_to_a_candidate_outside_the_boundary() -> None:
    with servers({"home": Scenario(), "abroad": Scenario()}) as thread:
        origins = {name: thread[name].origin for name in ("home", "abroad")}
        table = table_for(origins, stores={"abroad": "US"})
        asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])
        try:
            with pytest.raises(NotPermitted, match="it would leave the boundary of the region 'cn'"):
                await asker.ask(table.deployments["abroad"], REQUEST)
            asked = await asker.ask(table.deployments["home"], REQUEST)
            assert asked.answer is not None
            assert (thread["abroad"].accepted, thread["home"].received) == (0, 1)
        finally:
            await asker.aclose()


async def test_load_request_is_not_retried_and_a_question_is() -> None:
    from providers.testkit.scenario import HttpError

    with servers({"home": Scenario(script=(HttpError(503), HttpError(503, retry_after_s=0.01)))}) as thread:
        table = table_for({"home": thread["home"].origin})
        asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])
        try:
            once = await asker.ask(table.deployments["home"], REQUEST, once=True)
            assert (once.answer, thread["home"].received) == (None, 1)
            again = await asker.ask(table.deployments["home"], replace(REQUEST, stream=True, include_usage=True))
            assert again.answer is not None
            assert thread["home"].received == 3
            assert again.tokens is not None
            assert again.pieces > 5
            assert again.first_s is not None
            assert 0 < again.first_s <= again.total_s
            assert again.first_failure == "unavailable"
        finally:
            await asker.aclose()


async def test_slow_candidate_gets_one_attempt() -> None:
    """A candidate gets one attempt, even if the deployment has a second key."""
    with servers({"home": Scenario(first_token_s=0.2)}) as thread:
        config = config_of({"home": thread["home"].origin}).merge(
            {"deployments": {"home": {"api_key": ["${KEY}", "${OTHER}"]}}}
        )
        table = table_of(config, {"KEY": "sk-one", "OTHER": "sk-two"})
        asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])
        try:
            asked = await asker.ask(table.deployments["home"], replace(REQUEST, stream=True))
            assert asked.answer is not None
            assert thread["home"].received == 1
        finally:
            await asker.aclose()


QUESTIONS = "performance: {sets: [{name: a, file: many.yaml}]}"


async def evaluated(folder: Path, *budgets: Mapping[str, Any]) -> tuple[int, list[UsageRow]]:
    """Ask one candidate three questions. Return the number that it got, and the usage rows."""
    suite = suite_in(folder, QUESTIONS, items=3)
    operations = {"budgets": [*budgets]} if budgets else {}
    project = {"usage": {"internal_project": "operations"}, "projects": {"operations": operations}}
    with servers({"one": Scenario(text="x")}) as thread:
        table = table_of(config_of({"one": thread["one"].origin}).merge(project), {"KEY": "sk-one"})
        asked = (table.deployments["one"],)
        store = RunStore(folder / "out", {"suite": "paid"})
        try:
            async with command_accounting(folder / "state", table) as accounting:
                assistant, region = table.assistants["assistant"], table.regions["cn"]
                client = CandidateClient(table, assistant, region, accounting=accounting)
                try:
                    budget = budget_of(suite, store, asked)
                    await Evaluation(suite, client, asked, None, store, budget, QuietProgress()).run()
                finally:
                    await client.aclose()
        finally:
            store.close()
        return thread["one"].received, kept_rows(folder / "state")


async def test_each_question_leaves_a_row_of_the_internal_project(tmp_path: Path) -> None:
    received, rows = await evaluated(tmp_path)
    assert len(rows) == received == 3
    owners = {(row.client, row.project, row.region, row.request, row.usage_source) for row in rows}
    assert owners == {(None, "operations", "cn", "evaluation", UsageSource.PROVIDER)}


async def test_spent_project_stops_the_evaluation(tmp_path: Path) -> None:
    with pytest.raises((SpendReached, ExceptionGroup)) as raised:
        await evaluated(tmp_path, {"tokens": 1, "per": "total"})
    assert "`usage.internal_project` pays for evaluations" in "".join(traceback.format_exception(raised.value))


async def test_question_has_the_region_profile_and_the_supported_parameters() -> None:
    config = config_of({"home": HOME}).merge("regions: {cn: {profile: {locale: zh-Hans-CN}}}")
    table = table_of(config, {"KEY": "sk-one"})
    client = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])
    item, home = Item("i", "g", "en", "How much?"), table.deployments["home"]
    plain, shaped = client.request_of(item, home, profile=False), client.request_of(item, home)
    assert [type(one).__name__ for one in plain.messages] == ["UserMessage"]
    assert [type(one).__name__ for one in shaped.messages] == ["SystemMessage", "UserMessage"]
    assert (plain.temperature, plain.max_tokens) == (0.0, 2048)
    await client.aclose()
