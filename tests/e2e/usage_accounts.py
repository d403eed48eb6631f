"""Send requests that end in all ways, and compare the rows of the ledger with the calls that the providers saw."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import LIMIT_S, client_of
from tests.kit.metered_provider import INPUT_PRICE, OUTPUT_PRICE, SeenCall

REQUESTS = int(os.environ.get("USAGE_REQUESTS", "120"))
ROUTE_OF_ACCOUNTS = "flaky-1, flaky-2, ok"
ACCOUNTS = ("assistants: {assistant: {resume: true}}", "resilience: {failover_after: 50ms}")
"""Patches of a config with this route: its requests fail, are retried and resumed."""

Row = Mapping[str, Any]
_LEAST_SHARE = Decimal("0.95")
_MILLION = 1_000_000
_REPORTED_AFTER = 5_000


@dataclass
class _Group:
    """The rows and the calls of one request at one deployment."""

    rows: list[Row] = field(default_factory=list)
    calls: list[SeenCall] = field(default_factory=list)


def ask_in_all_ways(gateways: Sequence[GatewayProcess], number: int) -> None:
    """Send so many requests to the gateways in turn, several at once. Some clients leave early."""
    with ExitStack() as stack:
        staying = [stack.enter_context(client_of(gateway)) for gateway in gateways]
        pool = stack.enter_context(ThreadPoolExecutor(8))

        def ask(index: int) -> None:
            turn = index // 10 % len(gateways)
            _ask_or_leave(gateways[turn], staying[turn], index)

        for done, _ in enumerate(pool.map(ask, range(number)), 1):
            if done % _REPORTED_AFTER == 0:
                print(f"{done} of {number} requests", flush=True)


def _ask_or_leave(gateway: GatewayProcess, staying: httpx.Client, index: int) -> None:
    """Send a request. One client in ten leaves after the first bytes of its answer, and one before them."""
    name = f"request-{index}"
    request = body(max_tokens=20, stream=index % 2 == 0)
    request["messages"] = [{"role": "user", "content": f"Answer {name}."}]
    headers = {"x-request-id": name}
    if index % 10 == 4:
        with client_of(gateway) as leaving, leaving.stream("POST", CHAT, json=request, headers=headers) as answer:
            next(answer.iter_raw(), None)
    elif index % 10 == 7:
        with suppress(httpx.ReadTimeout), client_of(gateway) as leaving:
            leaving.post(CHAT, json=request, headers=headers, timeout=httpx.Timeout(LIMIT_S, read=0.05))
    else:
        staying.post(CHAT, json=request, headers=headers)


def compare_accounts(rows: Iterable[Row], calls: Iterable[SeenCall]) -> str:
    """Check that each call has one row with its numbers. Return how far the estimates are off.

    - A row with the provider's count has the numbers and the price of a call, to the last unit.
    - A row without usage is of a call that was refused.
    - All rows together state no less than 95 % of what the provider counted.
    """
    groups = _grouped(rows, calls)
    estimated = unknown = number = 0
    for name, group in groups.items():
        assert len(group.rows) == len(group.calls), f"{name}: {group.rows} for {group.calls}"
        number += len(group.rows)
        left = _without_counted(name, group)
        estimated += sum(row["total_tokens"] for row in group.rows if row["usage_source"] == "estimated")
        unknown += sum(_used(call) for call in left)
    every = [row["call"] for group in groups.values() for row in group.rows]
    assert len({*every}) == len(every)
    total = sum(row["total_tokens"] for group in groups.values() for row in group.rows)
    used = sum(_used(call) for group in groups.values() for call in group.calls)
    assert total >= _LEAST_SHARE * used
    amount = sum(Decimal(row["amount"]) for group in groups.values() for row in group.rows)
    cost = sum(_cost(call) for group in groups.values() for call in group.calls if not call.is_refused)
    assert amount >= _LEAST_SHARE * cost
    sources = Counter(row["usage_source"] for group in groups.values() for row in group.rows)
    outcomes = Counter(row["outcome"] for group in groups.values() for row in group.rows)
    return (
        f"{number} calls ({_shown(sources)}; {_shown(outcomes)}): estimates {_error(estimated, unknown)}, all tokens "
        f"{_error(total, used)}, all amounts {_error(amount, cost)}"
    )


def _grouped(rows: Iterable[Row], calls: Iterable[SeenCall]) -> dict[tuple[str, str], _Group]:
    groups: dict[tuple[str, str], _Group] = defaultdict(_Group)
    for row in rows:
        groups[row["request"], row["deployment"]].rows.append(row)
    for call in calls:
        groups[call.request, call.deployment].calls.append(call)
    return groups


def _without_counted(name: tuple[str, str], group: _Group) -> list[SeenCall]:
    """Return the calls that must be estimated: those without a row that the provider counted or refused."""
    left = list(group.calls)
    for row in group.rows:
        if row["usage_source"] == "estimated":
            continue
        matching = [call for call in left if _numbers_of_row(row) == _numbers_of_call(call)]
        assert matching, f"{name}: {row} is none of {left}"
        left.remove(matching[0])
    return left


def _numbers_of_row(row: Row) -> tuple[object, ...]:
    numbers = row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["reasoning_tokens"]
    return (row["usage_source"], *numbers, Decimal(row["amount"]))


def _numbers_of_call(call: SeenCall) -> tuple[object, ...]:
    if call.is_refused:
        return "none", 0, 0, 0, 0, Decimal(0)
    numbers = call.prompt_tokens, call.cached_tokens, call.completion_tokens, call.reasoning_tokens
    return ("provider" if call.is_reported else "estimated", *numbers, _cost(call))


def _used(call: SeenCall) -> int:
    return 0 if call.is_refused else call.prompt_tokens + call.completion_tokens


def _cost(call: SeenCall) -> Decimal:
    return Decimal(call.prompt_tokens * INPUT_PRICE + call.completion_tokens * OUTPUT_PRICE) / _MILLION


def _shown(numbers: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(numbers.items()))


def _error(stated: Decimal | int, real: Decimal | int) -> str:
    return f"{float(stated / real - 1):+.1%}" if real else "none"
