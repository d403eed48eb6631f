"""Reminders of approvals and retirements: logged once for each date, with a fake clock."""

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.changes.config_log import REMINDER_INTERVAL_S, remind
from gateway.model.config_version import ConfigVersion
from gateway.telemetry.log import configure
from tests.kit.config_cases import compiled_file
from tests.kit.configs import BASE, KEYS, table_of

RECORD = "{region: cn, authority: A, kind: registration, number: n, model_name: m, valid_until: 2026-11-20}"
TABLE = table_of(BASE.merge(f"deployments: {{qwen-cn: {{approvals: [{RECORD}]}}}}"))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    sink = io.StringIO()
    configure("json", "info", sink)
    yield sink
    # A stream of the test's own, because pytest closes its captured output after the test.
    configure("json", "info", sys.__stderr__)


def with_model(folder: Path, facts: str) -> ConfigVersion:
    """Return a config version with these facts of a model in the operator's own catalogue."""
    (folder / "models.yaml").write_text(f"version: 1\nmodels: {{dashscope: {{qwen-plus: {facts}}}}}")
    return compiled_file(BASE.merge("catalogue: {models: models.yaml}").write(folder), KEYS).config


async def logged_from(begin: datetime, table: ConfigVersion, lines: io.StringIO) -> list[Any]:
    """Return the lines of all reminders from this moment until 22 November 2026."""
    now, end = [begin.timestamp()], datetime(2026, 11, 22, tzinfo=UTC).timestamp()

    async def wait(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= end:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await remind(lambda: table, clock=lambda: now[0], wait=wait)
    return [json.loads(line) for line in lines.getvalue().splitlines()]


async def test_ending_approval_is_logged_once_a_day_and_as_an_error_near_its_end(lines: io.StringIO) -> None:
    logged = await logged_from(datetime(2026, 8, 20, tzinfo=UTC), TABLE, lines)
    assert [line["days_left"] for line in logged] == list(range(90, -3, -1))
    assert {(line["deployment"], line["region"]) for line in logged} == {("qwen-cn", "cn")}
    levels = {line["days_left"]: (line["event"], line["level"]) for line in logged}
    assert levels[90] == levels[8] == ("approval_ending", "warning")
    assert levels[7] == levels[0] == ("approval_ending", "error")
    assert levels[-1] == ("approval_ended", "error")
    assert logged[-1]["detail"] == "its approval for region 'cn' ended on 2026-11-20"
    assert REMINDER_INTERVAL_S <= 600


async def test_retired_model_is_logged_in_the_same_way(lines: io.StringIO, tmp_path: Path) -> None:
    table = with_model(tmp_path, "{retires_on: 2026-11-20}")
    logged = await logged_from(datetime(2026, 8, 20, tzinfo=UTC), table, lines)
    logged = [line for line in logged if line["deployment"] == "qwen-cn"]
    assert [line["days_left"] for line in logged] == list(range(90, -2, -1))
    assert {line["model"] for line in logged} == {"qwen-plus"}
    levels = {line["days_left"]: (line["event"], line["level"]) for line in logged}
    assert levels[90] == levels[8] == ("model_retiring", "warning")
    assert levels[7] == levels[1] == ("model_retiring", "error")
    assert levels[0] == levels[-1] == ("model_retired", "error")
    assert logged[-1]["detail"].startswith("its model 'qwen-plus' is RETIRED since 2026-11-20")


async def test_price_that_ends_is_logged_in_the_same_way(lines: io.StringIO, tmp_path: Path) -> None:
    price = "{input: 1, output: 2, currency: CNY, as_of: 2026-01-01, ends: 2026-11-20}"
    table = with_model(tmp_path, f"{{price: {price}}}")
    logged = await logged_from(datetime(2026, 11, 9, tzinfo=UTC), table, lines)
    levels = {line["days_left"]: (line["event"], line["level"]) for line in logged if line["event"].startswith("price")}
    assert levels[8] == ("price_ending", "warning")
    assert levels[7] == levels[1] == ("price_ending", "error")
    assert levels[0] == levels[-2] == ("price_ended", "error")
