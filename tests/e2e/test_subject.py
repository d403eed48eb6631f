"""Export and erase an end user: a marker of the person is searched in every file and every table before and after."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from gateway.cell.postgres import Postgres
from gateway.installation import users_renamed_ns
from gateway.usage.ledger import Ledger, Person, ledger_file
from gateway.usage.reports import UsageQuery, UsageReader
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.claim_tokens import ISSUER, jwks, public
from tests.kit.claim_tokens import token as signed_token
from tests.kit.configs import key_hash
from tests.kit.gateway_command import in_this_process
from tests.kit.metered_gateway import CAP, client_of
from tests.kit.metered_provider import APP_KEY
from tests.kit.postgres_server import RunningPostgres
from tests.kit.reloading_gateway import Operator, config, operated
from tests.kit.store_cell import cell
from tests.kit.usage_rows import keep_rows, usage_row
from tests.kit.waiting import eventually

ANNA, BEN = "anna@example.com", "ben@example.com"
WORDS = {ANNA: "My mare is Rosalind.", BEN: "My dog is Bello."}
IDS = {ANNA: "request-of-anna", BEN: "request-of-ben"}
USER_BUDGET = {"may_assert": ["user"], "user_budget": {"tokens": 1_000_000, "per": "total"}}
CLIENT = {"keys": [key_hash(APP_KEY)], **USER_BUDGET}
OTHER_KEY = "gk-other"
SHADOW_RULE = {"deployment": "b", "share": "100%", "keep_text": True}
SHADOW = {"assistants": {"assistant": {"shadow": {"default": SHADOW_RULE}}}}
INSTALLATION: tuple[Mapping[str, Any], ...] = (
    {"clients": {"app": CLIENT, "other": {**CLIENT, "keys": [key_hash(OTHER_KEY)]}}},
    {"receipts": {"keep": "30d"}, "cell": {"territory": "DE"}},
    SHADOW,
    {"regions": {"default": {"use": {}}}},
)
EVERY_DAY = ("2000-01-01", "2100-01-01")


@pytest.fixture
def operator(tmp_path: Path, pair: SimulatorThread) -> Iterator[Operator]:
    """A gateway that has answered a request of each person, and one of Anna's with another client."""
    path = config(pair, "a", 0, *INSTALLATION).write(tmp_path)
    with operated(path, GATEWAY_STATE_DIR=str(tmp_path / "state")) as operator:
        ask(operator, ANNA, OTHER_KEY, "request-elsewhere", "Nothing.")
        for user in (ANNA, BEN):
            ask(operator, user, APP_KEY, IDS[user], WORDS[user])
        # Each request has its row, that of its shadow, and the result of the shadow.
        eventually(lambda: all(files_with(tmp_path / "state", words) for words in (*WORDS.values(), "Nothing.")))
        eventually(lambda: len(rows(tmp_path / "state")) >= 6)
        eventually(lambda: len(export(tmp_path / "state", ANNA)["receipts"]) == 2)
        yield operator


def ask(operator: Operator, user: str, key: str, request: str, words: str) -> None:
    headers = {"authorization": f"Bearer {key}", "x-gateway-user": user, "x-request-id": request}
    answer = operator.client.post(
        CHAT, json=body(messages=[{"role": "user", "content": words}], user=user), headers=headers
    )
    assert answer.status_code == 200, answer.text


def run(state: Path, *words: str, status: int = 0) -> str:
    done = in_this_process(*words, "--state", str(state))
    assert done.returncode == status, done.stderr
    return done.stdout


def export(state: Path, user: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(state, "subject", "export", "--user", user, *more))
    assert {*found} == {"subject", "usage", "budgets", "shadow", "use", "receipts", "elsewhere"}
    return found


def rows(state: Path) -> list[Any]:
    with UsageReader(state) as reader:
        return list(reader.rows(UsageQuery((), *EVERY_DAY)))


def files_with(folder: Path, marker: str) -> set[str]:
    """Return the names of the files in a directory that have a text, also in their free space."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).parts[0] for path in files if marker.encode() in path.read_bytes()}


def sums(state: Path) -> Any:
    with UsageReader(state) as reader:
        return reader.report(UsageQuery(("client", "deployment"), *EVERY_DAY)).data()


@pytest.mark.slow("starts a gateway and asks it by commands")
def test_commands_mean_the_user_of_an_issuer_by_the_bare_subject(tmp_path: Path, pair: SimulatorThread) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(public("k1")))
    signed = {"algorithms": ["ES256"], "jwks": str(tmp_path / "keys.json")}
    issuer = {"issuer": ISSUER, "audience": "api", **signed, "clients": [{"client": "app", "where": {"app": True}}]}
    claims = {"signals": ["claim"], "claim": {"issuer": ISSUER, "audience": "claims", **signed}}
    budget = {**CLIENT, "user_budget": {"tokens": 10_000_000, "per": "day"}}
    more = {"token_issuers": {"login": issuer, "other": {**issuer, "issuer": "https://o"}}, "location": claims}
    path = config(pair, "a", 0, {"clients": {"app": budget}}, more).write(tmp_path)
    state, now = tmp_path / "state", time.time()

    def ask(iss: str = ISSUER, **headers: str) -> None:
        valid = {"iss": iss, "iat": now, "exp": now + 600, "sub": ANNA}
        token = headers.pop("token", "") and signed_token("k1", aud="api", app=True, territory=None, **valid)
        sent = {"authorization": f"Bearer {token or APP_KEY}", **headers}
        if headers.pop("claim", ""):
            sent["x-gateway-claim"] = signed_token("k1", aud="claims", **valid)
        answer = operator.client.post(CHAT, json=body(), headers=sent)  # type: ignore[attr-defined]
        assert answer.status_code == 200, answer.text

    def shown(*more: str) -> list[str]:
        found = json.loads(run(state, "budgets", "show", "--user", ANNA, "--client", "app", "--json", *more))
        return [one["spent"] for one in found["budgets"]]

    def calls(*more: str) -> int:
        return sum(row["kind"] == "usage" for row in export(state, ANNA, *more)["usage"]["rows"])

    with operated(path, GATEWAY_STATE_DIR=str(state)) as operator:
        ask(claim="1")
        [once] = shown()
        ask(token="1")  # no secret
        assert shown() == [str(2 * int(once))]
        run(state, "budgets", "reset", "--user", ANNA, "--client", "app", "--per", "day")
        assert shown("--issuer", "login") == shown("--issuer", ISSUER) == ["0"]
        ask(**{"x-gateway-user": ANNA})
        assert shown() == [once], "it was reset, and the client's own user counts apart"
        eventually(lambda: calls() == 3)
        assert calls("--issuer", "login") == 2
        ask(token="1")  # no secret
        ask("https://o", token="1")  # no secret
        for command in (("budgets", "show"), ("subject", "export")):
            refused = in_this_process(*command, "--user", ANNA, "--state", str(state))
            assert "2 issuers name a user" in refused.stderr
        assert shown("--issuer", "other") == [once]
    for issuer in ("login", ISSUER, "lgoin"):
        notes = [one for one in export(state, ANNA, "--issuer", issuer)["elsewhere"] if "issuer" in one["place"]]
        assert [one["why"] for one in notes] == (
            ["it is not in the configuration, which names: login, other"] if issuer == "lgoin" else []
        )


@pytest.mark.slow("uses every file of a state directory")
def test_an_erasure_leaves_no_marker_of_the_person_in_any_file_and_all_sums(operator: Operator, tmp_path: Path) -> None:
    state = tmp_path / "state"
    run(state, "budgets", "top-up", "--user", ANNA, "--client", "app", "--per", "total", "--amount", "5000")
    eventually(lambda: len(export(state, ANNA)["usage"]["rows"]) == 3)
    before, exported = sums(state), export(state, ANNA)
    [pseudonym] = exported["subject"]["pseudonyms"]
    assert [row["request"] for row in exported["usage"]["rows"]] == ["request-elsewhere", IDS[ANNA], None]
    assert {row["user"] for row in exported["usage"]["rows"]} == {pseudonym}
    assert sum(group["calls"] for group in exported["usage"]["totals"]) == 2
    assert WORDS[ANNA] in json.dumps(exported["shadow"])
    assert WORDS[BEN] not in json.dumps(exported)
    assert [one["client"] for one in exported["use"]] == ["app", "other"]
    assert {*exported["use"][0]} == {"client", "date", "began", "seen", "day_s", "noticed"}
    assert {one["id"] for one in exported["receipts"]} == {"request-elsewhere", IDS[ANNA]}
    assert {(one["client"], one["spent"] != "0") for one in exported["budgets"]} == {("app", True), ("other", True)}
    eventually(lambda: "audit.jsonl" in files_with(state, pseudonym))
    assert files_with(state, pseudonym) & {"ledger.db", "ledger.db-wal"}
    assert not files_with(state, ANNA), "no file has the name itself"

    done = json.loads(run(state, "subject", "erase", "--user", ANNA, "--yes", "--json"))
    assert done["erased"] == {"usage_rows": 3, "daily_totals": 2, "budgets": 2, "shadow": 2, "use": 2}
    places = {one["place"]: one["why"] for one in done["remains"]}
    assert places["audit trail"].startswith("1 lines"), "the top-up"
    assert places["receipts"].startswith("2:")
    assert {"logs and traces", "backups", "providers"} <= places.keys()
    assert files_with(state, WORDS[ANNA]) == set()
    assert files_with(state, WORDS[BEN]) & {"shadow.db", "shadow.db-wal"}
    assert files_with(state, IDS[ANNA]) <= {"receipts.db", "receipts.db-wal", "journal"}
    assert files_with(state, pseudonym) <= {"audit.jsonl", "journal"}
    assert sums(state) == before, "sums of money and tokens are exact"
    after = export(state, ANNA)
    assert (after["usage"], after["shadow"], after["receipts"]) == ({"rows": [], "totals": []}, [], [])
    assert after["use"] == []
    assert {one["spent"] for one in after["budgets"]} == {"0"}
    assert len(export(state, BEN)["usage"]["rows"]) == len(export(state, BEN)["use"]) == 1
    trail = [json.loads(line)["event"] for line in (state / "audit.jsonl").read_text().splitlines()]
    eventually(lambda: trail.count("subject_exported") > 0)
    ask(operator, ANNA, APP_KEY, "request-later", "Hello")
    eventually(lambda: len(export(state, ANNA)["usage"]["rows"]) == 1)


def test_an_erasure_with_one_client_leaves_the_other_client(operator: Operator, tmp_path: Path) -> None:
    answer = operator.admin.post("/v1/admin/subject/erase", json={"user": ANNA, "client": "app"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["erased"] == {"usage_rows": 1, "daily_totals": 1, "budgets": 1, "shadow": 1, "use": 1}
    remote = in_this_process("subject", "export", "--user", ANNA, "--admin", operator.gateway.admin_url)
    left = json.loads(remote.stdout)
    assert [row["request"] for row in left["usage"]["rows"]] == ["request-elsewhere"]
    assert [one["client"] for one in left["use"]] == ["other"]
    assert operator.admin.post("/v1/admin/subject/erase", json={"client": "app"}).status_code == 400


@pytest.mark.slow
def test_an_erasure_is_confirmed_and_works_without_a_running_gateway(operator: Operator, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert operator.gateway.stop() == 0
    run(state, "subject", "erase", "--user", ANNA, status=2)
    found = export(state, ANNA)
    assert len(found["usage"]["rows"]) == 2
    keep_rows(state, usage_row("waiting", user=found["subject"]["pseudonyms"][0]))
    text = run(state, "subject", "erase", "--user", ANNA, "--yes")
    assert "usage_rows    3" in text
    assert [row.user for row in rows(state) if row.call == "waiting"] == [None]
    assert "- backups: " in text
    assert export(state, ANNA)["usage"]["rows"] == []


@pytest.mark.parametrize(
    "row", [usage_row("late"), usage_row("of-another-client", client="other"), usage_row("of-ben", user="u_2")]
)
def test_a_row_that_arrives_after_the_erasure_has_no_person(tmp_path: Path, row: Any) -> None:
    row.user, row.time_ns = row.user or "u_1", time.time_ns()
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.erase(Person(("u_1",), "ios-app"), row.time_ns, [])
        later = usage_row("later", user="u_1", time_ns=row.time_ns + 1)
        ledger.insert([row, later])
    found = {one.call: one for one in rows(tmp_path)}
    is_erased = row.call == "late"
    assert (found[row.call].user is None, found[row.call].territory is None) == (is_erased, is_erased)
    assert found["later"].user == "u_1"


# A cell.


@pytest.mark.slow("starts stores and gateways")
def test_an_erasure_reaches_both_stores_and_the_other_instances_of_a_cell(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    shadow = {"assistants": {"assistant": {"shadow": {"default": {**SHADOW_RULE, "deployment": "spare"}}}}}
    counted = {"regions": {"default": {"use": {}}}}
    more: list[Any] = [{"cell": {"territory": "DE"}}, {"secrets": {"identity": "i" * 40}}, counted]
    with cell(tmp_path, postgres, {"clients": {"app": USER_BUDGET}}, *more, shadow, route="ok, spare") as both:
        assert [users_renamed_ns(both.state(number)) for number in (0, 1)] == [0, 0], "both are new"
        for number, user in enumerate((ANNA, ANNA, BEN)):
            with client_of(both.instances[number % 2]) as client:
                headers = {"x-gateway-user": user, "x-request-id": f"request-{number}"}
                message = {"role": "user", "content": WORDS[user]}
                answer = client.post(CHAT, json=body(max_tokens=CAP, messages=[message]), headers=headers)
                assert answer.status_code == 200, answer.text
        eventually(lambda: all(files_with(both.state(number), WORDS[ANNA]) for number in (0, 1)))
        eventually(lambda: len(both.rows()) >= 6)
        before = [row | {"user": None, "request": None, "territory": None} for row in both.rows()]
        exported = json.loads(both.run("subject", "export", "--user", ANNA))
        [pseudonym, *_] = exported["subject"]["pseudonyms"]
        assert [row["request"] for row in exported["usage"]["rows"]] == ["request-0", "request-1"]
        assert [one["client"] for one in exported["use"]] == ["app"]
        assert pseudonym in database_text(postgres)
        assert [one["spent"] != "0" for one in exported["budgets"]] == [True]

        erased = json.loads(both.run("subject", "erase", "--user", ANNA, "--yes", "--json"))
        assert erased["erased"] == {"usage_rows": 2, "daily_totals": 1, "budgets": 1, "shadow": 1, "use": 1}
        assert pseudonym not in database_text(postgres)
        assert [row | {"user": None, "request": None, "territory": None} for row in both.rows()] == before
        after = json.loads(both.run("subject", "export", "--user", ANNA, number=1))
        assert (after["usage"]["rows"], [one["spent"] for one in after["budgets"]]) == ([], ["0"])
        assert after["use"] == []
        eventually(lambda: not any(files_with(both.state(number), WORDS[ANNA]) for number in (0, 1)))
        assert files_with(both.state(0), WORDS[BEN])
        assert len(json.loads(both.run("subject", "export", "--user", BEN))["usage"]["rows"]) == 1


def database_text(server: RunningPostgres) -> str:
    """Return the rows of all tables."""

    async def read(connection: Any) -> str:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return "".join([str(await connection.fetch(f"SELECT * FROM {name}")) for (name,) in tables])  # noqa: S608

    with closing(Postgres(server.address())) as database:
        return database.run(read)
