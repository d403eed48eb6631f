"""The live config with a fake compiler and a fake clock, and the cost of a real reload for the event loop."""

import asyncio
import gc
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import structlog

from gateway.assembly.application import Gateway
from gateway.changes import activation
from gateway.changes.compile_job import CompileJob, Outcome, compile_here
from gateway.changes.compile_process import CompileFailed
from gateway.changes.compiler import Compiler
from gateway.changes.initial_config import InitialConfig
from gateway.changes.live_config import LiveConfig
from gateway.changes.pickling import unpack
from gateway.config.problems import Problem
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.status import Finding
from gateway.operator_errors import StateError
from gateway.server.uvicorn_server import settle
from tests.kit.config_cases import compiled_file
from tests.kit.configs import BASE, KEYS, Config
from tests.kit.scripted_server import until

MENDED = BASE.merge("blocked: [AQ, CU, IR, KP, SY]").text
LogLines = list[structlog.typing.EventDict]


class Files:
    """A config file with the live config of a gateway. Each `look` is one check of the file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gateway.yaml"
        self.path.write_text(BASE.text, "utf-8")
        self.compiled: list[str] = []
        self.error: Exception | None = None
        self._looks: asyncio.Queue[None] = asyncio.Queue()
        self._looked = asyncio.Event()
        self.activated: list[ConfigVersion] = []
        compiled = compiled_file(self.path, KEYS)
        self.live = LiveConfig(
            CompileJob(str(self.path)),
            InitialConfig(compiled.config, Outcome(compiled.warnings, compiled.files)),
            serving_problem=self.why_not,
            compile_job=self.compile,
            wait=self.wait,
        )
        self.refused: str | None = None

    def why_not(self, _: ConfigVersion) -> str | None:
        return self.refused

    async def compile(self, order: CompileJob) -> Outcome:
        if self.error is not None:
            raise self.error
        self.compiled.append(self.path.read_text("utf-8"))
        return compile_here(order, KEYS)

    async def edit(self, text: str, looks: int = 0) -> None:
        """Write the file, and let the gateway look at it so often."""
        self.path.write_text(text, "utf-8")
        if looks:
            await self.look(looks)

    async def wait(self, _: float) -> None:
        self._looked.set()
        await self._looks.get()

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self._looked.wait()
            self._looked.clear()
            self._looks.put_nowait(None)
        await self._looked.wait()

    async def activate(self, packed: bytes, table: ConfigVersion) -> tuple[int, ...]:
        assert unpack(packed).version == table.version
        self.activated.append(table)
        return ()


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    files = Files(tmp_path)
    yield files
    await files.live.stop()


@pytest.fixture
def prepared(files: Files, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that records each decision whether the next compile is started in advance."""
    wanted: list[bool] = []

    async def prepare(*, is_wanted: bool) -> None:
        wanted.append(is_wanted)

    monkeypatch.setattr(files.live, "_is_our_compiler", True)
    monkeypatch.setattr(files.live._compiler, "prepare", prepare)
    return wanted


@pytest.fixture
def log() -> Iterator[LogLines]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_edit_is_activated_at_the_second_check_with_equal_content(files: Files) -> None:
    files.live.start(files.activate)
    await files.look(3)
    assert files.compiled == []
    await files.edit(MENDED, 1)
    assert files.compiled == []
    await files.look()
    assert files.compiled == [MENDED]
    await files.look(3)
    assert len(files.compiled) == 1
    assert files.live.config is files.activated[0]
    assert (files.live.loaded.cause, files.live.loaded.changes.sections) == ("file", ("blocked",))


@pytest.mark.parametrize("serves", [True, False])
async def test_change_that_waits_for_a_restart_is_made_here_only_if_it_fails(files: Files, serves: bool) -> None:
    files.live.start(files.activate)
    await files.live.pause()
    live, who = files.live, "ada"
    asked = [asyncio.ensure_future(it) for it in (live.reload_for_all(who), live.rollback("abcd"), live.release())]
    await asyncio.sleep(0)
    await (files.live.leave() if serves else files.live.resume())
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(it, StateError) for it in answers] == [serves] * 3
    assert len(files.compiled) == (not serves)


async def test_blocked_key_does_not_wait_for_a_compile(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ends = asyncio.Event(), asyncio.Event()

    async def slow(order: CompileJob) -> Outcome:
        begun.set()
        await ends.wait()
        return compile_here(order, KEYS)

    monkeypatch.setattr(files.live, "_compile", slow)
    monkeypatch.setattr(files.live, "_stage", lambda config: replace(config, blocked_keys={"a key": 1.0}))
    files.live.start(files.activate)
    reloading = asyncio.ensure_future(files.live.reload("admin"))
    await begun.wait()
    await files.live.restage()
    assert [config.blocked_keys for config in files.activated] == [{"a key": 1.0}]
    ends.set()
    assert (await reloading).activated
    assert files.live.config.blocked_keys == {"a key": 1.0}


async def test_compile_of_content_that_was_not_stable_is_not_activated(files: Files) -> None:
    """Another process begins to write between the second check and the compile."""
    files.live.start(files.activate)
    await files.edit(MENDED, 1)
    half = BASE.without("clients", "location").text
    original = files.compile

    async def late(order: CompileJob) -> Outcome:
        files.path.write_text(half, "utf-8")
        return await original(order)

    files.live._compile = late
    await files.look()
    assert files.compiled == [half]
    assert files.activated == []
    files.live._compile = original
    await files.edit(MENDED, 3)
    assert [table.blocked.contains("AQ") for table in files.activated] == [True]
    assert files.live.reloads == {("file", "activated"): 1}


async def test_change_during_the_compile_waits_for_a_later_check(files: Files) -> None:
    files.live.start(files.activate)
    await files.edit(MENDED)
    edits = [MENDED + "# more\n"]

    async def slow(order: CompileJob) -> Outcome:
        outcome = compile_here(order, KEYS)
        if edits:
            files.path.write_text(edits.pop(), "utf-8")
            outcome = replace(outcome, at_rest=False)
        return outcome

    files.live._compile = slow
    await files.look(2)
    assert files.activated == []
    await files.look(2)
    assert len(files.activated) == 1


async def test_mistake_is_logged_once_and_its_fix_is_activated(files: Files, log: LogLines) -> None:
    files.live.start(files.activate)
    before = files.live.config
    await files.edit("nonsense: [\n", 6)
    assert len(files.compiled) == 1
    assert files.live.config is before
    assert files.live.failed.findings[0].line > 0
    (line,) = [line for line in log if line["event"] == "config_rejected"]
    assert (line["log_level"], line["errors"], line["config_version"]) == ("error", 1, before.version)
    await files.edit(MENDED, 2)
    assert files.live.failed is None
    assert files.live.loaded.config_version == files.live.config.version != before.version
    assert files.live.reloads == {("file", "rejected"): 1, ("file", "activated"): 1}


async def test_config_that_may_not_be_served_is_rejected(files: Files) -> None:
    files.live.start(files.activate)
    files.refused = "not on this address"
    files.path.write_text(MENDED, "utf-8")
    done = await files.live.reload("admin")
    assert not done.activated
    assert files.activated == []
    assert done.findings[-1].message == "not on this address"


async def test_an_emptied_key_file_is_a_mistake_and_a_removed_one_takes_its_key_away(files: Files) -> None:
    key = files.path.with_name("key")
    key.write_text("sk-0123456789", "utf-8")
    files.path.write_text(BASE.merge({"deployments": {"gemini": {"api_key": f"${{file:{key}}}"}}}).text, "utf-8")
    files.live.start(files.activate)
    assert (await files.live.reload("admin")).activated
    before = files.live.config
    assert [secret.reveal() for secret in before.deployments["gemini"].credentials] == ["sk-0123456789"]
    key.write_text("", "utf-8")
    for cause in ("file", "sighup", "admin"):
        done = await files.live.reload(cause)
        assert (done.activated, files.live.config) == (False, before)
        assert f"'gemini' would have no credential any more: {key} has none" in done.findings[-1].message
    key.write_text("sk-9876543210", "utf-8")
    assert (await files.live.reload("sighup")).activated
    assert [secret.reveal() for secret in files.live.config.deployments["gemini"].credentials] == ["sk-9876543210"]
    key.unlink()
    assert (await files.live.reload("sighup")).activated
    assert files.live.config.deployments["gemini"].credentials == ()


async def test_failed_compiler_rejects_the_change(files: Files) -> None:
    files.error = CompileFailed("the process that compiles it ended with status -9")
    done = await files.live.reload("sighup")
    assert not done.activated
    assert done.findings[0].message.endswith("status -9")
    assert done.config_version == files.live.config.version


async def test_edit_is_retried_until_a_process_can_compile_it(files: Files) -> None:
    files.error = CompileFailed("no process can be started to compile it (Cannot allocate memory)")
    files.live.start(files.activate)
    await files.look()
    await files.edit(MENDED, 2)
    assert files.live.failed.findings[0].message.endswith("(Cannot allocate memory)")
    assert not (await files.live.reload("admin")).activated
    await files.look(20)
    tries = files.live.reloads["file", "rejected"]
    assert 3 <= tries <= 5, "the interval grows"
    files.error = None
    await files.look(20)
    assert (files.compiled, files.live.failed, len(files.activated)) == ([MENDED], None, 1)


async def test_persistent_compile_failure_is_logged_once(files: Files, log: LogLines) -> None:
    reasons = ["ended with status -9", "it took longer than 60 s to compile"]
    files.error = CompileFailed(reasons[0])
    files.live.start(files.activate)
    await files.edit(MENDED, 20)
    files.error = CompileFailed(reasons[1])
    await files.look(20)
    assert files.live.reloads["file", "rejected"] > 3
    rejected = [line for line in log if line["event"] == "config_rejected"]
    assert [line["findings"][0].partition(": ")[2] for line in rejected] == reasons
    assert rejected[0]["detail"].endswith("the reload is repeated until it succeeds")
    files.live.request()
    while len(rejected) == 2:
        await asyncio.sleep(0)
        rejected = [line for line in log if line["event"] == "config_rejected"]
    assert rejected[2]["cause"] == "sighup", "a new request is answered with a new line"
    files.error = None
    await files.look(80)
    assert [line["event"] for line in log].count("config_activated") == 1


async def test_failed_reload_by_a_signal_is_repeated(files: Files) -> None:
    """It is repeated even if no file has changed: the sender of a signal gets no answer, and the alert would stay."""
    files.error = CompileFailed("ended with status -9")
    files.live.start(files.activate)
    await files.look()
    files.live.request()
    while files.live.failed is None:  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0)
    await files.look(10)
    assert 1 < files.live.reloads["sighup", "rejected"] < 5
    files.error = None
    await files.look(10)
    assert (files.live.failed, files.live.reloads["sighup", "activated"]) == (None, 1)
    await files.look(10)
    assert (len(files.activated), len(files.compiled)) == (1, 1)
    assert not (await files.live.reload("admin")).retriable


async def test_reverted_edit_clears_the_failure(files: Files) -> None:
    """The file equals the active version again. Otherwise the failure and its alert would remain until the next edit."""
    files.error = CompileFailed("ended with status -9")
    files.live.start(files.activate)
    await files.edit(MENDED, 4)
    assert files.live.failed is not None
    files.error = None
    await files.edit(BASE.text, 2)
    assert (files.live.failed, files.live.loaded.cause) == (None, "file")
    await files.look(10)
    assert len(files.compiled) == 1


async def test_failure_before_the_compile_is_retried_with_backoff_and_logged_once(files: Files, log: LogLines) -> None:
    tries, started = list[None](), asyncio.Event()

    async def broken(_: CompileJob) -> Outcome:
        tries.append(None)
        started.set()
        raise RuntimeError("can't start new thread")

    files.live.start(files.activate)
    good, files.live._compile = files.live._compile, broken
    files.live.request()
    await started.wait()
    await files.look(40)
    assert 3 <= len(tries) <= 8
    assert len([line for line in log if line["event"] == "config_watch_failed"]) == 1
    files.live._compile = good
    await files.look(70)
    assert len(files.activated) == 1


async def test_no_process_is_started_in_advance_for_a_distant_retry(files: Files, prepared: list[bool]) -> None:
    async def broken(_: CompileJob) -> Outcome:
        prepared.clear()
        raise CompileFailed("ended with status -9")

    files.live._compile = broken
    files.live.start(files.activate)
    await files.edit(MENDED, 2 + 2 + 3 + 4)
    assert prepared == [False, False, False, True], "four checks do nothing, and the last one starts a process"


async def test_process_of_the_next_compile_waits_for_it(files: Files, prepared: list[bool]) -> None:
    files.live.start(files.activate)
    await files.look(22)
    assert prepared == [False] * 20 + [True] * 2, "the start of the gateway and its traffic come first"
    prepared.clear()
    await files.edit(MENDED, 3)
    assert (len(files.activated), prepared) == (1, [True, False]), "the next one is not started right after the change"


@pytest.mark.parametrize(("saved_s_ago", "is_counted"), [(30, True), (4000, False), (-4000, False)])
async def test_time_of_a_change_counts_from_the_save(files: Files, saved_s_ago: float, is_counted: bool) -> None:
    """A file with an old or a future time was copied with its time."""
    files.live.start(files.activate)
    files.path.write_text(MENDED, "utf-8")
    saved_s = time.time() - saved_s_ago
    os.utime(files.path, (saved_s, saved_s))
    await files.look(2)
    assert (29 < files.live.loaded.duration_s < 60) is is_counted
    assert files.live.loaded.duration_s >= 0


async def test_internal_error_does_not_end_the_watch(files: Files, log: LogLines) -> None:
    files.live.start(files.activate)
    files.error = RuntimeError("a bug")
    await files.edit(MENDED, 2)
    assert [line["detail"] for line in log if line["event"] == "config_watch_failed"] == ["RuntimeError: a bug"]
    files.error = None
    await files.look(2)
    assert len(files.activated) == 1


async def test_reloads_run_one_at_a_time(files: Files) -> None:
    files.live.start(files.activate)
    order: list[str] = []

    async def slow(given: CompileJob) -> Outcome:
        order.append("begins")
        await asyncio.sleep(0)
        outcome = compile_here(given, KEYS)
        order.append("ends")
        return outcome

    files.live._compile = slow
    await asyncio.gather(*(files.live.reload("admin") for _ in range(3)))
    assert order == ["begins", "ends"] * 3


async def test_change_activated_by_a_reload_is_not_compiled_again_by_the_watch(
    files: Files, prepared: list[bool]
) -> None:
    """An edit with an immediate reload waits for one compile, not for two and a half."""
    started, may_end = asyncio.Event(), asyncio.Event()

    async def slow(order: CompileJob) -> Outcome:
        started.set()
        await may_end.wait()
        return await files.compile(order)

    files.live._compile = slow
    files.live.start(files.activate)
    await files.look()
    files.path.write_text(MENDED, "utf-8")
    reloading = asyncio.create_task(files.live.reload("admin"))
    await started.wait()
    await files.look()
    assert prepared == [False, False], "no second child is started"
    looking = asyncio.create_task(files.look())
    while not files.live._one_at_a_time._waiters:  # noqa: ASYNC110  # a lock has no event for its waiters
        await asyncio.sleep(0)
    may_end.set()
    assert (await reloading).activated
    await looking
    assert files.compiled == [MENDED]


# --- the child ------------------------------------------------------------------------------------


@pytest.mark.slow("starts processes that compile")
async def test_child_process_returns_the_same_outcome_as_a_compile_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "gateway.yaml"
    path.write_text(BASE.text, "utf-8")
    apart, here = await Compiler().compile(CompileJob(str(path))), compile_here(CompileJob(str(path)), os.environ)
    assert (apart.problems, apart.files, apart.at_rest) == (here.problems, here.files, True)
    assert unpack(apart.packed).deployments == unpack(here.packed).deployments
    path.write_text("version: 2\n", "utf-8")
    refused = await Compiler().compile(CompileJob(str(path)))
    assert refused.packed is None
    assert refused.problems
    assert KEYS["GEMINI_API_KEY"] not in repr(apart)


@pytest.mark.slow("starts processes that compile")
async def test_waiting_child_takes_exactly_one_job(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 2\n", "utf-8")
    compiler = Compiler()
    for _ in range(2):
        await compiler.prepare(is_wanted=True)
    waiting = compiler._waiting
    assert (await compiler.compile(CompileJob(str(path)))).problems
    assert (waiting._process.returncode, compiler._waiting) == (0, None)
    assert (await compiler.compile(CompileJob(str(path)))).problems, "also without a waiting child"
    await compiler.prepare(is_wanted=True)
    waiting = compiler._waiting
    for _ in range(2):
        await compiler.prepare(is_wanted=False)
    assert (waiting._process.returncode, compiler._waiting) == (-9, None)


async def test_failed_child_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(CompileFailed, match="ended with status 1"):
        await Compiler().compile(CompileJob("gateway.yaml"))
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(CompileFailed, match="no process can be started"):
        await Compiler().compile(CompileJob("gateway.yaml"))


# --- cost -----------------------------------------------------------------------------------------


def large(number: int, mark: str = "") -> str:
    """Return the text of a config with this number of assistants and deployments."""
    facts = {"provider": "openai-compatible", "stores": "DE", "processes": "DE", "api_key": "k"}
    deployments = {
        f"d{index}": facts | {"model": f"m{index}{mark}", "endpoint": f"https://h{index}.example/v1"}
        for index in range(number)
    }
    assistants = {f"a{index}": {"routes": {"de": [f"d{index}"]}} for index in range(number)}
    regions = {"de": {"territories": ["DE"], "boundary": ["DE"]}}
    sections = {"version": 1, "assistants": assistants, "regions": regions, "deployments": deployments}
    return Config({**sections, "location": {"unknown": "de"}}).text


@pytest.fixture
def settled() -> Iterator[None]:
    """Set up the interpreter as in a serving gateway."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    settle()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    ("number", "marks"),
    [
        pytest.param(300, "x", marks=pytest.mark.slow("compiles 300 deployments twice")),
        pytest.param(1000, "xy", marks=pytest.mark.full),
    ],
)
async def test_reload_of_many_deployments_never_blocks_the_loop_for_ten_milliseconds(
    tmp_path: Path, number: int, marks: str
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(large(number), "utf-8")
    compiled = compiled_file(path, os.environ)
    gateway, outcome = Gateway(compiled.config), Outcome(compiled.warnings, compiled.files)
    live = LiveConfig(CompileJob(str(path)), InitialConfig(compiled.config, outcome))

    async def activate(_: bytes, table: ConfigVersion) -> tuple[int, ...]:
        gateway.activate(table)
        return ()

    live.start(activate)
    longest: list[float] = []

    async def tick(ended: asyncio.Event) -> None:
        """Note the loop's own CPU time between two of its turns, which excludes other programs."""
        while not ended.is_set():
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest.append(time.thread_time() - before)

    for mark in marks:
        path.write_text(large(number, mark), "utf-8")
        ended = asyncio.Event()
        ticking = asyncio.create_task(tick(ended))
        assert (await live.reload("admin")).activated
        ended.set()
        await ticking  # the end of the reload is measured too
    await live.stop()
    assert len(longest) > 20
    assert max(longest) < 0.010
    assert gateway.config.deployments["d7"].model == f"m7{marks[-1]}"


async def test_findings_are_made_in_a_thread(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config may have thousands of warnings."""
    made_in: list[int] = []
    finding_of = activation.finding_of

    def noting(problem: Problem) -> Finding:
        made_in.append(threading.get_ident())
        return finding_of(problem)

    monkeypatch.setattr(activation, "finding_of", noting)
    files.live.start(files.activate)
    files.path.write_text(BASE.merge("deployments: {gemini: {api_key: k}}").text, "utf-8")
    done = await files.live.reload("admin")
    assert done.activated
    assert any("a key is written in the config" in finding.message for finding in done.findings)
    assert made_in
    assert threading.get_ident() not in made_in


@pytest.mark.slow("each reload is traced")
async def test_many_reloads_leak_no_memory(files: Files) -> None:
    """Unused config versions are freed, and memory does not grow."""
    gateway = Gateway(files.live.config)
    outcomes = []
    for mark in ("a", "b"):
        files.path.write_text(BASE.merge(f"deployments: {{gemini: {{model: gemini-{mark}}}}}").text, "utf-8")
        outcomes.append(compile_here(CompileJob(str(files.path)), KEYS))
    numbers = iter(range(10_000))

    async def alternate(_: CompileJob) -> Outcome:
        return outcomes[next(numbers) % 2]

    async def activate(_: bytes, table: ConfigVersion) -> tuple[int, ...]:
        gateway.activate(table)
        return ()

    files.live._compile = alternate
    files.live.start(activate)

    def living() -> int:
        gc.collect()
        # `isinstance` would read the class of other libraries' lazy modules, and so load them into the measured memory.
        return sum(type(found) is Deployment for found in gc.get_objects())

    async def reload(times: int) -> None:
        for _ in range(times):
            assert (await files.live.reload("admin")).activated

    alone = living()
    with structlog.testing.capture_logs() as lines:

        async def settled(times: int) -> int:
            """Return the memory in use after this number of reloads."""
            await reload(times)
            # A thread that has finished may still hold the version for a moment.
            await until(lambda: living() <= alone)
            lines.clear()
            # The tables of a version are made a moment after its activation, and are freed with it.
            left_out = [tracemalloc.Filter(False, "*/" + name) for name in ("policy/routing.py", "tracemalloc.py")]
            return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(left_out).traces)

        tracemalloc.start()
        await reload(60)  # bounded caches fill
        await settled(5)
        before, after = [await settled(5) for _ in range(5)], [await settled(5) for _ in range(5)]
    tracemalloc.stop()
    assert median(after) - median(before) < 12_000, "25 reloads keep 480 bytes each"
