"""A stored version whose text was replaced is damage, however its row was changed."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.changes.change_log import ChangeLog, ReviewedChange
from gateway.changes.compile_job import CompiledState
from gateway.changes.plan import ChangePlan
from gateway.changes.stored_versions import damaged_versions, verified
from gateway.config.loading import load_document
from gateway.features.configuration import compile_config
from gateway.operator_errors import StateError
from gateway.state.history import Pointer, open_history
from providers.registry import load_registry
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS

_MODEL = "version: 1\nmodels: {openai: {gpt-4o: {retires_on: 2099-01-01}}}\n"
_CATALOGUE = "catalogue: {models: [own.yaml]}"


@pytest.fixture(params=["alone", "with a catalogue", "with terms", "with both"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChangeLog]:
    config = tmp_path / "gateway.yaml"
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
        config.write_text(base.merge(change).text, "utf-8")
        compiled = compile_config(load_document(config, KEYS), registry=load_registry())
        version = compiled.config.version
        opened.record_switch(
            ReviewedChange(ChangePlan(before, version), {}),
            CompiledState(compiled.config, compiled.written),
            "file",
            "",
        )
        before = version
    # The other files of a stored version are compared as they were, not as they are now.
    for name in ("own.yaml", "words"):
        (tmp_path / name).unlink(missing_ok=True)
    yield opened
    opened.close()


def change(directory: Path, statement: str) -> None:
    with sqlite3.connect(directory / "history.db") as database:
        database.execute(statement)
    database.close()


def test_versions_as_they_were_stored_are_intact(log: ChangeLog, tmp_path: Path) -> None:
    active = log.active_version()
    assert active is not None
    target = log.rollback_target(None, active.version, tmp_path / "gateway.yaml")
    assert target.version.version != active.version
    assert damaged_versions(log.history) == {}
    reader = open_history(tmp_path, make=False)
    assert damaged_versions(reader) == {}
    reader.close()


@cases("statement", "fault")
def test_replaced_text_is_damage_at_every_read(log: ChangeLog, tmp_path: Path, statement: str, fault: str) -> None:
    active = log.active_version()
    assert active is not None
    change(tmp_path, statement.replace("replace(text, 'KP', 'CU')", "CAST(replace(text, 'KP', 'CU') AS BLOB)"))
    assert fault in damaged_versions(log.history)[active.version]
    config = tmp_path / "gateway.yaml"
    log.history.point(Pointer(active.version, "missing"))
    config.unlink()
    reads = (
        lambda: log.rollback_target(active.version, "other", config),
        lambda: log.active_rollback(),
        lambda: log.active_version(),
    )
    for read in reads:
        with pytest.raises(
            StateError, match=f"history.db can't be used: version {active.version}: .*{fault}.*restore it"
        ):
            read()


def test_version_whose_catalogue_is_not_stored_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(_MODEL, "utf-8")
    config = tmp_path / "gateway.yaml"
    config.write_text(BASE.merge(_CATALOGUE).text, "utf-8")
    compiled = compile_config(load_document(config, KEYS), registry=load_registry())
    log = ChangeLog(tmp_path)
    switch = ReviewedChange(ChangePlan("", compiled.config.version), {})
    log.record_switch(switch, CompiledState(compiled.config, compiled.written), "file", "")
    change(tmp_path, "DELETE FROM catalogue")
    with pytest.raises(StateError, match="its catalogue files are not stored"):
        verified(log.history.find(compiled.config.version))
    # The same config is active again: its text needs no comparison with the stored catalogue.
    assert log.active_version(compiled.written) is not None
    log.close()
