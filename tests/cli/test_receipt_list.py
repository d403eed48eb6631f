"""`gateway receipt`: `list` shows those of a state directory, by the caller's territory and by days in UTC; `verify`
rejects a file that was changed after signing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.features.shadow.model import ShadowNote
from gateway.model.deployment import Proxy
from gateway.model.record import AnsweredBy, AttemptRecord, Record
from gateway.signing import RECEIPT_KIND, Signer, new_key
from gateway.state import receipts
from gateway.state.receipts import Receipts
from providers.failures import Failure, FailureKind
from providers.territories import Places
from tests.cli.conftest import Command
from tests.kit.case_files import cases
from tests.kit.configs import BASE, table_of
from tests.kit.request_records import EU, record_with

# --- list ------------------------------------------------------------------------------------------


TABLE = table_of(BASE)
INSIDE, OUTSIDE = ("DE, FR", "DE, FR"), ("US", "any")
FAILED = Failure(FailureKind.UNAVAILABLE, "the provider is down", status=503)


def sent_to(name: str, places: tuple[str, str] = INSIDE, failure: Failure | None = None) -> AttemptRecord:
    return AttemptRecord(name, "openai", "m-1", 0.1, failure, 0.0, places)


def request(name: str, territory: str | None = "DE", attempts: Iterable[AttemptRecord] = (), **more: Any) -> Record:
    attempts = [*attempts] or [sent_to("house")]
    record = record_with(
        name, 0.0, TABLE.version, client="app", location=replace(EU, territory=territory), status=200, **more
    )
    record.answered_by = AnsweredBy(attempts[-1].deployment, "openai", "m-1", attempts[-1].places)
    record.attempts = attempts
    return record


def keep(directory: Path, *records: tuple[str, Record]) -> None:
    """Store receipts, each of a request that ended at a time in UTC."""
    for at, record in records:
        at_s = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
        with closing(Receipts(directory, lambda: TABLE, clock=lambda at_s=at_s: at_s)) as store:  # type: ignore[misc]
            store.take(record)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    keep(
        tmp_path,
        ("2026-10-01T00:00:00", request("first")),
        ("2026-10-01T23:59:59.9", request("bavarian", "DE-BY")),
        ("2026-10-02T00:00:00", request("french", "FR")),
        ("2026-10-02T12:00:00", request("unknown", None)),
        ("2026-10-03T00:00:00", request("last")),
    )
    return tmp_path


@cases("options", "found")
def test_receipts_are_chosen_by_territory_and_days(
    gateway: Command, state: Path, options: list[str], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A country contains its parts, and the last day is included. Every page is read."""
    for most in (1_000, 2, 1):
        monkeypatch.setattr(receipts, "_PAGE", most)
        shown = gateway("receipt", "list", "--state", state, *options, "--json")
        assert (shown.status, shown.err) == (0, "")
        assert [json.loads(line)["id"] for line in shown.out.splitlines()] == found
    lines = gateway("receipt", "list", "--state", state, *options).out.splitlines()
    if found:
        assert [line.split()[5] for line in lines[1 : len(found) + 1]] == found
        assert lines[-1].split()[0] == str(len(found))
    else:
        assert lines == ["there are no receipts of such requests"]


def test_table_names_each_deployment_that_was_sent_something(gateway: Command, tmp_path: Path) -> None:
    proxied = replace(sent_to("far", OUTSIDE), proxy=Proxy("http://proxy.example:3128", Places(frozenset({"CH"}))))
    keep(
        tmp_path,
        (
            "2026-10-01T08:30:00",
            request(
                "r-1",
                attempts=[sent_to("house", failure=FAILED), sent_to("house", failure=FAILED), proxied],
                judges=[sent_to("guard")],
                notes=(ShadowNote(sent_to("trial")),),
            ),
        ),
    )
    assert (
        gateway("receipt", "list", "--state", tmp_path).out
        == """\
time                  territory  region    outcome      client        request                               sent to
2026-10-01T08:30:00Z  DE         eu        ok           app           r-1                                   house in DE, FR; far in any, stored in US, through a proxy in CH; guard in DE, FR (verdict); trial in DE, FR (shadow)

1 receipt
"""
    )


def test_days_before_the_oldest_receipt_are_named(gateway: Command, state: Path) -> None:
    shown = gateway("receipt", "list", "--state", state, "--from", "2026-09-30", "--territory", "FR", "--json")
    assert (shown.status, json.loads(shown.out)["id"]) == (0, "french")
    assert shown.err.startswith(
        "gateway: --from is before the oldest receipt that is kept, of 2026-10-01T00:00:00+00:00: "
        "earlier ones were deleted (`receipts.keep`), or none was written"
    )


def test_changed_receipts_are_not_shown(gateway: Command, state: Path) -> None:
    """The territory that they name now decides nothing. A receipt that is not JSON is a changed one."""
    with closing(sqlite3.connect(state / "receipts.db")) as database, database:
        change = "UPDATE receipt SET content = replace(content, '\"DE\"', '\"US\"') WHERE id = 'first'"
        assert database.execute(change).rowcount == 1
        assert database.execute("UPDATE receipt SET content = '{' WHERE id = 'last'").rowcount == 1
    for territory, found in (("DE", ["bavarian"]), ("US", [])):
        shown = gateway("receipt", "list", "--state", state, "--territory", territory, "--json")
        assert [json.loads(line)["id"] for line in shown.out.splitlines()] == found
        problem = "2 receipts of these days were changed after they were stored, and are not shown"
        assert (shown.status, shown.err) == (1, f"gateway: {problem}; the first is of the request first\n")


@cases("options", "message")
def test_wrong_option_names_the_fix(gateway: Command, state: Path, options: list[str], message: str) -> None:
    shown = gateway("receipt", "list", "--state", state, *options)
    assert (shown.status, shown.out) == (2, "")
    assert message in shown.err


def test_directory_without_receipts_is_an_error(gateway: Command, tmp_path: Path) -> None:
    assert "no state directory is set: set GATEWAY_STATE_DIR, or use --state DIR" in gateway("receipt", "list").err
    shown = gateway("receipt", "list", "--state", tmp_path)
    message = f"there are no receipts in {tmp_path}: a gateway that serves with this state directory keeps them\n"
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.endswith(message)
    assert [*tmp_path.iterdir()] == []


# --- verify ----------------------------------------------------------------------------------------


RECEIPT = {"version": 1, "id": "req_1", "region": "eu", "status": 200, "tried": [{"deployment": "a"}]}
NOT_SIGNED = "it was changed after it was signed"
TWICE = "is not valid JSON, or has a duplicate key"


@pytest.fixture
def signed() -> tuple[str, str]:
    """Return a receipt as the gateway returns it, and the key."""
    pem, public = new_key()
    path = Path("key.pem")
    path.write_bytes(pem)
    path.chmod(0o600)
    shown = {"receipt": RECEIPT, "jws": Signer.read(path).sign(RECEIPT_KIND, RECEIPT), "key": public.text}
    return json.dumps(shown), public.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text, None),
        (lambda text: json.dumps(json.loads(text), indent=4, sort_keys=True), None),
        (lambda text: text.replace('"eu"', '"us"'), NOT_SIGNED),
        (lambda text: text.replace('"version": 1', '"version": true'), NOT_SIGNED),
        (lambda text: text.replace("200", "200.0"), NOT_SIGNED),
        (lambda text: text.replace('"key": "ed25519:', '"key": "ed25519:x'), NOT_SIGNED),
        (lambda text: text.replace('"region": "eu"', '"region": "us", "region": "eu"'), TWICE),
        (lambda text: text.replace('{"receipt"', '{"receipt": {"region": "us"}, "receipt"'), TWICE),
        (lambda text: text.replace('{"deployment"', '{"deployment": "b", "deployment"'), TWICE),
    ],
)
def test_receipt_verify_rejects_a_file_that_differs_from_the_signed_receipt(
    gateway: Command, signed: tuple[str, str], change: Callable[[str], str], message: str | None
) -> None:
    text, key = signed
    Path("receipt.json").write_text(change(text))
    done = gateway("receipt", "verify", "receipt.json", "--key", key)
    assert (done.status == 0) == (message is None), done.err
    assert message is None or message in done.err
    assert message is not None or json.loads(done.out) == RECEIPT
