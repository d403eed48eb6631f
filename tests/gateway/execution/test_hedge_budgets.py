"""Hedges and budgets: a hedge that has no room is skipped, and the request goes on as if there were no hedge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.execution.plan_execution import PlanExhausted
from gateway.model.record import Record, Skipped
from gateway.usage.accounting import Accounting
from gateway.usage.hold_size import LEAST_CAP
from gateway.usage.journal import Journal
from gateway.usage.refusals import CallRefused
from tests.gateway.execution.conftest import ENVIRON, FIRST, HEDGED, SECOND, TWO_KEYS, Bench, Provider
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.runner_answers import error, until

_INPUT = 64 + 16 + len("hello")
_HOLD = _INPUT + 4096
"""The tokens of the hold of a call in a small budget: the bound of its input, and the usual cap before one is learned."""

Start = Callable[..., tuple[Provider, Provider]]


@pytest.fixture
def start(bench: Bench, tmp_path: Path) -> Iterator[Start]:
    """Start the providers of a config whose client has limits, with the accounting of one request."""
    gate = Journal.open(tmp_path / "journal")

    def begin(client: dict[str, Any], config: Config = HEDGED) -> tuple[Provider, Provider]:
        bench.table = table_of(config.merge({"clients": {"app": {"keys": [key_hash("gk-app")], **client}}}), ENVIRON)
        bench.record = Record("req", 0.0, "t", client="app")
        accounting = Accounting(gate, b"key of pseudonyms")
        bench.usage = accounting.request(bench.table, next(iter(bench.table.clients.values())), None, bench.record)
        return Provider(bench, FIRST), Provider(bench, SECOND)

    yield begin
    gate.close()


def of_tokens(holds: float) -> dict[str, Any]:
    return {"budgets": [{"tokens": int(_HOLD * holds), "per": "total"}]}


@pytest.mark.parametrize("limit", [of_tokens(100), of_tokens(3), {"limits": {"tpm": _HOLD * 3}}])
async def test_hedge_is_sent_if_one_more_of_its_size_would_be_free(
    bench: Bench, start: Start, limit: dict[str, Any]
) -> None:
    _, second = start(limit)
    asking = asyncio.ensure_future(bench.ask())
    await until(lambda: second.asked)
    second.answer()
    assert (await asking).step.deployment.name == "second"


@pytest.mark.parametrize("limit", [of_tokens(1.5), of_tokens(2.9), {"limits": {"tpm": int(_HOLD * 2.9)}}])
async def test_hedge_without_room_is_skipped_and_the_first_attempt_answers(
    bench: Bench, start: Start, limit: dict[str, Any]
) -> None:
    first, second = start(limit)
    asking = asyncio.ensure_future(bench.ask())
    await until(lambda: bench.record.skipped)
    first.answer()
    assert (await asking).step.deployment.name == "first"
    assert (second.asked, len(bench.record.attempts)) == (0, 1)
    [skipped] = bench.record.skipped
    assert skipped == Skipped("second", "no second attempt, because a limit has no room for it: rate_limited")


async def test_step_of_a_skipped_hedge_is_tried_after_the_first_attempt_failed(bench: Bench, start: Start) -> None:
    first, second = start(of_tokens(1.5))
    asking = asyncio.ensure_future(bench.ask())
    await until(lambda: bench.record.skipped)
    # An error costs nothing, so its hold is free again.
    first.answers.put_nowait(error(401))
    second.answer()
    assert (await asking).step.deployment.name == "second"
    assert [attempt.is_hedge for attempt in bench.record.attempts] == [False, False]


async def test_request_whose_hedge_was_skipped_ends_with_the_error_of_admission(bench: Bench, start: Start) -> None:
    # This pays for one call with the smallest cap, and a few tokens more.
    first, second = start({"budgets": [{"tokens": _INPUT + LEAST_CAP + 50, "per": "total"}]})
    asking = asyncio.ensure_future(bench.ask())
    await until(lambda: bench.record.skipped)
    # The answer breaks off, so that its prompt is paid: the next hold does not fit.
    first.answers.put_nowait(httpx.Response(200, text="<html>"))
    with pytest.raises(CallRefused) as refused:
        await asking
    assert refused.value.code == "insufficient_quota"
    assert second.asked == 0
    assert bench.tried[0] == "first"


async def test_key_of_a_skipped_hedge_is_used_after_the_first_attempt_failed(bench: Bench, start: Start) -> None:
    first, _ = start(of_tokens(1.5), HEDGED.merge(TWO_KEYS, "assistants: {assistant: {routes: {default: [first]}}}"))
    asking = asyncio.ensure_future(bench.ask())
    await until(lambda: bench.record.skipped)
    first.answers.put_nowait(error(401))
    first.answer()
    assert (await asking).step.deployment.name == "first"
    assert len(set(first.keys)) == 2


async def test_other_errors_follow_the_plan_after_a_skipped_hedge(bench: Bench, start: Start) -> None:
    first, second = start(of_tokens(1.5))
    asking = asyncio.ensure_future(bench.ask())
    await until(lambda: bench.record.skipped)
    first.answers.put_nowait(error(401))
    second.answers.put_nowait(error(400))
    with pytest.raises(PlanExhausted):
        await asking
    assert bench.tried == ["first", "second"]
