"""The questions of an evaluation leave usage rows, which the internal project pays for."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evaluation.candidate_client import CandidateClient
from evaluation.measurement import Evaluation
from evaluation.run import create_budget
from evaluation.run_store import RunStore
from evaluation.work_queue import SpendReached
from gateway.assembly.usage import command_accounting
from gateway.execution.transport import PoolTransport
from gateway.usage.spool import batches, spool_files
from gateway.usage.usage_row import UsageRow, UsageSource
from providers.testkit.scenario import Scenario
from tests.kit.configs import table_of
from tests.kit.evaluation_candidates import QuietProgress, config_of, servers, suite_in

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
                client = CandidateClient(table, assistant, region, PoolTransport(), accounting=accounting)
                try:
                    budget = create_budget(suite, store, asked)
                    await Evaluation(suite, client, asked, None, store, budget, QuietProgress()).run()
                finally:
                    await client.aclose()
        finally:
            store.close()
        (file,) = spool_files(folder / "state", {}, recovered=False)
        rows = [row for batch in batches(file, 0) for row in batch.rows]
        file.close()
        return thread["one"].received, rows


async def test_each_question_leaves_a_row_of_the_internal_project(tmp_path: Path) -> None:
    received, rows = await evaluated(tmp_path)
    assert len(rows) == received == 3
    owners = {(row.client, row.project, row.region, row.request, row.usage_source) for row in rows}
    assert owners == {(None, "operations", "cn", "evaluation", UsageSource.PROVIDER)}


async def test_spent_project_stops_the_evaluation(tmp_path: Path) -> None:
    with pytest.raises((SpendReached, ExceptionGroup)) as raised:
        await evaluated(tmp_path, {"tokens": 1, "per": "total"})
    assert "`usage.internal_project` pays for evaluations" in "".join(traceback.format_exception(raised.value))
