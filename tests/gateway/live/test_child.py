"""The process that compiles a config: begun before its order, it takes it; without one it is ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.examples import example_path
from gateway.live.child import Child, CompileFailed
from gateway.live.compiler import Compiling
from gateway.live.compiling import Order

ORDER = Order(str(example_path("demo.yaml")), demo=True)


def test_one_that_was_begun_ahead_takes_the_order() -> None:
    child = Child()
    child.prepare()
    process = child.start()
    outcome = Compiling(ORDER, child).outcome()
    assert outcome.table is not None
    assert process.returncode == 0
    child.discard()
    assert process.returncode == 0


def test_one_without_an_order_is_ended_and_one_that_never_began_needs_no_end() -> None:
    child = Child()
    child.discard()
    child.prepare()
    process = child.start()
    child.discard()
    assert process.returncode is not None


def test_where_none_can_be_begun_the_order_tells_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    child = Child()
    child.prepare()
    with pytest.raises(CompileFailed, match="no process can be started"):
        Compiling(ORDER, child).outcome()
    child.discard()
