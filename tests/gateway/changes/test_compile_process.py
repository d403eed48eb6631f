"""The process that compiles a config: begun before its order, it takes it; without one it is ended."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.changes.compile_job import CompileJob
from gateway.changes.compile_process import Child, CompileFailed
from gateway.changes.compiler import Compiler, Compiling
from gateway.config.examples import example_path
from tests.kit.scripted_server import until

ORDER = CompileJob(str(example_path("demo.yaml")), demo=True)


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


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child reads no order, and never ends."""
    program = tmp_path / "hanging"
    program.write_text("#!/bin/sh\nexec sleep 1000\n", "utf-8")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))


def test_one_that_takes_too_long_is_ended(hanging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.changes.compile_process._LIMIT_S", 0.01)
    child = Child()
    with pytest.raises(CompileFailed, match=r"it took longer than 0\.01 s to compile"):
        child.run(ORDER)
    assert child.start().returncode == -9


def test_one_whose_parent_is_told_to_end_is_not_waited_for(hanging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    child = Child()
    with pytest.raises(KeyboardInterrupt):
        child.run(ORDER)
    assert child.start().returncode == -9


async def test_one_whose_outcome_nobody_waits_for_any_more_is_ended(hanging: None) -> None:
    compiler = Compiler()
    await compiler.prepare(is_wanted=True)
    child = compiler._waiting
    assert child is not None
    process = child.start()
    compiling = asyncio.ensure_future(compiler.compile(ORDER))
    await until(lambda: compiler._waiting is None)
    compiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await compiling
    await until(lambda: process.returncode == -9)


async def test_one_that_nobody_waits_for_before_a_thread_is_free_is_ended_too(hanging: None) -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        loop.set_default_executor(executor)
        compiler = Compiler()
        await compiler.prepare(is_wanted=True)
        child = compiler._waiting
        assert child is not None
        process = child.start()
        busy = loop.run_in_executor(None, gate.wait)
        compiling = asyncio.ensure_future(compiler.compile(ORDER))
        await until(lambda: compiler._waiting is None)
        compiling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compiling
        gate.set()
        await busy
        await until(lambda: process.returncode == -9)


def test_one_that_is_ended_before_it_began_compiles_nothing() -> None:
    child = Child()
    child.kill()
    with pytest.raises(CompileFailed, match="ended with status -9"):
        child.run(ORDER)
