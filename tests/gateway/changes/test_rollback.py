"""Rollbacks of the live config, with a history: the active version, the watched files and the log after each."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, patch

import pytest
from structlog.testing import capture_logs

from gateway.changes.change_log import ChangeLog, review_change, signature_file
from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, compile_here
from gateway.changes.compile_process import CompileFailed
from gateway.changes.initial_config import InitialConfig
from gateway.changes.live_config import LiveConfig
from gateway.changes.pickling import unpack
from gateway.changes.plan import NO_CONFIG_VERSION
from gateway.features.redaction.wrapper import Redaction
from gateway.operator_errors import StateError
from gateway.signing import Signer, new_key, sign_plan
from tests.kit.configs import BASE, KEYS
from tests.kit.scripted_server import until

FIRST = BASE.text + "# the first\n"
SECOND = BASE.merge("blocked: [AQ, CU, IR, KP, SY]").text
THIRD = BASE.merge("blocked: [VA, CU, IR, KP, SY]").text


def with_key_file(path: Path) -> str:
    """The base configuration with the key of one deployment in a file."""
    return BASE.merge({"deployments": {"gemini": {"api_key": f"${{file:{path}}}"}}}).text


class Gateway:
    """A gateway with a history that serves FIRST. Each `look` is one check of the files."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gateway.yaml"
        self.environ = dict(KEYS)
        self.before_compile = lambda: None
        self.write(FIRST)
        self.log = ChangeLog(folder / "state")
        order = CompileJob(str(self.path), written=True)
        outcome = compile_here(order, self.environ)
        table = unpack(outcome.packed)
        state = CompiledState(table, outcome.written)
        change = review_change(CompiledState(NO_CONFIG_VERSION, None), state, 0.0, lambda: None)
        self.log.record_switch(change, state, "start", "")
        self.live = LiveConfig(order, InitialConfig(table, outcome, self.log), compile_job=self.compile)

    async def compile(self, order: CompileJob) -> Outcome:
        self.before_compile()
        return compile_here(order, self.environ)

    def write(self, text: str) -> None:
        self.path.write_text(text, "utf-8")

    def trail(self) -> list[dict[str, Any]]:
        lines = (self.path.parent / "state" / "audit.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            await self.live._check_files()

    async def take(self, text: str) -> str:
        self.write(text)
        done = await self.live.reload("admin")
        assert done.activated, done.findings
        return done.config_version

    async def roll_back(self) -> str:
        """Activate SECOND, and roll back to the first version. Return that version."""
        await self.take(SECOND)
        done = await self.live.rollback(None)
        assert (done.activated, self.live.pinned) == (True, done.config_version)
        return done.config_version


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.log.close()


async def test_edit_is_activated_although_a_rollback_was_refused_at_the_same_moment(gateway: Gateway) -> None:
    secret = gateway.path.with_name("secret")
    secret.write_text("sk-one")
    first = await gateway.take(with_key_file(secret))
    await gateway.take(SECOND)
    secret.write_bytes(b"x" * 70_000)  # a mistake: FIRST cannot be used any more
    gateway.write(THIRD)
    refused = await gateway.live.rollback(first)
    assert (refused.refused_by, refused.missing) == ("config_invalid", False)
    assert (await gateway.live.rollback("zzzz")).refused_by == "version_not_found"
    await gateway.look()
    assert gateway.live.config.blocked.contains("VA")


async def test_rollback_restores_the_catalogue_of_its_version(gateway: Gateway) -> None:
    file = gateway.path.with_name("own.yaml")

    def write(output_tokens: int) -> None:
        file.write_text(f"version: 1\nmodels: {{gemini: {{gemini-3.8-flash: {{output_tokens: {output_tokens}}}}}}}\n")

    def longest() -> int | None:
        return gateway.live.config.deployments["gemini"].target.facts.output_tokens

    write(1000)
    text = BASE.merge("catalogue: {models: [own.yaml]}").text
    first = await gateway.take(text)
    write(2000)
    assert (await gateway.take(text), longest()) != (first, 1000)
    done = await gateway.live.rollback(first)
    assert (done.activated, done.config_version, longest()) == (True, first, 1000)
    assert (await gateway.live.release()).config_version != first
    assert longest() == 2000


async def test_rollback_reports_other_words_in_a_file_of_terms(gateway: Gateway) -> None:
    """The words of a version are not kept, but its text is."""
    file = gateway.path.with_name("words")
    redact = {"redactions": {"own": {"terms": [f"${{file:{file}}}"]}}, "regions": {"default": {"redact": "own"}}}
    file.write_text("Project Nightjar")
    first = await gateway.take(BASE.merge(redact).text)
    second = await gateway.take(BASE.merge(redact, "blocked: [AQ, CU, IR, KP, SY]").text)
    done = await gateway.live.rollback(first)
    assert (done.activated, done.config_version) == (True, first)
    assert not any("words" in it.message for it in done.findings)
    file.write_text("Project Nightjar\nProject Owl")
    done = await gateway.live.rollback(second)
    assert (done.activated, done.pinned) == (True, second)
    assert any("words of the files of this version are not kept" in it.message for it in done.findings)
    assert "Project Owl" in str(gateway.live.config.regions["default"].parts.of(Redaction).rules.terms)


async def test_refused_rollback_names_the_version_and_not_the_file(gateway: Gateway) -> None:
    """An edit of the file would not fix it."""
    nowhere = await gateway.live.rollback(None)
    (finding,) = nowhere.findings
    assert (finding.file, finding.message.partition(";")[0]) == ("", "there is no earlier version")
    first = gateway.live.config.version
    await gateway.take(SECOND)

    gateway.live._compile = AsyncMock(side_effect=CompileFailed("the process ended with status -9"))
    assert [finding.file for finding in (await gateway.live.rollback(first)).findings] == [f"version {first}"]


async def test_active_files_are_watched_after_a_refused_rollback(gateway: Gateway) -> None:
    secret, bad = gateway.path.with_name("secret"), gateway.path.with_name("bad")
    bad.write_text("sk-one")
    first = await gateway.take(with_key_file(bad))
    secret.write_text("sk-two")
    await gateway.take(with_key_file(secret))
    bad.write_bytes(b"x" * 70_000)
    assert not (await gateway.live.rollback(first)).activated
    secret.write_text("sk-three")
    await gateway.look()
    assert (gateway.live.loaded.cause, gateway.live.loaded.activated) == ("file", True)


async def test_second_of_two_simultaneous_rollbacks_does_not_undo_the_first(gateway: Gateway) -> None:
    first = await gateway.take(FIRST)
    await gateway.take(SECOND)
    both = await asyncio.gather(gateway.live.rollback(None, "ada"), gateway.live.rollback(None, "bob"))
    assert [(done.activated, done.config_version) for done in both] == [(True, first)] * 2
    assert gateway.live.config.version == first
    later = await gateway.live.rollback(None)
    assert later.config_version != first, "the later request rolls back the version that is then active"


def pin_events(logs: list[Any]) -> list[tuple[int, str]]:
    """Return the number of errors and the detail of each edit that was reported and not activated."""
    return [(line["errors"], line["detail"]) for line in logs if line["event"] == "rollback_pinned"]


async def test_edit_after_a_rollback_is_reported_and_not_activated(gateway: Gateway) -> None:
    first = await gateway.roll_back()
    gateway.write(THIRD)
    with capture_logs() as logs:
        await gateway.look(6)
    assert (gateway.live.config.version, gateway.live.file_is_active) == (first, False)
    ((errors, detail),) = pin_events(logs)
    assert errors == 0
    assert f"version {first} is pinned by a rollback" in detail
    assert "`gateway rollback --release`" in detail
    assert gateway.live.failed is not None
    gateway.write("nonsense: [\n")
    with capture_logs() as logs:
        await gateway.look(6)
    assert [errors for errors, _ in pin_events(logs)] == [1], "each edit is reported once, with its errors"
    assert [line["cause"] for line in gateway.trail() if line["event"] == "rejected"] == ["file", "file"]


async def test_reload_request_while_a_version_is_pinned_changes_nothing(gateway: Gateway) -> None:
    first = await gateway.roll_back()
    gateway.write("nonsense: [\n")
    refused = await gateway.live.reload("admin", "ada")
    assert (refused.is_pinned, refused.activated, refused.pinned, refused.config_version) == (True, False, first, first)
    assert "is pinned by a rollback" in refused.findings[-1].message
    assert len(refused.findings) > 1, "the errors of the file"
    await gateway.look(6)
    assert gateway.live.reloads["file", "rejected"] == 0, "the edit was already reported"


async def test_release_activates_the_config_file(gateway: Gateway) -> None:
    await gateway.roll_back()
    gateway.write(THIRD)
    done = await gateway.live.release("ada")
    assert (done.activated, done.cause, done.pinned) == (True, "release", "")
    assert gateway.live.config.blocked.contains("VA")
    assert (gateway.live.pinned, gateway.live.file_is_active, gateway.log.active_rollback()) == ("", True, None)
    gateway.write(SECOND)
    await gateway.look()
    assert gateway.live.config.blocked.contains("AQ"), "edits are activated again"
    again = await gateway.live.release("ada")
    assert (again.activated, again.missing, again.refused_by) == (False, True, "not_pinned")
    assert "no version is pinned" in again.findings[0].message


async def test_release_to_a_file_with_errors_keeps_the_pin_and_its_watched_files(gateway: Gateway) -> None:
    secret = gateway.path.with_name("secret")
    secret.write_text("sk-one")
    first = await gateway.take(with_key_file(secret))
    await gateway.roll_back()
    gateway.write("nonsense: [\n")
    assert not (await gateway.live.release()).activated
    assert gateway.live.pinned == first
    await gateway.look(4)
    secret.write_text("sk-two")
    await gateway.look(4)
    assert (gateway.live.loaded.cause, gateway.live.loaded.activated) == ("file", True), "the key was rotated"
    assert gateway.live.config.version == first


async def test_rollback_moves_the_pin(gateway: Gateway) -> None:
    first = await gateway.take(FIRST)
    second = await gateway.take(SECOND)
    await gateway.live.rollback(None)
    assert gateway.live.pinned == first
    done = await gateway.live.rollback(second)
    assert (done.config_version, gateway.live.pinned, gateway.live.file_is_active) == (second, second, True)
    gateway.write(THIRD)
    await gateway.look(4)
    assert (gateway.live.config.version, gateway.live.file_is_active) == (second, False)


async def test_edit_during_a_reload_keeps_the_rollback_and_is_reported(gateway: Gateway) -> None:
    first = await gateway.roll_back()
    gateway.before_compile = lambda: gateway.write(THIRD)
    assert (await gateway.live.reload("sighup")).config_version == first
    gateway.before_compile = lambda: None
    with capture_logs() as logs:
        await gateway.look(4)
    assert len(pin_events(logs)) == 1
    assert gateway.live.config.version == first


async def test_edit_while_a_rollback_waits_is_reported(gateway: Gateway) -> None:
    first = await gateway.take(FIRST)
    await gateway.take(SECOND)
    compiling, free = asyncio.Event(), asyncio.Event()
    compile_now = gateway.live._compile

    async def slowly(order: CompileJob) -> Outcome:
        outcome = await compile_now(order)
        compiling.set()
        await free.wait()
        return outcome

    gateway.live._compile = slowly
    reload = asyncio.create_task(gateway.live.reload("admin"))
    await compiling.wait()
    rollback = asyncio.create_task(gateway.live.rollback(None))
    await until(lambda: bool(gateway.live._one_at_a_time._waiters))  # the rollback waits for the lock
    gateway.write(THIRD)
    free.set()
    assert (await reload).activated
    assert (await rollback).config_version == first
    gateway.live._compile = compile_now
    with capture_logs() as logs:
        await gateway.look(4)
    assert (len(pin_events(logs)), gateway.live.config.version) == (1, first)


async def test_failed_compile_process_reports_a_pinned_edit_later(gateway: Gateway) -> None:
    await gateway.roll_back()
    compile_now = gateway.live._compile
    gateway.live._compile = AsyncMock(side_effect=CompileFailed("no process can be started"))
    gateway.write(THIRD)
    for _ in range(3):
        await gateway.live._run_guarded(gateway.live._check_files())
    gateway.live._compile = compile_now
    with capture_logs() as logs:
        await gateway.look(8)
    assert len(pin_events(logs)) == 1


async def test_rollback_replaces_a_missing_file_too(gateway: Gateway) -> None:
    first = await gateway.take(FIRST)
    await gateway.take(SECOND)
    gateway.path.unlink()
    done = await gateway.live.rollback(None)
    assert (done.activated, done.config_version, gateway.live.file_is_active) == (True, first, False)
    assert (await gateway.live.reload("sighup")).activated, "the rollback is still in effect"
    await gateway.look()
    assert (gateway.live.config.version, gateway.live.file_is_active) == (first, False)
    pinned = gateway.log.active_rollback()
    assert pinned is not None, "in effect for the next start too"
    assert (pinned.version.version, pinned.file) == (first, "")
    gateway.write(THIRD)
    assert gateway.log.active_rollback() == pinned, "also after an edit"


async def test_signature_that_arrives_during_a_rejection_is_accepted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private, public = new_key()
    key = tmp_path / "admin.pem"
    key.touch(0o600)
    key.write_bytes(private)
    signer = Signer.read(key)
    guarded = BASE.merge("regions: {cn: {protected: true}}", {"admin_keys": [public.text]})
    protected, changed = guarded.text, guarded.merge("regions: {cn: {boundary: [CN, HK]}}").text
    await gateway.take(protected)
    jobs = (replace(gateway.live._job, text=text.encode(), name="it") for text in (protected, changed))
    before, after = (compile_here(job, KEYS).written for job in jobs)
    rejected = gateway.log.record_rejection

    def late(*args: Any, **options: Any) -> None:
        signature_file(gateway.path).write_text(sign_plan(signer, before.content, after.content))
        rejected(*args, **options)

    monkeypatch.setattr(gateway.log, "record_rejection", late)
    gateway.write(changed)
    await gateway.look()
    assert gateway.live.failed.refused_by == "signature_required"
    await gateway.look()
    assert (gateway.live.failed, gateway.live.config.version) == (None, after.version)


async def test_edit_that_could_not_be_recorded_is_activated_later(gateway: Gateway) -> None:
    """The disk of the state directory was full for a while, and the file did not change in the meantime."""
    full = StateError("history.db can't be used: database or disk is full")
    with patch.object(gateway.log.history, "add", side_effect=full):
        gateway.write(SECOND)
        await gateway.look()
        assert gateway.live.failed.retriable
        assert not gateway.live.config.blocked.contains("AQ")
        asked = await gateway.live.reload("admin")
        assert (asked.refused_by, asked.retriable) == ("gateway_failed", True)
        await gateway.look(12)
        rejected = [line for line in gateway.trail() if line["event"] == "rejected"]
        assert [line["cause"] for line in rejected] == ["file", "admin"], "a persistent failure is recorded once"
    await gateway.look(12)
    assert (gateway.live.failed, gateway.live.config.blocked.contains("AQ")) == (None, True)
    assert gateway.live.reloads["file", "activated"] == 1
    gateway.write("nonsense: [\n")
    await gateway.look(12)
    assert gateway.live.reloads["file", "rejected"] < 8, "a mistake is not retried"
    assert not gateway.live.failed.retriable


@pytest.mark.parametrize("method", ["add", "before"], ids=["not recorded", "not readable"])
async def test_rollback_without_its_history_may_be_repeated_and_names_no_version_as_missing(
    gateway: Gateway, method: str
) -> None:
    await gateway.take(SECOND)
    with patch.object(gateway.log.history, method, side_effect=StateError("history.db can't be used")):
        refused = await gateway.live.rollback(None)
    assert (refused.activated, refused.retriable, refused.missing) == (False, True, False)
    assert (await gateway.live.rollback(None)).activated
