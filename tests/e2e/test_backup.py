"""A state directory is backed up while a gateway uses it, and restored into an empty directory."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import running_gateway
from tests.kit.metered_gateway import CAP, client_of, with_budget
from tests.kit.metered_provider import APP_KEY, metered_config, metered_provider
from tests.kit.reloading_gateway import config, operated
from tests.kit.waiting import eventually

KEYS = ("cache-key", "pepper", "receipt-key", "user-key")


def run(*words: str | Path, status: int = 0) -> str:
    done = in_this_process(*map(str, words))
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.mark.slow("starts a gateway twice")
def test_restored_directory_continues_history_ledger_receipts_and_keys(tmp_path: Path, pair: SimulatorThread) -> None:
    patch = {"clients_source": "database", "receipts": {"keep": "1d"}}
    path, state, archive = tmp_path / "gateway.yaml", tmp_path / "state", tmp_path / "state.tar.gz"
    path.write_text(config(pair, "a", 0, patch).text, "utf-8")
    with operated(path, GATEWAY_STATE_DIR=str(state)) as operator:
        run("clients", "create", "app", "--config", path, "--state", state)
        key = json.loads(run("keys", "create", "--client", "app", "--state", state, "--json"))["key"]
        headers = {"authorization": f"Bearer {key}"}
        eventually(lambda: operator.client.post(CHAT, json=body(), headers=headers).status_code == 200)
        first = operator.version()
        operator.replace(config(pair, "b", 1, patch))
        operator.wait_for_another(first)
        request = operator.client.post(CHAT, json=body(), headers=headers).headers["x-request-id"]
        receipt = f"/v1/receipts/{request}"  # a thread writes it after the answer
        eventually(lambda: operator.client.get(receipt, headers=headers).status_code == 200)
        eventually(lambda: used_calls(state) == 2)  # and another the ledger
        said = run("backup", "--state", state, "--to", archive, "--with-keys")
        used = json.loads(run("usage", "--state", state, "--json"))
        history = run("history", "--state", state)
    assert said == f"wrote {archive}: {len(names_of(archive)) - 1} files of {state}\n"
    assert archive.stat().st_mode & 0o777 == 0o600
    assert not {"gateway.lock", "gate/counters"} & names_of(archive)

    restored = tmp_path / "restored"
    assert run("restore", archive, "--state", restored).endswith(f" into {restored}\n")
    assert run("history", "--state", restored) == history
    assert json.loads(run("usage", "--state", restored, "--json")) == used
    run("audit", "verify", "--state", restored)
    with running_gateway(path, {"KEY": "sk-one", "GATEWAY_STATE_DIR": str(restored)}) as gateway:
        with httpx.Client(base_url=gateway.url, trust_env=False, headers=headers) as client:
            assert client.post(CHAT, json=body()).headers["x-gateway-deployment"] == "b"
            assert client.get(receipt).status_code == 200
        run("rollback", first, "--state", restored)
    assert "rollback" in run("history", "--state", restored)


def names_of(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {*opened.getnames()}


def used_calls(state: Path) -> int:
    return json.loads(run("usage", "--state", state, "--json"))["total"]["calls"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    (state / "audit.jsonl").write_text("{}\n", "utf-8")
    for name in KEYS:
        (state / name).write_text("k" * 64, "utf-8")
    return state


@pytest.mark.slow
def test_budgets_of_a_restored_directory_are_right_before_the_first_start(tmp_path: Path) -> None:
    """The archive has the journal of another start of the machine, with rows that are not in the ledger."""
    with metered_provider("ok") as (provider, _):
        path = metered_config(provider, tmp_path, "ok", with_budget(tokens=100_000, per="total")).write(tmp_path)
        state, archive, restored = tmp_path / "state", tmp_path / "b.tar.gz", tmp_path / "restored"
        with running_gateway(path, {"KEY": "sk-one", "GATEWAY_STATE_DIR": str(state)}) as gateway:
            with client_of(gateway, authorization=f"Bearer {APP_KEY}") as client:
                for _ in range(3):
                    client.post(CHAT, json=body(max_tokens=CAP)).raise_for_status()
            show = "budgets", "show", "--client", "app", "--json", "--config", path, "--state"
            [before] = json.loads(run(*show, state))["budgets"]
            run("backup", "--to", archive, "--with-keys", "--state", state)
        run("restore", archive, "--state", restored)
        [after] = json.loads(run(*show, restored))["budgets"]
        assert (int(before["spent"]) > 0, after["spent"]) == (True, before["spent"])
        with running_gateway(path, {"KEY": "sk-one", "GATEWAY_STATE_DIR": str(restored)}):
            [again] = json.loads(run(*show, restored))["budgets"]
        assert again["spent"] == before["spent"]


def test_keys_are_left_out_unless_they_are_asked_for(state: Path, tmp_path: Path) -> None:
    said = run("backup", "--state", state, "--to", tmp_path / "b.tar.gz")
    assert said.endswith(f"not in it: {', '.join(KEYS)}; keep copies of these, or use --with-keys\n")
    assert names_of(tmp_path / "b.tar.gz") == {"manifest.json", "audit.jsonl"}
    said = run("restore", tmp_path / "b.tar.gz", "--state", tmp_path / "new")
    assert f"put these keys into {tmp_path / 'new'} before the gateway starts" in said


def test_rehearsals_are_left_out(state: Path, tmp_path: Path) -> None:
    (state / "simulated").mkdir()
    (state / "simulated" / "ledger.db").write_bytes(b"of no real request")
    run("backup", "--state", state, "--to", tmp_path / "state.tar.gz")
    assert not [name for name in names_of(tmp_path / "state.tar.gz") if "simulated" in name]


def test_private_key_of_an_operator_is_a_key_too(state: Path, tmp_path: Path) -> None:
    (state / "signing.pem").write_text("\n-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n", "utf-8")
    (state / "notes.txt").write_text("the PRIVATE KEY----- is elsewhere\n", "utf-8")
    run("backup", "--state", state, "--to", tmp_path / "b.tar.gz")
    assert names_of(tmp_path / "b.tar.gz") == {"manifest.json", "audit.jsonl", "notes.txt"}
    run("backup", "--state", state, "--to", tmp_path / "all.tar.gz", "--with-keys")
    assert {"signing.pem", *KEYS} <= names_of(tmp_path / "all.tar.gz")


def test_existing_files_are_kept(state: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b.tar.gz"
    run("backup", "--state", state, "--to", archive)
    assert "exists already" in run("backup", "--state", state, "--to", archive, status=2)
    before = {item.name: item.read_bytes() for item in state.iterdir()}
    assert f"{state} is not empty" in run("restore", archive, "--state", state, status=2)
    assert {item.name: item.read_bytes() for item in state.iterdir()} == before


def test_directory_without_files_is_no_backup(tmp_path: Path) -> None:
    assert "has nothing to back up" in run("backup", "--state", tmp_path, "--to", tmp_path / "b", status=2)
    assert "cannot be read" in run("backup", "--state", tmp_path / "none", "--to", tmp_path / "b", status=2)
    assert not (tmp_path / "b").exists()


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with tarfile.open(archive) as opened:
        files = {item.name: opened.extractfile(item).read() for item in opened}  # type: ignore[union-attr]
    change(files)
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))


def in_manifest(archived: dict[str, bytes], **members: object) -> None:
    archived["manifest.json"] = json.dumps({**json.loads(archived["manifest.json"]), **members}).encode()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.update({"audit.jsonl": b"{ }\n"}), "audit.jsonl differs from the file that was backed up"),
        (lambda files: files.pop("audit.jsonl"), "audit.jsonl is missing"),
        (lambda files: files.pop("manifest.json"), "is not a backup of a state directory"),
        (lambda files: in_manifest(files, format=2), "was written by a later release"),
        (lambda files: in_manifest(files, files={"../evil": "0"}), "a file outside of the state directory"),
        (lambda files: in_manifest(files, files={"/etc/evil": "0"}), "a file outside of the state directory"),
        (lambda files: in_manifest(files, files=[]), "is not a backup of a state directory"),
    ],
    ids=["changed", "missing", "no manifest", "later", "above", "absolute", "wrong type"],
)
def test_damaged_archive_restores_nothing(
    state: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], problem: str
) -> None:
    archive, new = tmp_path / "b.tar.gz", tmp_path / "new"
    run("backup", "--state", state, "--to", archive)
    rewritten(archive, change)
    assert problem in run("restore", archive, "--state", new, status=2)
    assert not new.exists() or not [*new.iterdir()]
    assert not (tmp_path / "evil").exists()


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello", "utf-8")
    assert "cannot be restored" in run("restore", tmp_path / "text", "--state", tmp_path / "new", status=2)
    missing = run("restore", tmp_path / "none", "--state", tmp_path / "new", status=2)
    assert missing.endswith("none cannot be restored: No such file or directory\n")
