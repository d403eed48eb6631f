"""`gateway doctor --models` over real sockets: each result, false and endless lists, and what leaves where."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.changes.plan import NO_CONFIG_VERSION
from gateway.cli import doctor_models
from gateway.cli.doctor_models import RESULTS, KnownEnd, check_of
from gateway.model.approval import begun_everywhere
from providers.adapter import Target
from providers.auth import Secret, credential
from providers.catalogue.model_lists import ListedModel, model_lists
from providers.catalogue.models import UNKNOWN_MODEL
from providers.registry import load_registry
from providers.testkit import SimulatedIssuers
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from providers.value import replace
from providers.wire import WireRequest
from tests.cli.conftest import Command
from tests.kit.network_peers import proxy_thread
from tests.kit.ports import free_port
from tests.kit.recipients import Recipient, receiving

Answer = tuple[int, dict[str, str], bytes]
COMING, OTHER, PAST = "2099-01-14", "2099-04-01", "2026-01-01"


class Vendor:
    """A vendor on this machine: `answer` gets the path and query of each GET."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[str], Answer | bytes] = lambda path: (404, {}, b"")
        self.origin = ""

    def lists(self, *entries: object) -> None:
        """Answer a whole list of these entries in OpenAI's form, and 404 to anything else."""
        body = json.dumps({"data": entries}).encode()
        self.answer = lambda path: (200, {}, body) if path.endswith("/v1/models") else (404, {}, b"")


class _Served(Recipient):
    """Sends the answers of `vendor`."""

    vendor: Vendor

    def do_GET(self) -> None:
        self.vendor.asked.append(self.path)
        self.vendor.heads.append({name.lower(): value for name, value in self.headers.items()})
        self.vendor.bodies.append(self.body())
        answer = self.vendor.answer(self.path)
        if isinstance(answer, bytes):
            self.wfile.write(answer)
            self.close_connection = True
        else:
            status, headers, body = answer
            self.answer(status, body, **headers)

    do_POST = do_GET

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the command reads no more than it accepts
            self.close_connection = True


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()
    with receiving(_Served, vendor=vendor) as (vendor.origin, _):
        yield vendor


def deployment(vendor: Vendor, model: str = "m", provider: str = "openai", **more: object) -> dict[str, object]:
    own = {"endpoint": f"{vendor.origin}/v1", "stores": "US", "processes": "US", "api_key": "${KEY}"}
    return {"provider": provider, "model": model, **own, **more}


class Doctor:
    """Runs the command on a configuration of these deployments."""

    def __init__(self, gateway: Command, path: Path) -> None:
        self._gateway, self.path = gateway, path

    def config(self, *catalogue: object, **deployments: dict[str, object]) -> None:
        own = {f"own-{number}.yaml": one for number, one in enumerate(catalogue)}
        for name, models in own.items():
            (self.path.parent / name).write_text(json.dumps({"version": 1, "models": models}), "utf-8")
        routed = [name for name, one in deployments.items() if one["processes"] == "US" and one.get("enabled", True)]
        config: dict[str, object] = {
            "version": 1,
            "regions": {"us": {"territories": ["US"], "boundary": ["US"]}},
            "assistants": {"a": {"routes": {"us": routed[:1]}}},
            "deployments": deployments,
        }
        if own:
            config["catalogue"] = {"models": [*own]}
        self.path.write_text(json.dumps(config), "utf-8")

    def run(self, *names: str) -> tuple[int, dict[str, dict[str, str | None]]]:
        shown = self._gateway("doctor", "--config", self.path, "--json", "--models", *names)
        assert shown.err == ""
        rows = [json.loads(line) for line in shown.out.splitlines()]
        assert all(row.keys() == {"deployment", "model", "result", "on", "known", "line"} for row in rows)
        return shown.status, {row["deployment"]: row for row in rows}

    def text(self, *names: str) -> tuple[int, str]:
        shown = self._gateway("doctor", "--config", self.path, "--models", *names)
        return shown.status, shown.out + shown.err


@pytest.fixture
def doctor(gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.setenv("KEY", "sk-one")
    monkeypatch.setenv("OTHER_KEY", "sk-two")
    return Doctor(gateway, tmp_path / "gateway.yaml")


DAY = date(2027, 1, 14)
LATE = begun_everywhere(DAY)


@pytest.mark.parametrize(
    ("listed", "known", "accepted", "before", "after"),
    [
        (ListedModel(on=DAY), KnownEnd(DAY), False, "as_stated", "gone"),
        (ListedModel(on=DAY), KnownEnd(DAY), True, "as_stated", "as_stated"),
        (ListedModel(on=DAY), KnownEnd(None), False, "new_end", "gone"),
        (ListedModel(on=DAY), KnownEnd(date(2027, 1, 15)), False, "other_day", "gone"),
        (ListedModel(on=DAY), KnownEnd(DAY, is_firm=False), False, "confirmed", "gone"),
        (ListedModel("leaving", DAY), KnownEnd(DAY), False, "as_stated", "leaving"),
        (ListedModel("other", DAY), KnownEnd(DAY), False, "as_stated", "leaving"),
        (ListedModel("leaving", DAY), KnownEnd(None), True, "new_end", "as_stated"),
        (ListedModel("leaving"), KnownEnd(DAY), False, "leaving", "leaving"),
        (ListedModel("gone", DAY), KnownEnd(DAY), True, "gone", "gone"),
        (ListedModel("gone", is_unreadable=True), KnownEnd(DAY), False, "gone", "gone"),
        (ListedModel("leaving", is_unreadable=True), KnownEnd(DAY), False, "unreadable", "unreadable"),
        (ListedModel(), KnownEnd(DAY), False, "as_stated", "as_stated"),
        (ListedModel("leaving", DAY, dearer_on=DAY), KnownEnd(DAY, dearer_on=DAY), False, "as_stated", "leaving"),
        (ListedModel("leaving", DAY, dearer_on=DAY), KnownEnd(DAY), False, "new_end", "leaving"),
        (
            ListedModel("other", dearer_on=DAY),
            KnownEnd(None, dearer_on=date(2020, 1, 1)),
            False,
            "other_day",
            "other_day",
        ),
        (None, KnownEnd(DAY), False, "missing", "missing"),
        (None, KnownEnd(None, is_redirected=True), False, "as_stated", "as_stated"),
        ("why", KnownEnd(DAY), False, "no_answer", "no_answer"),
    ],
)
def test_state_decides_before_a_day_and_a_day_when_it_has_begun_everywhere(
    listed: ListedModel | str | None, known: KnownEnd, accepted: bool, before: str, after: str
) -> None:
    class Kept:
        accept_ended = accepted

    results = [check_of(Kept(), known, listed, "missing", at).result for at in (LATE - 1, LATE)]  # type: ignore[arg-type]
    assert results == [before, after]


@pytest.mark.parametrize(
    ("entry", "known", "result", "on"),
    [
        ({"id": "m", "shutdown_date": PAST}, None, "gone", PAST),
        ({"id": "m", "shutdown_date": COMING}, None, "new_end", COMING),
        ({"id": "m", "shutdown_date": COMING}, OTHER, "other_day", COMING),
        ({"id": "m", "shutdown_date": COMING}, COMING, "as_stated", COMING),
        ({"id": "m"}, OTHER, "as_stated", None),
        ({"id": "m", "shutdown_date": "x"}, None, "unreadable", None),
        ({"id": "other"}, None, "gone", None),
    ],
)
def test_each_result_has_its_day_its_line_and_its_exit_status(
    doctor: Doctor, vendor: Vendor, entry: object, known: str | None, result: str, on: str | None
) -> None:
    doctor.config({"openai": {"m": {"retires_on": known}}} if known else {"openai": {}}, one=deployment(vendor))
    vendor.lists(entry)
    line = f'models: {{openai: {{"m": {{retires_on: {on}}}}}}}' if result in ("new_end", "other_day") else None
    row = {"deployment": "one", "model": "m", "result": result, "on": on, "known": known, "line": line}
    status = {"ok": 0, "warning": 3, "error": 1}[RESULTS[result][0]]
    assert doctor.run() == (status, {"one": row})
    assert doctor.text()[1].startswith(f"{RESULTS[result][0]:8} one: {result}: ")


def test_line_to_copy_is_an_own_catalogue_after_which_the_list_is_as_stated(doctor: Doctor, vendor: Vendor) -> None:
    doctor.config({"openai": {}}, one=deployment(vendor, 'm"\\:{x}'))
    vendor.lists({"id": 'm"\\:{x}', "shutdown_date": COMING})
    line = doctor.run()[1]["one"]["line"]
    (doctor.path.parent / "own-0.yaml").write_text(f"version: 1\n{line}\n", "utf-8")
    assert doctor.run() == (0, {"one": {**ANY_ROW, "model": 'm"\\:{x}', "on": COMING, "known": COMING}})


def test_day_of_a_higher_price_has_its_own_line(
    doctor: Doctor, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(model_lists()["openai"], dearer="dearer")
    monkeypatch.setattr(doctor_models, "model_lists", lambda: {"openai": row})
    doctor.config({"openai": {}}, one=deployment(vendor))
    vendor.lists({"id": "m", "dearer": COMING})
    status, rows = doctor.run()
    assert (status, rows["one"]["result"], rows["one"]["on"]) == (3, "new_end", COMING)
    assert f"the vendor raises its price on {COMING}, which is not known here" in doctor.text()[1]
    (doctor.path.parent / "own-0.yaml").write_text(f"version: 1\n{rows['one']['line']}\n", "utf-8")
    assert doctor.run()[1]["one"]["result"] == "as_stated"


ANY_ROW = {"deployment": "one", "model": "m", "result": "as_stated", "on": None, "known": None, "line": None}


def test_two_deployments_of_a_key_have_one_list_and_another_key_has_its_own(doctor: Doctor, vendor: Vendor) -> None:
    space = {"X-DashScope-WorkSpace": "space"}
    doctor.config(
        a=deployment(vendor), b=deployment(vendor, "n"), c=deployment(vendor, api_key="${OTHER_KEY}"),
        d=deployment(vendor, headers=space, provider="dashscope"),
    )  # fmt: skip
    vendor.lists({"id": "m"}, {"id": "n"})
    status, rows = doctor.run()
    assert (status, {row["result"] for row in rows.values()}) == (0, {"as_stated"})
    assert sorted(vendor.asked) == ["/compatible-mode/v1/models"] + ["/v1/models"] * 2
    assert sorted(head["authorization"] for head in vendor.heads) == ["Bearer sk-one"] * 2 + ["Bearer sk-two"]
    assert [head.get("x-dashscope-workspace") for head in vendor.heads].count("space") == 1
    assert b"".join(vendor.bodies) == b""
    assert doctor.run("b")[1].keys() == {"b"}
    assert len(vendor.asked) == 4


def test_single_question_finds_an_alias_and_a_retired_model_that_the_list_leaves_out(
    doctor: Doctor, vendor: Vendor
) -> None:
    singles: dict[str, dict[str, object]] = {
        "alias": {"id": "alias-1", "lifecycle": "active"},
        "old": {"id": "old", "lifecycle": "retired", "retires_at": "2026-01-05T00:00:00Z"},
        "late": {"id": "late", "lifecycle": "deprecated", "retires_at": "2026-01-05T00:00:00Z"},
        "a%2Fb": {"id": "a/b", "lifecycle": "active"},
    }

    def answer(path: str) -> Answer:
        if path.startswith("/v1/models?"):
            page = {"data": [{"id": "x", "lifecycle": "active"}], "has_more": False, "last_id": "x"}
            return 200, {}, json.dumps(page).encode()
        found = singles.get(path.removeprefix("/v1/models/"))
        return (200, {}, json.dumps(found).encode()) if found else (404 if "none" in path else 500, {}, b"")

    vendor.answer = answer
    models = {"alias": "alias", "again": "alias", "old": "old", "late": "late", "none": "none", "down": "down"}
    doctor.config(
        **{name: deployment(vendor, model, "anthropic") for name, model in models.items()},
        slash=deployment(vendor, "a/b", "anthropic"),
    )
    status, rows = doctor.run()
    assert status == 1
    assert {name: row["result"] for name, row in rows.items()} == {
        "alias": "as_stated", "again": "as_stated", "old": "gone", "late": "leaving", "none": "gone",
        "down": "no_answer", "slash": "as_stated",
    }  # fmt: skip
    assert vendor.asked.count("/v1/models/alias") == 1
    assert vendor.asked[0] == "/v1/models?limit=1000"
    assert vendor.heads[0]["anthropic-version"] == "2023-06-01"
    assert vendor.heads[0]["x-api-key"] == "sk-one"


def page(last: int, path: str) -> Answer:
    """Return the page with one model that follows the mark in a path."""
    number = int(path.partition("after_id=")[2] or 0) + 1
    entries = [{"id": f"m{number}", "lifecycle": "active"}]
    return 200, {}, json.dumps({"data": entries, "has_more": number < last, "last_id": str(number)}).encode()


def test_list_of_many_pages_is_read_whole_and_one_without_an_end_is_no_answer(doctor: Doctor, vendor: Vendor) -> None:
    doctor.config(one=deployment(vendor, "m20", "anthropic"))
    for last, status, asked in ((20, 0, 20), (21, 3, 20)):
        vendor.asked.clear()
        vendor.answer = partial(page, last)
        assert doctor.run()[0] == status
        assert len(vendor.asked) == asked
    assert "the list has more than 20 pages" in doctor.text()[1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {}, b"{}"), "the list has the status 401"),
        ((403, {}, b"{}"), "the list has the status 403"),
        ((404, {}, b"{}"), "the list has the status 404"),
        ((503, {}, b"{}"), "the list has the status 503"),
        ((302, {"location": "/v1/models/other"}, b""), "the list has the status 302"),
        ((200, {}, b"not json"), "the answer is not a list of models"),
        ((200, {}, b"[" * 1_000_000), "the answer is not a list of models"),
        ((200, {}, b'{"data": [' + b'{"id": "x"},' * 400_000), "no whole answer in 10 s and 4000000 bytes"),
        ((200, {"content-length": "10"}, b"{}"), "no whole answer in"),
        (b"HTTP/1.1 200 sk-one\x1b[31m\r\ncontent-length: -1\r\n\r\n", "no whole answer in"),
    ],
)
def test_list_that_is_refused_redirected_too_large_or_broken_is_no_answer(
    doctor: Doctor, vendor: Vendor, monkeypatch: pytest.MonkeyPatch, answer: Answer | bytes, words: str
) -> None:
    if isinstance(answer, tuple) and answer[1].get("content-length"):
        monkeypatch.setattr(doctor_models, "_ANSWER_S", 0.3)
    vendor.answer = lambda path: answer
    doctor.config(one=deployment(vendor))
    status, text = doctor.text()
    assert status == 3
    assert f"warning  one: no_answer: {words}" in text
    assert vendor.asked == ["/v1/models"]
    assert "sk-one" not in text


def test_vendor_that_cannot_be_reached_is_named_so(doctor: Doctor, vendor: Vendor) -> None:
    doctor.config(one=deployment(vendor, endpoint=f"http://127.0.0.1:{free_port()}/v1"))
    status, text = doctor.text()
    assert (status, "no_answer: no connection: see its endpoint, DNS, proxy and TLS" in text) == (3, True), text


def test_vendor_that_never_answers_ends_with_the_time_of_an_answer(
    doctor: Doctor, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_models, "_ANSWER_S", 0.2)
    hold = threading.Event()
    vendor.answer = lambda path: (hold.wait(60), (200, {}, b""))[1]
    doctor.config(one=deployment(vendor))
    assert doctor.run()[1]["one"]["result"] == "no_answer"
    hold.set()


@pytest.mark.parametrize(("count", "result"), [(20_000, "as_stated"), (20_001, "no_answer")])
def test_list_has_at_most_20000_models(doctor: Doctor, vendor: Vendor, count: int, result: str) -> None:
    vendor.lists(*({"id": f"m{number}"} for number in range(count)))
    doctor.config(one=deployment(vendor, "m7"))
    assert doctor.run()[1]["one"]["result"] == result


def test_names_and_sentences_of_a_list_are_never_shown(doctor: Doctor, vendor: Vendor) -> None:
    mark = "\x1b]0;owned\x07\u202e"
    vendor.lists({"id": "m", "shutdown_date": f"2099-01-14{mark}", "owned_by": mark}, {"id": mark})
    doctor.config(one=deployment(vendor))
    status, text = doctor.text()
    assert (status, text.count("\n")) == (3, 1)
    assert text.isprintable() or text.rstrip("\n").isprintable()
    vendor.answer = lambda path: (500, {"content-type": mark.encode().decode("latin-1")[:1] or "x"}, mark.encode())
    assert doctor.text()[1].rstrip("\n").isprintable()


def test_what_no_list_has_or_may_not_be_asked_is_not_asked(doctor: Doctor, vendor: Vendor, tmp_path: Path) -> None:
    doctor.config(
        asked=deployment(vendor),
        tuned=deployment(vendor, "ft:m:org::1"),
        off=deployment(vendor, enabled=False),
        keyless=deployment(vendor, api_key="${NO_KEY}"),
        outside=deployment(vendor, endpoint="http://127.0.0.1:1/v1", processes="CN"),
        azure=deployment(vendor, provider="azure", endpoint=f"{vendor.origin}/openai/v1"),
        own=deployment(vendor, "us.anthropic.claude-x", provider="bedrock"),
    )
    vendor.lists({"id": "m"})
    status, rows = doctor.run()
    assert (status, rows.pop("asked")["result"]) == (0, "as_stated")
    assert {row["result"] for row in rows.values()} == {"not_asked"}
    text = doctor.text()[1]
    assert vendor.asked == ["/v1/models"] * 2
    for words in (
        "tuned: not_asked: no list has names of this form",
        "off: not_asked: it is disabled in the config",
        "keyless: not_asked: its key is not set (NO_KEY)",
        "outside: not_asked: every region's boundary excludes it",
        "azure: not_asked: no list of the models of a key is known of azure",
        "own: not_asked: it has a URL of its own, and its list is at another host",
    ):
        assert f"ok       {words}\n" in text


def test_proxy_of_the_deployment_carries_the_question_once(doctor: Doctor, vendor: Vendor) -> None:
    with proxy_thread() as proxy:
        way = {"url": proxy.origin, "territory": "US", "inspects": True, "insecure": True}
        doctor.config(a=deployment(vendor, proxy=way), b=deployment(vendor, "n", proxy=way))
        vendor.lists({"id": "m"}, {"id": "n"})
        assert doctor.run()[0] == 0
        assert (proxy.connections, len(vendor.asked)) == (1, 1)


def test_sign_in_gives_the_token_of_the_question_and_without_one_nothing_is_asked(
    doctor: Doctor, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDP_SECRET", "s3cret-of-the-client")
    issuers = SimulatedIssuers()
    with SimulatorThread({"issuers": issuers}):  # type: ignore[dict-item]  # it has the methods of a server
        at = {"url": "https://id.example.us/token", "territory": "US", "endpoint": f"{issuers.url}/oauth"}
        sign_in = {"kind": "oauth", "client": "a", "client_secret": "${IDP_SECRET}", **at}
        signed = deployment(vendor, provider="openai-compatible", sign_in="idp")
        del signed["api_key"]
        doctor.config(a=signed, b={**signed, "model": "n"})
        config = json.loads(doctor.path.read_text())
        doctor.path.write_text(json.dumps({**config, "sign_ins": {"idp": sign_in}}))
        vendor.lists({"id": "m"}, {"id": "n"})
        assert doctor.run()[0] == 0
        assert (len(issuers.calls), len(vendor.asked)) == (1, 1)
        (head,) = vendor.heads
        assert head["authorization"].startswith("Bearer ")
        issuers.faults["oauth"] = 401
        assert "a: no_answer: the sign-in idp has no token" in doctor.text()[1]
        assert len(vendor.asked) == 1


def test_list_of_bedrock_is_at_the_other_host_of_its_site(monkeypatch: pytest.MonkeyPatch) -> None:
    class There:
        name, provider, model, site = "d", "bedrock", "us.anthropic.claude-x", "us-east-1"
        adapter = load_registry().adapters["bedrock"]
        origin = adapter.sites["us-east-1"].origin
        enabled, simulates, has_credential, credentials, headers, proxy_origin = True, None, True, (), (), ""
        sign_in = link = None
        target = Target("us.anthropic.claude-x", "/model", UNKNOWN_MODEL)

    monkeypatch.setattr(doctor_models, "is_inside", lambda *_: True)
    empty = replace(NO_CONFIG_VERSION, regions={"us": None})  # type: ignore[dict-item]
    found = doctor_models._list_of(empty, There())  # type: ignore[arg-type]
    assert isinstance(found, doctor_models._VendorList)
    key: Any = found.key
    permit, path = key[:2]
    assert (permit.origin, path) == ("https://bedrock.us-east-1.amazonaws.com", "/foundation-models")
    wire = WireRequest("GET", path, (), b"")
    signed = dict(credential(There.adapter.auth, wire, permit.origin, Secret("AKIA:secret"), 1_800_000_000))
    assert "/us-east-1/bedrock/aws4_request" in signed["authorization"]


def test_nothing_is_changed_afterwards(doctor: Doctor, vendor: Vendor, tmp_path: Path) -> None:
    doctor.config(one=deployment(vendor))
    vendor.lists({"id": "m", "shutdown_date": PAST})
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert doctor.run()[0] == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_unknown_deployment_is_named_with_those_that_are_known(doctor: Doctor, vendor: Vendor) -> None:
    doctor.config(one=deployment(vendor))
    assert doctor.text("two") == (2, "gateway: there is no deployment 'two'; the deployments are: one\n")
    assert vendor.asked == []


@pytest.mark.parametrize("provider", ["openai", "gemini", "mistral", "anthropic"])
def test_simulator_answers_its_list(doctor: Doctor, provider: str) -> None:
    with SimulatorThread({"v": SimulatorServer(load_simulators().simulators[provider], "it")}) as thread:
        there = Vendor()
        there.origin = thread["v"].origin
        names = {"openai": "gpt-4o", "gemini": "gemini-2.0-flash", "mistral": "x", "anthropic": "claude-opus-4-5"}
        doctor.config(one=deployment(there, names[provider], provider))
        rows = doctor.run()[1]
        assert rows["one"]["result"] in RESULTS
        assert rows["one"]["result"] != "no_answer"
        assert thread["v"].requests[0].method == "GET"
