"""The users of tokens and of claims: one person of one issuer is one user, for names, time and budgets."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config.loading import parse_document
from gateway.features.configuration import compile_config
from gateway.features.duties import time_of_use
from gateway.features.duties.model import UseKey
from gateway.features.duties.state import use_records_of
from gateway.installation import note_named_users, pseudonym_key, users_renamed_ns
from gateway.model.record import Record
from gateway.policy.client_users import claim_issuer, former_names, names_of, people_named, plain_user, qualified_user
from gateway.service import location
from gateway.usage.accounting import Accounting, end_user_pseudonym
from providers.registry import load_registry
from tests.kit.claim_tokens import jwks, public
from tests.kit.claim_tokens import token as signed_claim
from tests.kit.configs import Config, table_of
from tests.kit.judged_chats import World, ask
from tests.kit.timed_gateway import CONFIG, NOON, SECRET, TimedGateway, headers, time_of_use_of

ISS = "https://i.example"
KEY = b"k" * 32


def with_tokens(folder: Path, **issuers: dict[str, Any]) -> dict[str, Any]:
    """Return a patch with these issuers of tokens, whose keys are in a file."""
    (folder / "keys.json").write_bytes(jwks(public("k1")))
    common = {"issuer": ISS, "audience": "api", "algorithms": ["ES256"], "jwks": str(folder / "keys.json")}
    rules = [{"client": "gk-1", "where": {"app": True}}]
    return {"token_issuers": {name: {**common, "clients": rules, **more} for name, more in issuers.items()}}


def config_of(folder: Path, *patches: Any, claims: bool = True) -> Any:
    config: Config = CONFIG if claims else CONFIG.merge({"location": {"claim": None, "signals": ["api_key"]}})
    return table_of(config.merge(*patches), {"CLAIM_SECRET": SECRET})


@pytest.mark.parametrize(
    ("issuers", "claims", "names"),
    [
        ({}, True, {ISS: [(ISS, "7"), "7"]}),
        ({"login": {}}, True, {"login": [("login", "7"), (ISS, "7"), "7"]}),
        ({"login": {}}, False, {"login": [("login", "7")]}),
        ({"login": {"issuer": "https://other"}}, True, {"login": [("login", "7")], ISS: [(ISS, "7"), "7"]}),
        # Two apps of one issuer.
        ({"web": {}, "cli": {"audience": "cli"}}, True, {"web": [("web", "7"), ("cli", "7"), (ISS, "7"), "7"]}),
        # Another member names the users of tokens, so it is not known that a subject is the same person.
        ({"login": {"user": "oid"}}, True, {"login": [("login", "7")], ISS: [(ISS, "7"), "7"]}),
    ],
)
def test_a_user_is_named_by_the_issuer(
    tmp_path: Path, issuers: dict[str, Any], claims: bool, names: dict[str, list[Any]]
) -> None:
    config = config_of(tmp_path, with_tokens(tmp_path, **issuers), claims=claims)
    expected = {
        of: tuple(qualified_user(*it) if isinstance(it, tuple) else it for it in its) for of, its in names.items()
    }
    assert names_of(config, "7") == expected
    assert people_named(config, "7", None) == {**expected, "": ("7",)}
    for of, its in expected.items():
        assert former_names(config, its[0]) == its[1:]
        assert people_named(config, "7", of) == {of: its}
        assert {plain_user(name) for name in its} == {"7"}
    assert former_names(config, "7") == ()


@pytest.mark.parametrize(
    ("user", "iss", "warns"), [("oid", ISS, True), ("sub", ISS, False), ("oid", "https://o", False)]
)
def test_check_warns_where_claims_and_tokens_of_an_issuer_name_users_by_other_members(
    tmp_path: Path, user: str, iss: str, warns: bool
) -> None:
    config = CONFIG.merge(with_tokens(tmp_path, login={"user": user, "issuer": iss}))
    document = parse_document(config.text.encode(), "x", {"CLAIM_SECRET": SECRET})
    warnings = compile_config(document, registry=load_registry()).warnings
    assert any("is two users" in it.message for it in warnings) is warns


def token_of(sub: str) -> dict[str, str]:
    now = time.time()
    text = signed_claim("k1", iss=ISS, aud="api", iat=now, exp=now + 600, sub=sub, app=True, territory=None)
    return {"authorization": f"Bearer {text}"}


def used(served: TimedGateway, sent: dict[str, str]) -> str:
    response = ask(served, "chat", headers=sent)
    assert response.status_code == 200, response.text
    return str(response.headers.get("x-gateway-use"))


def test_time_by_a_token_and_by_a_claim_of_its_issuer_is_time_of_one_user(tmp_path: Path) -> None:
    patch = {"regions": {"us-ca": {"age_missing": "days"}}}
    served = TimedGateway(tmp_path / "state", World(), with_tokens(tmp_path, login={}), patch)
    for minutes, sent in enumerate((token_of("anna"), headers(), token_of("anna"), headers(key="gk-2"))):
        assert used(served, sent) == f"day={1200 * minutes}; day-limit=7200"
        served.wait(20)
    assert used(served, token_of("ben")).startswith("day=0;")
    asserted = {"authorization": "Bearer gk-1", "x-gateway-user": "anna"}
    assert used(served, asserted).startswith("day=0;"), "a user that a client asserts is one of its own"


def use_under_the_former_name(served: TimedGateway, monkeypatch: pytest.MonkeyPatch, *, minutes: int) -> None:
    """Let Anna use the assistant for some minutes as before the names of users contained their issuer."""
    with monkeypatch.context() as earlier:
        earlier.setattr(location, "claim_issuer", lambda _: "")
        served.gateway.config.memo.clear()
        used(served, headers())
        served.wait(minutes)
        used(served, headers())
    served.gateway.config.memo.clear()


def test_time_under_the_former_name_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = {"regions": {"us-ca": {"age_missing": "days"}}}
    served = TimedGateway(tmp_path / "state", World(), with_tokens(tmp_path, login={}), patch)
    use_under_the_former_name(served, monkeypatch, minutes=20)
    for minutes, sent in enumerate((headers(), token_of("anna")), 1):
        assert used(served, sent) == f"day={1200 * minutes}; day-limit=7200"
        served.wait(20)


def test_times_that_were_kept_under_two_names_are_times_of_one_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = {"regions": {"us-ca": {"age_missing": "child", "labels": None, "age_bands": {"child": {"repeat": None}}}}}
    served = TimedGateway(tmp_path / "state", World(), with_tokens(tmp_path, login={}), patch)
    use_under_the_former_name(served, monkeypatch, minutes=25)
    served.wait(10)
    with monkeypatch.context() as earlier:
        earlier.setattr(time_of_use, "former_names", lambda *_: ())
        used(served, token_of("anna"))
    for sent in (token_of("anna"), headers()):
        served.wait(10)
        minutes = round(served.now_s - NOON)
        assert used(served, sent) == f"session={minutes}; session-limit=3600; day={minutes}; day-limit=7200"
    served.wait(10)
    assert ask(served, "chat", headers=headers()).json()["error"]["age"]["rule"] == "session"


@pytest.mark.parametrize(
    ("was_renamed", "per", "counts"), [(True, "total", True), (True, "day", True), (False, "day", False)]
)
def test_budget_under_the_former_name_goes_on_while_its_window_lasts(
    tmp_path: Path, was_renamed: bool, per: str, counts: bool
) -> None:
    """Where release 0.2 has named users, as release 1.0 noted it, and not in a directory that is new."""
    budget = {"clients": {"gk-1": {"user_budget": {"tokens": 10, "per": per}}}}
    config = config_of(tmp_path, with_tokens(tmp_path, login={}), budget)
    state = tmp_path / "state"
    note_named_users(state)
    if was_renamed:
        (state / "named-users").write_text(f"{time.time_ns()}\n")
    note_named_users(state)
    renamed_ns = users_renamed_ns(state)
    assert bool(renamed_ns) is was_renamed
    now_ns = [renamed_ns or time.time_ns()]
    accounting = Accounting(cast("Any", SimpleNamespace()), KEY, clock=lambda: now_ns[0], renamed_ns=renamed_ns)
    client = next(it for it in config.clients.values() if it.name == "gk-1")
    user = qualified_user(claim_issuer(config), "7")

    def counters(user: str) -> set[str]:
        request = accounting.request(config, client, user, Record("", 0.0, ""))
        return {it.counter.name for it in request._terms.limits.budgets}

    present = {end_user_pseudonym(config, KEY, qualified_user(of, "7")) for of in ("login", ISS)}
    bare = end_user_pseudonym(config, KEY, "7")
    assert counters(user) == (present | {bare} if counts else present)
    assert counters("7") == {bare}, "a user that a client asserts is one of its own"
    now_ns[0] += 86_400 * 10**9
    assert counters(user) == (present | {bare} if counts and per == "total" else present)


def test_erasure_of_a_person_knows_every_name(tmp_path: Path) -> None:
    served = TimedGateway(tmp_path / "state", World(), with_tokens(tmp_path, login={}))
    used(served, headers())
    served.gateway.flush()
    config = served.gateway.config
    key = pseudonym_key(config, tmp_path / "state")
    names = [end_user_pseudonym(config, key, it) for of in people_named(config, "anna", None).values() for it in of]
    time_of_use_of(served.gateway).times.store.close()  # type: ignore[attr-defined]
    records = use_records_of(tmp_path / "state", names, None)
    assert [it for it, _ in records] == [UseKey(end_user_pseudonym(config, key, qualified_user("login", "anna")))]
