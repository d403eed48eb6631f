"""The admin listener: its documents, its refusals, and that it shows no secret."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import structlog
import yaml

from gateway.api import admin_status, status_problems
from gateway.api.admin import build_admin
from gateway.api.admin_guard import Guard
from gateway.api.admin_status import problem_counts, status_document
from gateway.api.caller.authentication import MOST_FAILED_KEYS
from gateway.api.status_problems import ProblemKind
from gateway.cli.admin_client import AdminAnswer
from gateway.cli.operations import status_lines
from gateway.cli.terminal import json_text
from gateway.free_space import FreeSpace
from gateway.model.budget import Money, Stores, StoreServer
from gateway.model.decision import Unavailable
from gateway.model.held_token import TokenStatus
from gateway.model.status import AnswerTimes, AskedCounts, Finding, Overview, Status, Traffic, TrafficCounts
from gateway.model.stored_client import Role
from tests.gateway.admin_calls import LOADED, TABLE, AdminCallbacks
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, table_of

TOKEN = "a-token-of-the-operator"
MISTAKE = Finding("error", "gateway.yaml", 3, 5, "regions", "is missing", "add it")
BENCHED = Unavailable("benched: the provider refuses our key", 12.34)
OPEN = Unavailable("breaker open for all: 5 different requests failed, the last: 503", 9.96, by_breaker=True)
ALL_OPEN = dict.fromkeys(TABLE.deployments, OPEN)


def client(callbacks: AdminCallbacks, guard: Guard | None = None, host: str = "127.0.0.1:8081") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(build_admin(callbacks, guard or Guard()))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.fixture
def callbacks() -> AdminCallbacks:
    return AdminCallbacks()


async def test_readiness_in_detail(callbacks: AdminCallbacks) -> None:
    answer = await client(callbacks).get("/readyz")
    assert answer.status_code == 200
    state = answer.json()
    assert state["status"] == "ready"
    assert state["config_version"]["version"] == TABLE.version
    loaded = state["config_version"]["loaded"]
    assert (loaded["cause"], loaded["at"]) == ("start", "2026-11-20T12:00:00.000+00:00")
    assert state["last_failed_reload"] is None
    assert state["deployments"]["off"] == {"chatgpt-us": "no credential: OPENAI_US_API_KEY is not set"}
    assert (state["workers"]["wanted"], state["workers"]["restarts"]) == (2, 1)
    assert [worker["seat"] for worker in state["workers"]["running"]] == [1, 2]
    assert state["workers"]["running"][0]["pid"] == 4711


def test_status_names_the_version_of_the_file_while_a_schedule_runs(callbacks: AdminCallbacks) -> None:
    now = replace(callbacks.now, config=replace(TABLE, version=f"{TABLE.version}+12ab"))
    document = document_of(now)
    assert (document["version"], document["instances"][0]["version"]) == (TABLE.version, TABLE.version)


def document_of(status: Status, space: FreeSpace | None = None) -> Any:
    return status_document(status, Overview("berlin-1", "1", 0, space=space))


def said_of(status: Status, word: str = "problems") -> Any:
    return document_of(status)[word]


def lines_of(status: Status) -> list[str]:
    return [*status_lines(AdminAnswer(document_of(status)))]


@cases("counts", "is_problem")
def test_region_whose_requests_fail_is_a_problem(
    callbacks: AdminCallbacks, counts: tuple[int, ...], is_problem: bool
) -> None:
    seen, good = {"eu": Traffic(*counts)}, {"eu": Traffic(90_000, counts[1], 90_000 - counts[1])}
    text = f"eu: {counts[1]} of {counts[0]} requests failed in the last"
    for traffic, when in ((TrafficCounts(seen), "5 minutes"), (TrafficCounts(good, seen), "30 s")):
        assert (f"{text} {when}" in said_of(replace(callbacks.now, traffic=traffic))) is is_problem


def test_counts_that_cannot_be_true_name_the_key_that_believes_them(callbacks: AdminCallbacks) -> None:
    counts = {("agent", "input"): 12, ("agent", "other"): 1}
    now = replace(callbacks.now, traffic=TrafficCounts(implausible=counts))
    high, other = said_of(now, "warnings")
    assert high == (
        "usage_implausible: 12 counts of the provider of agent since the start can't be true, so these calls are booked as "
        "estimates; if it adds prompts of its own, write `counts_hidden: true` at the deployment"
    )
    assert other.startswith("usage_implausible: 1 count of")
    assert "counts_hidden" not in other
    assert said_of(now, "usage_implausible") == {"agent": 13}


def test_outage_that_is_over_is_a_warning(callbacks: AdminCallbacks) -> None:
    failed = {"eu": Traffic(100, 60, 40)}
    over = replace(callbacks.now, traffic=TrafficCounts(failed, {"eu": Traffic(5, 0, 5)}))
    text = "eu: 60 of 100 requests failed in the last 5 minutes"
    assert (text in said_of(over), text in said_of(over, "warnings")) == (False, True)
    for recent in ({}, {"eu": Traffic(5, 1, 4)}):
        now = replace(callbacks.now, traffic=TrafficCounts(failed, recent))
        assert (text in said_of(now), text in said_of(now, "warnings")) == (True, False)


def test_outage_of_the_last_requests_is_a_problem_until_the_last_30_s_are_good(callbacks: AdminCallbacks) -> None:
    good, last = Traffic(900, 20, 880), Traffic(22, 20, 2)
    text = "eu: 20 of the last 22 requests failed"
    for recent, is_problem in ((Traffic(60, 20, 40), True), (Traffic(3, 0, 3), False), (Traffic(), True)):
        traffic = TrafficCounts({"eu": good}, {"eu": recent}, last={"eu": last})
        assert (text in said_of(replace(callbacks.now, traffic=traffic))) is is_problem


@pytest.mark.parametrize(
    ("times", "is_problem"),
    [
        (AnswerTimes(16, None, 34.0), True),  # nothing to compare with
        (AnswerTimes(16, None, 19.9), False),
        (AnswerTimes(16, 20.0, 21.0), True),
        (AnswerTimes(4, None, 34.0), False),  # too few
        (AnswerTimes(16, None, 34.0, 50, None, 16.9), True),
        (AnswerTimes(16, None, 34.0, 50, None, 17.0), False),  # a model that thinks
        (AnswerTimes(16, None, 4.9, 50, None, 0.1), False),
        (AnswerTimes(16, 5.0, 20.0, 50, 2.4, 19.0), True),  # the first byte alone
        (AnswerTimes(16, 5.0, 9.0, 4, 0.1, 0.1), False),
    ],
)
def test_answers_that_are_slower_than_an_hour_ago_are_a_problem(
    callbacks: AdminCallbacks, times: AnswerTimes, is_problem: bool
) -> None:
    now = replace(callbacks.now, traffic=TrafficCounts({"eu": Traffic(16, 0, 16)}, times={"eu": times}))
    slow = [text for text in said_of(now) if text.startswith("eu: the answers are slow: 95 % ")]
    assert bool(slow) is is_problem
    assert said_of(now, "traffic")["times"]["eu"]["end_p95_s"] == times.end_s
    assert any(f"end within {times.end_s:.2f} s" in line for line in lines_of(now))


def test_line_of_a_region_whose_last_requests_failed_is_marked(callbacks: AdminCallbacks) -> None:
    counts = {"eu": Traffic(900, 20, 880), "us": Traffic(5, 1, 4)}
    traffic = TrafficCounts(counts, last={"eu": Traffic(20, 10, 10), "us": Traffic(5, 1, 4)})
    lines = lines_of(replace(callbacks.now, traffic=traffic))
    assert [line[:4] for line in lines if "requests, " in line] == ["! eu", "  us"]


def test_status_states_how_long_the_last_change_took(callbacks: AdminCallbacks) -> None:
    loaded = replace(callbacks.now.loaded, cause="file", duration_s=1.24, waited_s=0.31)
    now = replace(callbacks.now, loaded=loaded)
    assert said_of(now, "last_change") == {"cause": "file", "duration_ms": 1240.0, "waited_ms": 310.0}
    assert ", 1.2 s after the file (0.3 s of it without a core)" in lines_of(now)[0]
    started = replace(callbacks.now, loaded=replace(loaded, cause="start"))
    assert said_of(started, "last_change") is None


def paths_of(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each member of a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        if isinstance(value, dict):
            yield (*path, name)
        yield from paths_of(child, *path, name)


def test_status_of_another_release_that_lacks_any_member_is_shown(callbacks: AdminCallbacks) -> None:
    slow = {"eu": AnswerTimes(16, 5.0, 20.0, 50, 2.4, 19.0)}
    traffic = {"eu": Traffic(16, 8, 8)}
    now = replace(callbacks.now, traffic=TrafficCounts(traffic, traffic, last=traffic, times=slow))
    whole = {**document_of(now, FreeSpace(10**9, 10**10)), "unknown": {"a": [1]}}
    whole |= {"stores": {"valkey": "ok"}, "retirements": [{"deployment": "d", "on": "2027-01-01"}]}
    whole["approvals"] = [{"deployment": "d", "region": "eu", "until": "2027-01-01"}]
    expected = [*status_lines(AdminAnswer(whole))]
    assert any("begin within 5.00 s, end within 20.00 s (19.00 s an hour ago)" in line for line in expected)
    for path in paths_of(json.loads(json_text(whole))):
        document = json.loads(json_text(whole), object_hook=AdminAnswer)
        parent: Any = document
        for name in path[:-1]:
            parent = parent[name]
        del parent[path[-1]]
        lines = [*status_lines(document)]
        assert lines
        if path[-1] == "unknown":
            assert lines == expected


def test_breaker_of_callers_is_a_problem_with_the_share_that_it_refuses(callbacks: AdminCallbacks) -> None:
    workers = tuple(replace(one, closed_callers={"gemini": one.seat}) for one in callbacks.now.workers)
    now = replace(callbacks.now, workers=workers, traffic=TrafficCounts(deployments={"gemini": AskedCounts(5, 95)}))
    text = "gemini is skipped for {} alone: {} of its requests in the last 30 s"
    assert text.format("2 clients or users", "95%") in said_of(now)
    now = replace(now, workers=workers[:1], traffic=TrafficCounts())
    assert text.format("1 client or user", "none") in said_of(now)


def test_deployment_that_only_some_workers_skip_is_a_warning(callbacks: AdminCallbacks) -> None:
    one, other = callbacks.now.workers
    now = replace(callbacks.now, workers=(replace(one, unavailable={"gemini": OPEN}), other))
    assert said_of(now, "warnings") == ["gemini is skipped by 1 of 2 workers"]
    assert not [text for text in said_of(now) if "gemini" in text]


@pytest.mark.parametrize(
    ("done", "text"),
    [
        ({}, "has errors, and the version before stays active: gateway check lists them"),
        ({"pinned": "abc"}, None),
        ({"pinned": "abc", "findings": (MISTAKE, MISTAKE)}, "has errors"),
        ({"is_unsigned": True}, "changes a protected region without its signature"),
        ({"retriable": True}, "cannot be activated now, and is tried again: is missing"),
    ],
)
def test_status_states_why_the_file_is_not_active(
    callbacks: AdminCallbacks, done: dict[str, Any], text: str | None
) -> None:
    failed = replace(replace(LOADED, activated=False, cause="file", findings=(MISTAKE,)), **done)
    said = [line for line in said_of(replace(callbacks.now, failed=failed)) if "configuration file" in line]
    assert [text in line for line in said if text] == [True] * bool(text)


@pytest.mark.parametrize(("free_mb", "word"), [(63, "problems"), (200, "warnings"), (900, "")])
def test_little_space_in_the_state_directory_is_a_warning_and_then_a_problem(
    callbacks: AdminCallbacks, free_mb: int, word: str
) -> None:
    space = FreeSpace(free_mb * 1024**2, 1024**3)
    document = document_of(callbacks.now, space)
    assert document["state_directory"] == {"free_bytes": space.free, "size_bytes": space.total}
    text = f"the state directory has {free_mb} MB of 1.0 GB free"
    said = {name for name in ("problems", "warnings") if any(line.startswith(text) for line in document[name])}
    assert said == ({word} if word else set())
    assert f"state directory: {free_mb} MB of 1.0 GB free" in status_lines(AdminAnswer(document))


WRONG: list[tuple[ProblemKind, Callable[[Status], dict[str, Any]]]] = [
    ("callers", lambda now: {"workers": tuple(replace(it, closed_callers={"gemini": 1}) for it in now.workers)}),
    ("config", lambda _: {"failed": replace(LOADED, activated=False, cause="file", findings=(MISTAKE,))}),
    ("deployment", lambda now: {"workers": tuple(replace(it, unavailable={"gemini": OPEN}) for it in now.workers)}),
    ("keys", lambda now: {"config": replace(now.config, keys_stale=True)}),
    ("not_ready", lambda _: {"is_draining": True}),
    ("pinned", lambda _: {"pinned": "abc"}),
    ("store", lambda _: {"store_problems": {"valkey": "refused"}}),
    ("traffic", lambda _: {"traffic": TrafficCounts({"eu": Traffic(9, 9)})}),
    ("sign_in", lambda _: {"sign_ins": (TokenStatus("house", "none", None, "refused", "correct it", ("gemini",)),)}),
    ("unanswered", lambda now: {"workers": tuple(replace(it, unavailable=ALL_OPEN) for it in now.workers)}),
]


@pytest.mark.parametrize(("kind", "changed"), WRONG, ids=lambda it: it if isinstance(it, str) else "")
def test_what_status_calls_a_problem_is_counted_for_an_alert(
    callbacks: AdminCallbacks, kind: ProblemKind, changed: Callable[[Status], dict[str, Any]]
) -> None:
    before, now = callbacks.now, replace(callbacks.now, **changed(callbacks.now))
    counts, usual = problem_counts(now), problem_counts(before)
    assert counts[kind] > usual[kind]
    assert sum(counts.values()) == len(said_of(now))
    assert sum(usual.values()) == len(said_of(before))


def test_each_kind_of_problem_has_an_alert() -> None:
    """One alert is about all that the metric counts. Others are about the disk and the cell, which it does not."""
    source = "".join(Path(it.__file__).read_text("utf-8") for it in (admin_status, status_problems))
    assert set(re.findall(r'StatusProblem\(\s*"(\w+)"', source)) == set(get_args(ProblemKind))
    path = Path(__file__).parents[3] / "deploy/helm/assistant-gateway/rules.yml"
    rules = {rule["alert"]: rule["expr"] for rule in yaml.safe_load(path.read_text("utf-8"))["groups"][0]["rules"]}
    assert rules["GatewayProblem"] == "max by (kind, instance) (max_over_time(gateway_problems[1m])) > 0"
    assert "gateway_state_free_bytes" in rules["GatewayDiskFull"]
    assert set(re.findall(r"silent|behind", rules["GatewayInstanceSilent"])) == {"silent", "behind"}


def test_line_of_who_answers_names_a_step_that_some_callers_do_not_get(callbacks: AdminCallbacks) -> None:
    workers = tuple(replace(it, closed_callers={"gemini": 1, "chatgpt-eu": 2}) for it in callbacks.now.workers)
    document = document_of(replace(callbacks.now, workers=workers))
    lines = "\n".join(status_lines(json.loads(json_text(document), object_hook=AdminAnswer)))
    assert "gemini (not for 1 client or user)" in lines
    assert "chatgpt-eu (not for 2 clients or users)" in lines


async def test_unavailable_deployments_are_reported(callbacks: AdminCallbacks) -> None:
    one, other = callbacks.now.workers
    alone = {"gemini": 2, "chatgpt-eu": 1}
    unavailable = {"gemini": BENCHED, "chatgpt-eu": OPEN}
    workers = (
        replace(one, unavailable=unavailable, closed_callers=alone),
        replace(other, answers=False, closed_callers={"gemini": 1}),
    )
    failed = replace(LOADED, activated=False, cause="file", findings=(MISTAKE,))
    callbacks.now = replace(callbacks.now, workers=workers, failed=failed)
    state = (await client(callbacks).get("/readyz")).json()
    benched = {"worker": 1, "reason": "benched: the provider refuses our key", "for_s": 12.3}
    assert state["deployments"]["benched"] == {"gemini": [benched]}
    assert state["deployments"]["breakers"] == {"chatgpt-eu": [{"worker": 1, "reason": OPEN.reason, "for_s": 10.0}]}
    assert state["deployments"]["breaker_callers"] == {"gemini": 3, "chatgpt-eu": 1}
    first = state["workers"]["running"][0]
    assert (first["benched"], first["breakers"]) == (["gemini"], ["chatgpt-eu"])
    assert [worker["answers"] for worker in state["workers"]["running"]] == [True, False]
    assert state["last_failed_reload"]["result"] == "rejected"
    (finding,) = state["last_failed_reload"]["findings"]
    assert (finding["file"], finding["line"], finding["column"], finding["hint"]) == ("gateway.yaml", 3, 5, "add it")


async def test_lost_store_is_named_with_its_effect_and_the_gateway_stays_ready(callbacks: AdminCallbacks) -> None:
    assert (await client(callbacks).get("/readyz")).json()["stores"] is None
    database = StoreServer("database", "db", 5432, "DE")
    valkey = StoreServer("valkey", "valkey", 6379, "DE")
    config = replace(callbacks.now.config, stores=Stores(database, valkey))
    callbacks.now = replace(callbacks.now, config=config)
    assert (await client(callbacks).get("/readyz")).json()["stores"] == {"valkey": "ok", "database": "ok"}
    problems = {"valkey": "Valkey can't be reached: refused", "database": "the database did not answer in time"}
    callbacks.now = replace(callbacks.now, store_problems=problems)
    answer = await client(callbacks).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    stores = answer.json()["stores"]
    lost = "Valkey can't be reached: refused; requests with a budget are refused (`usage.on_loss: deny`)"
    assert stores["valkey"].startswith(lost)
    lost = "the database did not answer in time; requests are served, and usage rows wait"
    assert stores["database"].startswith(lost)
    allowed = replace(config, usage=replace(config.usage, on_loss=Money(5_000_000_000, "EUR")))
    callbacks.now = replace(callbacks.now, config=allowed)
    stores = (await client(callbacks).get("/readyz")).json()["stores"]
    assert "this instance may spend 5.00 EUR on requests with a budget" in stores["valkey"]


@cases("answers", "is_second_there", "word", "missing", "code")
async def test_readiness_names_the_workers_that_do_not_answer(
    callbacks: AdminCallbacks,
    answers: tuple[bool, ...],
    is_second_there: bool,
    word: str,
    missing: list[int],
    code: int,
) -> None:
    workers = callbacks.now.workers if is_second_there else callbacks.now.workers[:1]
    workers = tuple(replace(worker, answers=it) for worker, it in zip(workers, answers, strict=True))
    callbacks.now = replace(callbacks.now, workers=workers)
    answer = await client(callbacks).get("/readyz")
    state = answer.json()
    assert (answer.status_code, state["status"], state["workers"]["missing"]) == (code, word, missing)


async def test_only_worker_that_hangs_is_not_ready(callbacks: AdminCallbacks) -> None:
    (worker, _) = callbacks.now.workers
    callbacks.now = replace(callbacks.now, workers=(replace(worker, answers=False),), workers_wanted=1)
    answer = await client(callbacks).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")


@pytest.mark.parametrize(
    ("change", "word"),
    [({"is_draining": True}, "draining"), ({"workers": ()}, "not ready")],
    ids=["draining", "nobody serves"],
)
async def test_status_is_503_while_it_is_not_ready(
    callbacks: AdminCallbacks, change: dict[str, Any], word: str
) -> None:
    callbacks.now = replace(callbacks.now, **change)
    answer = await client(callbacks).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, word)
    assert (await client(callbacks).head("/readyz")).status_code == 503
    for path, method in product(("/healthz", "/health"), ("GET", "HEAD")):
        assert (await client(callbacks).request(method, path)).status_code == 200


async def test_reload_response_reports_the_outcome(callbacks: AdminCallbacks) -> None:
    done = await client(callbacks).post("/reload")
    assert (done.status_code, done.json()["result"], done.json()["changes"]) == (200, "activated", {"added": ["new"]})
    callbacks.reloaded = replace(callbacks.reloaded, activated=False, findings=(MISTAKE,))
    refused = await client(callbacks).post("/reload", json={})
    assert (refused.status_code, refused.json()["result"], refused.json()["retriable"]) == (422, "rejected", False)
    assert (done.json()["refused_by"], refused.json()["refused_by"]) == (None, "config_invalid")
    callbacks.reloaded = replace(callbacks.reloaded, retriable=True)
    hindered = await client(callbacks).post("/reload", json={})
    assert (hindered.status_code, hindered.json()["result"], hindered.json()["retriable"]) == (503, "rejected", True)
    assert callbacks.reloads == 3
    assert (await client(callbacks).get("/reload")).status_code == 405


async def test_metrics_are_given_as_asked(callbacks: AdminCallbacks) -> None:
    answer = await client(callbacks).get("/metrics", headers={"accept": "x/y"})
    assert (answer.text, answer.headers["content-type"]) == ("some 1\n", "text/plain; asked=x/y")


@cases("query", "region", "first")
async def test_explain_takes_any_stated_evidence(
    callbacks: AdminCallbacks, query: dict[str, str], region: str, first: str
) -> None:
    shown = (await client(callbacks).get("/explain", params=query)).json()
    assert shown["location"]["region"] == region
    assert shown["outcome"]["plan"][0]["deployment"] == first
    assert shown["client"] == query.get("client")


async def test_explain_names_a_territory_that_no_signal_can_report(callbacks: AdminCallbacks) -> None:
    query = {"territory": "DE", "client": "app"}
    assert "note" not in (await client(callbacks).get("/explain", params=query)).json()
    config = table_of(BASE.merge({"location": {"signals": ["api_key", "assertion"], "edges": None}}))
    callbacks.now = replace(callbacks.now, config=config)
    shown = (await client(callbacks).get("/explain", params=query)).json()
    assert shown["note"] == "`territory` has no effect: `edge_header` is not among `location.signals`"


async def test_explain_skips_a_deployment_only_if_every_worker_benched_it(callbacks: AdminCallbacks) -> None:
    one, other = (replace(worker, unavailable={"gemini": BENCHED}) for worker in callbacks.now.workers)
    params = {"territory": "JP"}
    callbacks.now = replace(callbacks.now, workers=(one, replace(other, unavailable={})))
    shown = (await client(callbacks).get("/explain", params=params)).json()
    assert shown["outcome"]["plan"][0]["deployment"] == "gemini"
    assert [benched["worker"] for benched in shown["benched"]["gemini"]] == [1]
    callbacks.now = replace(callbacks.now, workers=(one, other))
    shown = (await client(callbacks).get("/explain", params=params)).json()
    assert shown["outcome"]["refusal"]["code"] == "no_healthy_deployment"


@cases("query", "named")
async def test_explain_reports_unknown_names(callbacks: AdminCallbacks, query: dict[str, str], named: str) -> None:
    answer = await client(callbacks).get("/explain", params=query)
    assert answer.status_code in (400, 404)
    assert named in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/explain", "/docs", "/openapi.json", "/"])
async def test_admin_listener_does_not_serve_client_paths(callbacks: AdminCallbacks, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await client(callbacks).request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# --- refused requests -----------------------------------------------------------------------------

PATHS = [("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/explain"), ("POST", "/reload")]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8081"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8081"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
    ],
    ids=str,
)
async def test_admin_listener_refuses_requests_of_web_pages(
    callbacks: AdminCallbacks, method: str, path: str, headers: Mapping[str, str], status: int
) -> None:
    answer = await client(callbacks).request(method, path, headers=headers)
    assert answer.status_code == status, answer.text
    assert "error" in answer.json()
    assert callbacks.reloads == 0
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "localhost:8081", "LOCALHOST", "[::1]:8081", "[::1]", "127.0.0.1"])
async def test_admin_listener_accepts_its_own_host_names(callbacks: AdminCallbacks, host: str) -> None:
    answer = await client(callbacks).get("/readyz", headers={"host": host})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer ", f"Basic {TOKEN}", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer ümlaut"]
)
async def test_requests_without_the_token_are_refused(
    callbacks: AdminCallbacks, method: str, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    async with client(callbacks, Guard(((TOKEN, Role.ADMIN),)), "gateway.internal") as there:
        answer = await there.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert TOKEN not in answer.text
    assert callbacks.reloads == 0


async def test_admin_token_allows_any_host_name_but_no_web_page(callbacks: AdminCallbacks) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with client(callbacks, Guard(((TOKEN, Role.ADMIN),)), "gateway.internal") as there:
        assert (await there.get("/readyz", headers=headers)).status_code == 200
        assert (await there.post("/reload", headers=headers)).status_code == 200
        assert (await there.get("/healthz")).status_code == 200
        assert (await there.post("/reload", headers={**headers, "origin": "http://x"})).status_code == 403
    assert TOKEN not in repr(Guard(((TOKEN, Role.ADMIN),)))


async def test_each_version_of_a_token_works_and_a_viewer_only_reads(callbacks: AdminCallbacks) -> None:
    guard = Guard((("new", Role.ADMIN), ("former", Role.ADMIN), ("seen", Role.VIEWER)))
    expected = {"new": (200, 200), "former": (200, 200), "seen": (200, 403), "other": (401, 401)}
    async with client(callbacks, guard, "gateway.internal") as there:
        for token, statuses in expected.items():
            headers = {"authorization": f"Bearer {token}"}
            read, acted = await there.get("/metrics", headers=headers), await there.post("/reload", headers=headers)
            assert (read.status_code, acted.status_code) == statuses, token


async def test_json_may_name_its_charset(callbacks: AdminCallbacks) -> None:
    answer = await client(callbacks).post("/reload", headers={"content-type": "Application/JSON; charset=utf-8"})
    assert (answer.status_code, callbacks.reloads) == (200, 1)


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
async def test_admin_token_may_contain_any_characters(callbacks: AdminCallbacks, charset: str) -> None:
    token = "schl\u00fcssel-f\u00fcr-voil\u00e0"
    headers = {"authorization": f"Bearer  {token}".encode(charset)}
    answer = await client(callbacks, Guard(((token, Role.ADMIN),)), "gateway.internal").get("/readyz", headers=headers)
    assert answer.status_code == 200, answer.text


async def test_admin_responses_contain_no_secrets(callbacks: AdminCallbacks) -> None:
    shown = [(await client(callbacks).request(method, path)).text for method, path in PATHS]
    for secret in (*KEYS.values(), "a" * 64):
        assert secret not in str(shown)


@pytest.mark.parametrize("missing", [True, False])
async def test_rollback_to_a_missing_version_differs_from_an_impossible_one(
    callbacks: AdminCallbacks, missing: bool
) -> None:
    callbacks.reloaded = replace(LOADED, activated=False, missing=missing)
    answer = await client(callbacks).post("/rollback", json={"version": "abcd1234"})
    assert (answer.status_code, answer.json()["result"], answer.json()["missing"]) == (422, "rejected", missing)


async def test_reload_while_a_version_is_pinned_answers_409_with_the_command(callbacks: AdminCallbacks) -> None:
    callbacks.reloaded = replace(LOADED, cause="admin", activated=False, pinned=TABLE.version)
    answer = await client(callbacks).post("/reload")
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (409, "rollback_pinned")
    assert body["config_version"] == TABLE.version
    assert "`gateway rollback --release`" in body["error"]["message"]
    assert body["result"] == "rejected"


async def test_readiness_names_the_pinned_version_and_stays_200(callbacks: AdminCallbacks) -> None:
    callbacks.now = replace(callbacks.now, pinned="abcd", file_is_active=False)
    answer = await client(callbacks).get("/readyz")
    assert (answer.status_code, answer.json()["rollback_pinned"]) == (200, "abcd")


async def test_release_receives_operator_and_signature(callbacks: AdminCallbacks) -> None:
    content = {"release": True, "signature": "a.b.c"}
    answer = await client(callbacks).post("/rollback", json=content, headers={"x-gateway-operator": "ada"})
    assert (answer.status_code, answer.json()["cause"], callbacks.releases) == (200, "release", [("ada", "a.b.c")])
    for content in ({"release": True, "version": "abcd1234"}, {"release": "yes"}):
        assert (await client(callbacks).post("/rollback", json=content)).status_code == 400
    assert (len(callbacks.releases), callbacks.rollbacks) == (1, [])


async def test_rollback_receives_version_operator_and_signature(callbacks: AdminCallbacks) -> None:
    content = {"version": "abcd1234", "signature": "a.b.c"}
    answer = await client(callbacks).post("/rollback", json=content, headers={"x-gateway-operator": "ada"})
    assert (answer.status_code, answer.json()["cause"], answer.json()["who"]) == (200, "rollback", "ada")
    assert answer.json()["file_active"] is True
    assert callbacks.rollbacks == [("abcd1234", "ada", "a.b.c")]
    assert (await client(callbacks).post("/rollback")).status_code == 200
    assert callbacks.rollbacks[1:] == [(None, "", None)]


async def test_operator_name_may_use_any_script(callbacks: AdminCallbacks) -> None:
    for sent, kept in (("管理员".encode(), "管理员"), ("Åda".encode("latin-1"), "Åda")):
        answer = await client(callbacks).post("/reload", headers={"x-gateway-operator": sent})
        assert (answer.status_code, answer.json()["who"]) == (200, kept)


@pytest.mark.parametrize("name", ["x" * 121, "ada\u202egrace".encode()])
async def test_operator_name_with_deceptive_characters_is_refused(callbacks: AdminCallbacks, name: str | bytes) -> None:
    answer = await client(callbacks).post("/rollback", headers={"x-gateway-operator": name})
    assert answer.status_code == 400
    assert callbacks.rollbacks == []


@pytest.mark.parametrize(
    "content", [{"versoin": "abcd1234"}, {"version": "a" * 65}, {"signature": "a" * 16_385}, {"version": 5}, []]
)
async def test_invalid_rollback_request_changes_nothing(callbacks: AdminCallbacks, content: object) -> None:
    """Without the version that was meant it would go back to another one."""
    answer = await client(callbacks).post("/rollback", json=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert callbacks.rollbacks == []


# --- a body ---------------------------------------------------------------------------------------


class PartialRequest:
    """A request whose body sends these pieces and then stops, although more was announced."""

    def __init__(self, *pieces: bytes, **headers: str) -> None:
        usual = {"host": "127.0.0.1:8081", "content-type": "application/json", "transfer-encoding": "chunked"}
        lines = [(name.encode(), value.encode()) for name, value in {**usual, **headers}.items()]
        self.scope = {"type": "http", "method": "POST", "path": "/rollback", "query_string": b"", "headers": lines}
        self.asked, self.sent = 0, list[Any]()
        self._pieces = list(pieces)

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if not self._pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._pieces.pop(0), "more_body": True}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and message["body"]:
            self.asked_before_the_answer = self.asked

    async def answered(self, callbacks: AdminCallbacks, guard: Guard) -> tuple[int, str, dict[bytes, bytes]]:
        await build_admin(callbacks, guard)(self.scope, self.receive, self.send)  # type: ignore[arg-type]
        assert not self.sent[-1].get("more_body", False)
        body = json.loads(b"".join(message.get("body", b"") for message in self.sent))
        return self.sent[0]["status"], body["error"]["code"], dict(self.sent[0]["headers"])


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.body._SMALL_OBJECT_TIME_S", 0.01)
    monkeypatch.setattr("gateway.api.body._DRAIN_TIME_S", 0.01)


@pytest.mark.usefixtures("hurried")
async def test_unauthenticated_admin_request_is_refused_before_its_body_is_read(callbacks: AdminCallbacks) -> None:
    request = PartialRequest(b"{", authorization="Bearer wrong")
    status, code, headers = await request.answered(callbacks, Guard(((TOKEN, Role.ADMIN),)))
    assert (status, code, headers[b"connection"]) == (401, "invalid_api_key", b"close")
    assert request.asked_before_the_answer == 0


@pytest.mark.usefixtures("hurried")
async def test_admin_request_body_is_limited_in_size_and_time(callbacks: AdminCallbacks) -> None:
    request = PartialRequest(*[b" " * 32_768] * 100)
    status, code, headers = await request.answered(callbacks, Guard())
    assert (status, code, headers[b"connection"]) == (413, "request_too_large", b"close")
    assert request.asked_before_the_answer == 3
    status, code, headers = await PartialRequest(b'{"version": ').answered(callbacks, Guard())
    assert (status, code, headers[b"connection"]) == (408, "request_timeout", b"close")
    assert callbacks.rollbacks == []


async def test_wrong_tokens_are_limited_and_logged_and_a_valid_one_still_works(callbacks: AdminCallbacks) -> None:
    async def asked(token: str) -> httpx.Response:
        return await there.get("/readyz", headers={"authorization": f"Bearer {token}"})

    with structlog.testing.capture_logs() as lines:
        async with client(callbacks, Guard(((TOKEN, Role.ADMIN),)), "gateway.internal") as there:
            assert (await there.get("/readyz")).status_code == 401  # without a token: not a guess
            assert [(await asked("guess")).status_code for _ in range(MOST_FAILED_KEYS)] == [401] * MOST_FAILED_KEYS
            refused = await asked("guess")
            assert (await asked(TOKEN)).status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert {line["event"] for line in lines} == {"admin_refused"}
    assert [line["status"] for line in lines] == [401] * MOST_FAILED_KEYS + [429]
    assert lines[-1]["address"] == "127.0.0.1"
    assert "guess" not in str(lines)


async def test_completely_read_body_keeps_the_connection(callbacks: AdminCallbacks) -> None:
    answer = await client(callbacks).post("/rollback", json={"version": "abcd1234"})
    assert "connection" not in answer.headers
    for content in (b"{", b"\xff", b"[[[[" * 1000):
        json_body = {"content-type": "application/json"}
        answer = await client(callbacks).post("/rollback", content=content, headers=json_body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert "connection" not in answer.headers
    assert (await client(callbacks).post("/rollback", json=None)).status_code == 200
