"""A stored version whose text was replaced is damage, however its row was changed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from gateway.changes.change_log import ChangeLog, ReviewedChange
from gateway.changes.compile_job import CompiledState
from gateway.changes.plan import ChangePlan
from gateway.changes.stored_versions import damaged_versions, verified
from gateway.config.compile import Compiled
from gateway.operator_errors import StateError
from gateway.state.history import Pointer, open_history
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled_file
from tests.kit.configs import BASE, KEYS, Config

_MODEL = "version: 1\nmodels: {openai: {gpt-4o: {retires_on: 2099-01-01}}}\n"
_CATALOGUE = "catalogue: {models: [own.yaml]}"


def record(log: ChangeLog, config: Config, folder: Path, before: str = "") -> Compiled:
    """Compile a config in a folder, and record it as the active version after another one."""
    found = compiled_file(config.write(folder), KEYS)
    change = ReviewedChange(ChangePlan(before, found.config.version), {})
    log.record_switch(change, CompiledState(found.config, found.written), "file", "")
    return found


@pytest.fixture(params=["alone", "with a catalogue", "with terms", "with both"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChangeLog]:
    base = BASE
    if request.param in ("with a catalogue", "with both"):
        (tmp_path / "own.yaml").write_text(_MODEL, "utf-8")
        base = base.merge(_CATALOGUE)
    if request.param in ("with terms", "with both"):
        (tmp_path / "words").write_text("Project Nightjar", "utf-8")
        base = base.merge({"redactions": {"own": {"terms": [f"${{file:{tmp_path / 'words'}}}"]}}})
    opened = ChangeLog(tmp_path)
    before = ""
    for change in ("{}", "blocked: [KP]"):
        before = record(opened, base.merge(change), tmp_path, before).config.version
    # The other files of a stored version are compared as they were, not as they are now.
    for name in ("own.yaml", "words"):
        (tmp_path / name).unlink(missing_ok=True)
    yield opened
    opened.close()


def change(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "history.db")) as database, database:
        database.execute(statement)


def test_versions_as_they_were_stored_are_intact(log: ChangeLog, tmp_path: Path) -> None:
    active = log.active_version()
    target = log.rollback_target(None, active.version, tmp_path / "gateway.yaml")
    assert target.version.version != active.version
    assert damaged_versions(log.history) == {}
    reader = open_history(tmp_path, make=False)
    assert damaged_versions(reader) == {}
    reader.close()


@cases("statement", "fault")
def test_replaced_text_is_damage_at_every_read(log: ChangeLog, tmp_path: Path, statement: str, fault: str) -> None:
    active = log.active_version()
    change(tmp_path, statement.replace("replace(text, 'KP', 'CU')", "CAST(replace(text, 'KP', 'CU') AS BLOB)"))
    assert fault in damaged_versions(log.history)[active.version]
    config = tmp_path / "gateway.yaml"
    log.history.point(Pointer(active.version, "missing"))
    config.unlink()
    target = partial(log.rollback_target, active.version, "other", config)
    words = f"history.db can't be used: version {active.version}: .*{fault}.*restore it"
    for read in (target, log.active_rollback, log.active_version):
        with pytest.raises(StateError, match=words):
            read()


def test_version_whose_catalogue_is_not_stored_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(_MODEL, "utf-8")
    log = ChangeLog(tmp_path)
    compiled = record(log, BASE.merge(_CATALOGUE), tmp_path)
    change(tmp_path, "DELETE FROM catalogue")
    with pytest.raises(StateError, match="its catalogue files are not stored"):
        verified(log.history.find(compiled.config.version))
    # The same config is active again: its text needs no comparison with the stored catalogue.
    assert log.active_version(compiled.written) is not None
    log.close()
