"""Faults that are planted into a copy of the product, to prove that the experiment finds them.

`python -m tests.chaos.cell --plant NAME` runs the cell from a copy with this change, and one of its rules has to find it.
Runs have found each one but `lease_without_an_epoch` and `valkey_connected_again_late`: of those, no run has yet.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from providers.value import Value
from tests.architecture.source_tree import PACKAGES, ROOT


class Plant(Value, frozen=True):
    """A change of one place of a file, the rules of which one finds it, and the seed by which it does."""

    file: str
    before: str
    after: str
    rules: tuple[str, ...]
    seed: int = 52


PLANTS = {
    "budget_without_a_limit": Plant(
        "gateway/cell/scripts/hold.lua", "if room < 0 or free < 0 then fits = false end", "", ("no_budget_is_exceeded",)
    ),
    "quota_without_a_limit": Plant(
        "gateway/cell/scripts/hold.lua",
        "if one[6] or numbers[index][1] + one[2] > one[4] then fits = false end",
        "",
        ("no_quota_is_exceeded",),
    ),
    "rollback_one_instance_misses": Plant(
        "gateway/changes/cell.py",
        "if pin.owner != self.database.owner and not await self._execute(live, pin):",
        "if pin.number % 2 and not await self._execute(live, pin):",
        ("a_rollback_reaches_all_instances",),
    ),
    "lease_without_an_epoch": Plant(
        "gateway/cell/cell_database.py",
        '"THEN 0 ELSE 1 END "',
        '"THEN 0 ELSE 0 END "',
        ("one_judge_at_each_moment",),
        1,
    ),
    "row_in_ten_is_not_written": Plant(
        "gateway/cell/outage_gate.py",
        "        elif row:\n",
        "        elif row and hash(call) % 10:\n",
        ("every_call_has_one_row",),
    ),
    "audit_line_cut_when_shipped": Plant(
        "gateway/cell/cell_record.py",
        "line.hash, line.data)",
        "line.hash, line.data[:-2])",
        ("the_audit_trails_verify",),
    ),
    "store_that_no_status_names": Plant(
        "gateway/cell/serving.py",
        "if problem is not None}",
        'if problem is not None and kind != "valkey"}',
        ("status_names_a_lost_store",),
    ),
    "unbudgeted_client_needs_valkey": Plant(
        "gateway/cell/outage_gate.py",
        "        if budgets:\n            self._expect_allowed",
        "        if True:\n            self._expect_allowed",
        ("what_needs_no_store_is_answered", "every_request_has_a_documented_answer"),
    ),
    "instance_that_counts_itself_alone": Plant(
        "gateway/cell/valkey_gate.py",
        "self.instances = max(self._seen.values())",
        "self.instances = 1",
        ("no_quota_is_exceeded",),
    ),
    "valkey_connected_again_late": Plant(
        "gateway/cell/valkey_connection.py",
        "_S = 0.05, 1.0",
        "_S = 60.0, 60.0",
        ("all_is_as_before_after_a_fault", "status_names_a_lost_store"),
    ),
}


def planted_copy(folder: Path, name: str) -> Path:
    """Return a copy of the product with a planted fault."""
    plant, tree = PLANTS[name], folder / "product"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = tree / plant.file
    text = path.read_text("utf-8")
    assert text.count(plant.before) == 1, f"{plant.file} has no single {plant.before!r}"
    path.write_text(text.replace(plant.before, plant.after), "utf-8")
    return tree
