"""The log is reminded of approvals that end: once for each date, by a clock of the test."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from gateway.reminding import LOOK_S, remind
from gateway.telemetry.log import configure
from tests.tables import WORLD, table_of

RECORD = "{region: cn, authority: A, kind: registration, number: n, model_name: m, valid_until: 2026-11-20}"
TABLE = table_of(WORLD.replace("endpoint: cn-beijing,", f"endpoint: cn-beijing, approvals: [{RECORD}],"))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    sink = io.StringIO()
    configure("json", "info", sink)
    yield sink
    configure("json", "info")


async def test_it_is_told_once_a_day_and_louder_near_the_end(lines: io.StringIO) -> None:
    now = [datetime(2026, 9, 19, tzinfo=UTC).timestamp()]
    end = datetime(2026, 11, 22, tzinfo=UTC).timestamp()

    async def wait(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= end:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await remind(lambda: TABLE, clock=lambda: now[0], wait=wait)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["days_left"] for line in told] == list(range(60, -3, -1))
    assert {(line["deployment"], line["region"]) for line in told} == {("qwen-cn", "cn")}
    levels = {line["days_left"]: (line["event"], line["level"]) for line in told}
    assert levels[60] == levels[8] == ("approval_ending", "warning")
    assert levels[7] == levels[0] == ("approval_ending", "error")
    assert levels[-1] == ("approval_ended", "error")
    assert told[-1]["detail"] == "its approval for region 'cn' ended on 2026-11-20"
    assert LOOK_S <= 600
