"""The process that compiles a config: started in advance or with its job, and always ended."""

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


@pytest.mark.slow("starts processes that compile")
def test_process_started_in_advance_takes_the_job() -> None:
    child = Child()
    child.prepare()
    process = child.start()
    outcome = Compiling(ORDER, child).outcome()
    assert outcome.packed is not None
    assert process.returncode == 0
    child.discard()
    assert process.returncode == 0


def test_discard_ends_an_idle_process_and_accepts_one_that_never_started() -> None:
    child = Child()
    child.discard()
    child.prepare()
    process = child.start()
    child.discard()
    assert process.returncode is not None


def test_failed_start_of_a_process_is_reported_by_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    child = Child()
    child.prepare()
    with pytest.raises(CompileFailed, match="no process can be started"):
        Compiling(ORDER, child).outcome()
    child.discard()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make the child process read no job and never end."""
    program = tmp_path / "hanging"
    program.write_text("#!/bin/sh\nexec sleep 1000\n", "utf-8")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))


def test_process_that_exceeds_the_time_limit_is_killed(hanging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.changes.compile_process._LIMIT_S", 0.01)
    child = Child()
    with pytest.raises(CompileFailed, match=r"it took longer than 0\.01 s to compile"):
        child.run(ORDER)
    assert child.start().returncode == -9


def test_interrupted_parent_does_not_wait_for_the_process(hanging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    child = Child()
    with pytest.raises(KeyboardInterrupt):
        child.run(ORDER)
    assert child.start().returncode == -9


@pytest.mark.parametrize("is_busy", [False, True], ids=["running", "before a thread is free"])
async def test_cancelled_compile_kills_its_process(hanging: None, is_busy: bool) -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        loop.set_default_executor(executor)
        compiler = Compiler()
        await compiler.prepare(is_wanted=True)
        child = compiler._waiting
        process = child.start()
        busy = [loop.run_in_executor(None, gate.wait)] if is_busy else []
        compiling = asyncio.ensure_future(compiler.compile(ORDER))
        await until(lambda: compiler._waiting is None)
        compiling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compiling
        gate.set()
        await asyncio.gather(*busy)
        await until(lambda: process.returncode == -9)


def test_process_killed_before_its_start_compiles_nothing() -> None:
    child = Child()
    child.kill()
    with pytest.raises(CompileFailed, match="ended with status -9"):
        child.run(ORDER)
