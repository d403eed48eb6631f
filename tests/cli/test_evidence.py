"""`gateway evidence`: the folder for an auditor, its numbers, its signature, and all that it must not contain."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cell.cell_database import CellDatabase
from gateway.cell.cell_record import CellRecord
from gateway.cell.postgres import Postgres, upgrade
from gateway.signing import PublicKey, new_key
from gateway.state.audit import Audit, TrailReader
from gateway.state.history import BEGINNING
from gateway.state.receipts import Receipts
from gateway.usage.amounts import NANO
from gateway.usage.ledger import DELETED_THROUGH, Ledger, ledger_file
from tests.cli.conftest import Command
from tests.cli.recorded_versions import add_version, recorded
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, table_of
from tests.kit.postgres_server import PASSWORD, running_postgres
from tests.kit.request_records import EU, record_with
from tests.kit.usage_rows import NOON_NS, usage_row

NOW_S = NOON_NS / 1e9 + 3600
SAMPLE = 0.5
BEFORE = BASE.merge({"regions": {"eu": None, "europe": BASE.data["regions"]["eu"]}}).merge(
    {
        "assistants": {"assistant": {"routes": {"eu": None, "europe": ["chatgpt-eu", "claude-eu"]}}},
        "sign_ins": {"irsa": {
            "kind": "aws_web_identity", "region": "eu-central-1", "role": "arn:aws:iam::123456789012:role/gateway",
            "token_file": "/run/token",
        }},
        "deployments": {"claude-eu": {
            "provider": "bedrock", "endpoint": "eu-central-1", "sign_in": "irsa",
            "model": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        }},
    }
)  # fmt: skip
AFTER = BASE.merge(
    {
        "token_issuers": {"entra": {
            "issuer": "https://login.example.com/v2.0", "audience": "api://gateway", "algorithms": ["RS256"],
            "jwks": "https://keys.example.com/keys", "clients": [{"client": "app", "where": {"groups": "secret-group"}}],
        }},
        "receipts": {"sample": SAMPLE},
        "regions": {"eu": {"labels": ["eu-art50"]}},
        "deployments": {"chatgpt-eu": {"approvals": [
            {"region": "eu", "authority": "CAC", "kind": "registration", "number": "N-1", "model_name": "M",
             "valid_until": "2027-03-01"}
        ]}},
    }
)  # fmt: skip
WHY_NOT = "a secret is written in it (location.claim.secret)"
KEPT, LEFT_OUT = "request-1", "request-7"
"""Two ids: one that a sample of a half keeps, and one that it does not."""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a renamed region, three calls of it and one of another, and two receipts."""
    monkeypatch.setattr("gateway.cli.evidence._now_s", lambda: NOW_S)
    directory = tmp_path / "state"
    directory.mkdir()
    rows = [
        usage_row("a", user="pseudonym-of-a-user", request=KEPT),
        usage_row("b", region="europe", territory="FR", request=LEFT_OUT),
        usage_row("c", request="request-without-receipt"),
        usage_row("d", region="cn", territory="CN"),
    ]
    with closing(Ledger(ledger_file(directory), lambda: UTC)) as ledger:
        ledger.insert(rows)
    first = add_version(directory, BEFORE, "2026-09-01", "ada", "")
    add_version(directory, AFTER, "2026-11-02", "grace", first)
    table = table_of(AFTER)
    with closing(Receipts(directory, lambda: table, clock=lambda: NOW_S)) as store:
        place = {"location": replace(EU, territory="DE"), "client": "ios-app"}
        store.take(record_with(KEPT, 0.0, table.version, status=200, **place))
        store.take(record_with("refused", 0.0, table.version, outcome="refused", code="region_blocked", **place))
    return directory


def evidence(gateway: Command, state: Path, *more: str, first: str = "2026-10") -> Any:
    out = state.parent / "out"
    return gateway(
        "evidence", "--state", state, "--region", "eu", "--from", first, "--to", "2026-11", "--out", out, *more
    )


def test_folder_has_the_numbers_and_the_rules_of_the_region(gateway: Command, state: Path) -> None:
    shown = evidence(gateway, state)
    assert (shown.status, shown.err) == (0, "gateway: GATEWAY_RECEIPT_KEY is not set, so SHA256SUMS is not signed\n")
    made = json.loads((state.parent / "out/evidence.json").read_text("utf-8"))
    assert made["names"] == ["eu", "europe"]
    places = [(it["territory"], it["deployment"], it["processes"], it["calls"]) for it in made["prompts"]]
    assert places == [("DE", "gpt-eu", "@EEA, CH", 2), ("FR", "gpt-eu", "@EEA, CH", 1)]
    assert [(it["who"], it["at"]) for it in made["configurations"]] == [
        ("ada", "2026-09-01T00:00:00Z"),
        ("grace", "2026-11-02T00:00:00Z"),
    ]
    lines = made["configurations"][1]["lines"]
    assert lines[:2] == ["eu: @EEA, CH", "boundary: @EEA, CH"]
    assert "labels: eu-art50" in lines
    assert lines[-4:-2] == ["prompts of assistant go to", "eu:"]
    assert lines[-2].startswith("  1. chatgpt-eu: openai ")
    assert made["approvals"][0]["valid_until"] == "2027-03-01"
    assert made["attestations"] == [{"deployment": "chatgpt-eu", "attests": ["zdr"]}]
    vendors = [(it["provider"], it["deployment"], it["sign_in_hosts"]) for it in made["vendors"]]
    assert vendors == [("openai", "chatgpt-eu", []), ("bedrock", "claude-eu", ["sts.eu-central-1.amazonaws.com"])]
    assert all(it["source"].startswith("https://") and it["as_of"] is not None for it in made["vendors"])
    assert [(it["name"], it["show"]) for it in made["rules"]["labels"] if it["locale"] == "en"] == [
        ("eu-art50", "first_turn")
    ]
    assert made["token_issuers"] == [
        {
            "name": "entra",
            "issuer": "https://login.example.com/v2.0",
            "keys_from": "https://keys.example.com",
            "rules": 1,
        }
    ]
    assert made["refusals"] == [{"reason": "territory", "requests": 1}]
    assert made["proof"]["receipts"] == {
        "kept": True,
        "transit": False,
        "instances": 1,
        "oldest": "2026-11-24T12:00:00Z",
        "receipts": 2,
        "seals_checked": 2,
        "changed": 0,
        "samples": [SAMPLE, 1.0],
        "requests_left_out_by_the_sample": 0,
        "requests_without_receipt": 0,
        "without_receipt_by_day": {},
    }
    assert (made["missing_months"], made["recorded_since"]) == ([], None)


def test_receipts_that_the_sample_left_out_are_apart_from_missing_ones(gateway: Command, state: Path) -> None:
    with closing(sqlite3.connect(state / "ledger.db")) as database, database:
        database.execute("UPDATE usage_row SET time_ns = time_ns + ?", (2 * 3600 * 10**9,))
    assert evidence(gateway, state).status == 0
    proof = json.loads((state.parent / "out/evidence.json").read_text("utf-8"))["proof"]["receipts"]
    assert (proof["requests_left_out_by_the_sample"], proof["requests_without_receipt"]) == (1, 1)
    assert proof["without_receipt_by_day"] == {"2026-11-24": 1}


def test_sample_counts_as_it_was_when_the_request_ended(gateway: Command, state: Path) -> None:
    """The rule of the last configuration would call the request lost that the former one left out, and the reverse."""
    with closing(sqlite3.connect(state / "receipts.db")) as database, database:
        database.execute("UPDATE receipt SET at_s = ? WHERE id = ?", (NOON_NS / NANO - 60 * 86_400, KEPT))
    add_version(state, AFTER.merge({"receipts": {"sample": 1.0}}), "2026-11-24", "grace", "")
    with closing(Ledger(ledger_file(state), lambda: UTC)) as ledger:
        ledger.insert([usage_row("e", request="left-out-11", time_ns=NOON_NS - 5 * 86_400 * NANO)])
    assert evidence(gateway, state).status == 0
    proof = json.loads((state.parent / "out/evidence.json").read_text("utf-8"))["proof"]["receipts"]
    assert proof["requests_left_out_by_the_sample"] == 1
    assert proof["without_receipt_by_day"] == {"2026-11-24": 3}


@pytest.mark.parametrize("has_store", [True, False])
def test_without_receipts_nothing_is_stated_as_none(gateway: Command, state: Path, has_store: bool) -> None:
    if has_store:
        with closing(sqlite3.connect(state / "receipts.db")) as database, database:
            database.execute("DELETE FROM receipt")
    else:
        (state / "receipts.db").unlink()
    assert evidence(gateway, state).status == 0
    page = (state.parent / "out/index.html").read_text("utf-8")
    assert '<p class="missing">2026-11: receipts are missing.' in page
    assert '<p class="missing">There are no receipts in this state directory' in page
    assert "<p>Not known, because there are no receipts here.</p>" in page


def test_progress_is_one_line_for_each_store(gateway: Command, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipts of other regions are read too, so that their number may be a multiple of this region's requests."""
    monkeypatch.setattr("gateway.cli.evidence._SHOWN_EVERY", 1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shown = evidence(gateway, state)
    bars = [line.rpartition("\r")[2] for line in shown.err.split("\n") if "reading" in line]
    assert bars == [f"reading the ledger    [{'#' * 30}]", f"reading the receipts  [{'#' * 30}]"]


def test_key_that_cannot_sign_is_found_before_anything_is_read(
    gateway: Command, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = state.parent / "receipts.pem"
    key.write_bytes(new_key()[0])
    key.chmod(0o644)
    monkeypatch.setenv("GATEWAY_RECEIPT_KEY", str(key))
    (state / "ledger.db").unlink()
    shown = evidence(gateway, state)
    assert (shown.status, shown.err) == (
        2,
        f"gateway: GATEWAY_RECEIPT_KEY: {key} is readable by other users: run `chmod 600 {key}`\n",
    )


def test_months_with_requests_before_the_oldest_receipt_are_stated_in_red(gateway: Command, state: Path) -> None:
    with closing(Ledger(ledger_file(state), lambda: UTC)) as ledger:
        ledger.insert([usage_row("e", request="e", time_ns=NOON_NS - 30 * 86_400 * NANO)])
    assert evidence(gateway, state).status == 0
    made = json.loads((state.parent / "out/evidence.json").read_text("utf-8"))
    assert (made["months_with_missing_receipts"], made["missing_months"]) == (["2026-10"], [])
    page = (state.parent / "out/index.html").read_text("utf-8")
    assert '<p class="missing">2026-10: receipts are missing.' in page


def test_page_states_when_the_record_begins_and_has_the_vendors(gateway: Command, state: Path) -> None:
    assert evidence(gateway, state, first="2026-08").status == 0
    page = (state.parent / "out/index.html").read_text("utf-8")
    assert '<p class="missing">No configuration is recorded before 2026-09-01T00:00:00Z.</p>' in page
    (made,) = [line for line in page.splitlines() if line.startswith("<tr><td>bedrock</td>")]
    assert "sign-in sts.eu-central-1.amazonaws.com" in made
    assert "<p>Active from 2026-09-01T00:00:00Z until 2026-11-02T00:00:00Z, by ada (" in page


def test_folder_contains_nothing_of_a_client_a_user_or_a_request(gateway: Command, state: Path) -> None:
    with closing(sqlite3.connect(state / "history.db")) as database, database:
        database.execute("UPDATE activation SET summary = '~clients.ios-app.keys'")
    assert evidence(gateway, state).status == 0
    everything = b"".join(path.read_bytes() for path in (state.parent / "out").iterdir())
    for word in ("ios-app", "pseudonym", KEPT, LEFT_OUT, "request-without", "gpt-5-mini", "shop", "secret-group"):
        assert word.encode() not in everything, word
    assert b"<script" not in everything


def test_sums_are_signed_with_the_key_of_receipts(
    gateway: Command, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem, public = new_key()
    key = state.parent / "receipts.pem"
    key.write_bytes(pem)
    key.chmod(0o600)
    monkeypatch.setenv("GATEWAY_RECEIPT_KEY", str(key))
    assert evidence(gateway, state).err == ""
    out = state.parent / "out"
    sums = (out / "SHA256SUMS").read_bytes()
    named = dict(line.split("  ")[::-1] for line in sums.decode().splitlines())
    assert {*named} == {"evidence.json", "index.html", "key.pem"}
    assert all(hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in named.items())
    assert public.verifies((out / "SHA256SUMS.sig").read_bytes(), sums)
    raw = base64.b64decode("".join((out / "key.pem").read_text().splitlines()[1:-1]))[-32:]
    assert PublicKey.parse("ed25519:" + base64.b64encode(raw).decode()) == public
    assert public.text.removeprefix("ed25519:") in (out / "index.html").read_text("utf-8")


def test_months_with_deleted_rows_are_stated_in_red(gateway: Command, state: Path) -> None:
    with closing(sqlite3.connect(state / "ledger.db")) as database, database:
        database.execute("INSERT OR REPLACE INTO ledger_fact VALUES (?, ?)", (DELETED_THROUGH, "2026-10-15"))
    shown = evidence(gateway, state)
    assert "records of 2026-10 are missing" in shown.out
    page = (state.parent / "out/index.html").read_text("utf-8")
    assert '<p class="missing">2026-10: missing.' in page
    assert "2026-11: missing" not in page


def test_changed_receipt_and_broken_chain_are_stated(gateway: Command, state: Path) -> None:
    with closing(sqlite3.connect(state / "receipts.db")) as database, database:
        database.execute("UPDATE receipt SET content = replace(content, 'DE', 'FR') WHERE id = ?", (KEPT,))
    (state / "audit.jsonl").write_text('{"number": 1}\n')
    assert evidence(gateway, state).status == 0
    proof = json.loads((state.parent / "out/evidence.json").read_text("utf-8"))["proof"]
    assert (proof["receipts"]["changed"], proof["audit"]["ok"]) == (1, False)
    assert "not proven" in (state.parent / "out/index.html").read_text("utf-8")


def test_audit_trail_without_lines_proves_nothing(gateway: Command, state: Path) -> None:
    """A trail that was removed together with its head is not whole."""
    assert evidence(gateway, state).status == 0
    page = (state.parent / "out/index.html").read_text("utf-8")
    assert '<p class="missing">The audit trail is not proven: it has no lines.</p>' in page


@cases("words", "message")
def test_bad_input_is_refused_and_writes_nothing(gateway: Command, state: Path, words: list[str], message: str) -> None:
    shown = evidence(gateway, state, *words)
    assert shown.status == 2
    assert message in " ".join(shown.err.split())
    assert not (state.parent / "out").exists()


@pytest.mark.slow("starts PostgreSQL")
def test_record_of_a_cell_is_read_by_a_user_who_may_only_select(
    gateway: Command, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Audit(state, BEGINNING)) as audit:
        audit.append("started", datetime.fromtimestamp(NOW_S, UTC), {})
    lines = TrailReader(state).after(0, 10)
    with running_postgres() as server:
        upgrade(server.address())
        with closing(Ledger(Postgres(server.address()), lambda: UTC, "one")) as ledger:
            ledger.insert([usage_row("a", request=KEPT), usage_row("d", region="cn", territory="CN")])
        for instance in ("one", "two"):
            with closing(CellDatabase(server.address(), instance)) as database:
                CellRecord(database).ship([(1, *recorded(BEFORE, "2026-09-01", "ada"))], [])
                CellRecord(database).ship([(2, *recorded(AFTER, "2026-11-02", "grace"))], lines)
        server.sql(f"CREATE ROLE auditor LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_read_all_data")
        url = server.url.replace("gateway@", "auditor@")
        config = AFTER.merge(
            {
                "cell": {"territory": "DE", "serves": ["eu"]},
                "secrets": {"pepper": "${PEPPER}"},
                "stores": {"database": {"url": url, "password": "${DATABASE_PASSWORD}", "territory": "DE"}},
            }
        ).write(state.parent)
        for name, value in {**KEYS, "DATABASE_PASSWORD": PASSWORD, "PEPPER": "p" * 32}.items():
            monkeypatch.setenv(name, value)
        out = state.parent / "out"
        shown = gateway(
            "evidence", "--config", config, "--region", "eu", "--from", "2026-10", "--to", "2026-11", "--out", out
        )
    assert shown.status == 0, shown.err
    made = json.loads((out / "evidence.json").read_text("utf-8"))
    assert [(it["deployment"], it["calls"]) for it in made["prompts"]] == [("gpt-eu", 1)]
    activations = [(it["instance"], it["who"], it["until"]) for it in made["configurations"]]
    assert sorted(activations, key=str) == [
        ("one", "ada", "2026-11-02T00:00:00Z"),
        ("one", "grace", None),
        ("two", "ada", "2026-11-02T00:00:00Z"),
        ("two", "grace", None),
    ]
    proof = made["proof"]["audit"]
    assert (proof["lines"], proof["ok"], [it["instance"] for it in proof["trails"]]) == (2, True, ["one", "two"])
    assert made["proof"]["receipts"]["instances"] == 2
    assert "There are no receipts in this state directory" in (out / "index.html").read_text("utf-8")


def forget_texts(state: Path) -> None:
    """Leave the versions as a gateway records them if a secret is written in them."""
    with closing(sqlite3.connect(state / "history.db")) as database, database:
        database.execute("UPDATE version SET text = NULL, why_not = ?", (WHY_NOT,))


def test_version_with_a_secret_in_clear_is_named_and_the_rest_is_written(gateway: Command, state: Path) -> None:
    forget_texts(state)
    shown = evidence(gateway, state)
    assert shown.status == 0
    assert shown.err.count(WHY_NOT) == 2, "the key, of each version"
    assert "write a secret as ${NAME}" in shown.err
    made = json.loads((state.parent / "out/evidence.json").read_text("utf-8"))
    assert [it["calls"] for it in made["prompts"]] == [2]
    assert made["rules"] is None
    assert WHY_NOT in made["configurations"][0]["lines"][0]
    page = (state.parent / "out/index.html").read_text("utf-8")
    assert WHY_NOT in page
    assert len(made["configurations_not_read"]) == 2, "so that no approval means none that is known"
    for version in made["configurations_not_read"]:
        assert f"Version {version} cannot be read: rules, approvals" in page


def test_region_that_neither_ledger_nor_history_knows_is_refused(gateway: Command, state: Path) -> None:
    forget_texts(state)
    words = ("--region", "eeu", "--from", "2026-10", "--to", "2026-11", "--out", state.parent / "out")
    shown = gateway("evidence", "--state", state, *words)
    assert shown.status == 2
    assert "the ledger has no call of 'eeu' in these months" in shown.err
    assert not (state.parent / "out").exists()
