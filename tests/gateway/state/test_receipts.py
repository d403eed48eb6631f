"""The content of receipts, and where and for how long they are stored."""

import contextlib
import errno
import hmac
import itertools
import json
import math
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.features.shadow.model import ShadowNote
from gateway.free_space import FreeSpace
from gateway.model.config_version import ConfigVersion
from gateway.model.consent import ConsentKind
from gateway.model.location import Location
from gateway.model.record import AnsweredBy, AttemptRecord, Record, Resumed, Skipped
from gateway.operator_errors import ReceiptDamaged, StateError
from gateway.policy.location.resolution import resolve
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS
from gateway.service.explain import reports_from
from gateway.signing import RECEIPT_KIND, Signer, verify
from gateway.state import receipts
from gateway.state.database import open_database
from gateway.state.generated_key import RECEIPT_KEY, generated_key
from gateway.state.receipts import Receipts, ReceiptSeals, find_receipts, receipt_of, receipts_between, shown_time
from providers.failures import Failure, FailureKind
from providers.matching.requirements import Requirements
from providers.territories import territory_data
from tests.gateway.clocks import SetClock
from tests.gateway.location_reports import reported
from tests.kit.case_files import cases
from tests.kit.configs import BASE, Config, table_of
from tests.kit.request_records import record_with, with_fields
from tests.kit.waiting import eventually

AT_S = 1_795_000_000.0
TABLE = table_of(BASE)
SHOP = next(client for client in TABLE.clients.values() if client.name == "shop-cn")
CN = resolve(TABLE, SHOP, reported())
FAILED = Failure(FailureKind.UNAVAILABLE, "the provider is down", status=503, detail="a secret word of theirs")
BEIJING = ("CN", "CN")


def record_of(
    request_id: str = "req_1", client: str | None = "shop-cn", location: Location = CN, **more: Any
) -> Record:
    record = record_with(
        request_id,
        0.0,
        TABLE.version,
        client=client,
        location=location,
        assistant="assistant",
        status=200,
        labels=("cn-gb45438",),
        profile="zh-Hans-CN",
    )
    record.resumed = Resumed("ernie-cn", "qwen-cn")
    record.answered_by = AnsweredBy("qwen-cn", "dashscope", "qwen-plus", BEIJING)
    record.attempts = [AttemptRecord("qwen-cn", "dashscope", "qwen-plus", 0.1, None, 0.0, BEIJING)]
    return with_fields(record, **more)


def receipt_data(record: Record, cell: str | None = "CN") -> dict[str, Any]:
    receipt = receipt_of(record, AT_S, cell)
    assert receipt is not None
    return receipt


def test_receipt_names_the_deployments_and_their_places() -> None:
    assert receipt_data(record_of()) == {
        "version": 1,
        "id": "req_1",
        "at": "2026-11-18T11:06:40.000+00:00",
        "client": "shop-cn",
        "assistant": "assistant",
        "use": "chat",
        "transport": "http",
        "region": "cn",
        "territory": None,
        "evidence": "api_key",
        "boundary": "CN",
        "gateway": "CN",
        "config_version": TABLE.version,
        "outcome": "ok",
        "status": 200,
        "code": None,
        "answered_by": "qwen-cn",
        "stores": "CN",
        "processes": "CN",
        "tried": [
            {
                "deployment": "qwen-cn",
                "provider": "dashscope",
                "model": "qwen-plus",
                "redirected_to": None,
                "stores": "CN",
                "processes": "CN",
                "redacted": None,
                "outcome": "ok",
            }
        ],
        "shadow": None,
        "use_limit": None,
        "crisis": None,
        "passed_over": {},
        "resumed_after": "ernie-cn",
        "consent": None,
        "side": None,
        "dropped": [],
        "dropped_unknown": 0,
        "labels": ["cn-gb45438"],
        "repeated": False,
        "marked": False,
        "profile": "zh-Hans-CN",
        "intent": None,
        "preference": None,
        "hand_off": None,
        "emulated": [],
        "redacted": None,
        "moderation": None,
        "judges": [],
        "age_band": None,
        "sample": 1.0,
    }


def test_receipt_counts_left_out_fields_with_unknown_names() -> None:
    receipt = receipt_data(with_fields(record_of(), dropped=frozenset({"seed", "name_of_ada", "x"})))
    assert (receipt["dropped"], receipt["dropped_unknown"]) == (["seed"], 2)
    assert "name_of_ada" not in str(receipt)


def test_receipt_lists_a_shadow_separately() -> None:
    receipt = receipt_data(
        record_of(notes=(ShadowNote(AttemptRecord("ernie-cn", "qianfan", "ernie-5.1", 0.0, places=("CN-11", "CN"))),))
    )
    assert receipt["shadow"] == {
        "deployment": "ernie-cn",
        "provider": "qianfan",
        "model": "ernie-5.1",
        "redirected_to": None,
        "stores": "CN-11",
        "processes": "CN",
        "redacted": None,
    }
    assert [one["deployment"] for one in receipt["tried"]] == ["qwen-cn"]


def test_receipt_of_a_broken_answer_shows_its_deployment_as_interrupted() -> None:
    record = record_of(outcome="interrupted", code="stream_interrupted", resumed=None)
    record.attempts.insert(0, AttemptRecord("ernie-cn", "qianfan", "ernie-5.1", 0.1, FAILED, 0.0, BEIJING))
    assert [one["outcome"] for one in receipt_data(record)["tried"]] == ["unavailable", "interrupted"]


@pytest.mark.parametrize(("stream", "last"), [(True, "abandoned"), (False, "ok")])
def test_receipt_of_a_cancelled_stream_shows_its_deployment_as_abandoned(stream: bool, last: str) -> None:
    """A JSON answer had arrived completely, so its deployment answered with success."""
    record = record_of(outcome="cancelled", stream=stream, resumed=None)
    record.attempts.insert(0, AttemptRecord("ernie-cn", "qianfan", "ernie-5.1", 0.1, FAILED, 0.0, BEIJING))
    assert [one["outcome"] for one in receipt_data(record)["tried"]] == ["unavailable", last]


def routed_first(deployment: str) -> Config:
    """Return the base config with another deployment before `chatgpt-eu`, with these keys."""
    other = f"{{provider: openai, model: gpt-6-luna, endpoint: eu, attests: [zdr], {deployment}}}"
    return BASE.merge(
        f"deployments: {{other: {other}}}", "assistants: {assistant: {routes: {eu: [other, chatgpt-eu]}}}"
    )


@pytest.mark.parametrize(
    ("config", "territory", "needs", "passed_over"),
    [
        (routed_first('enabled: false, api_key: "k"'), "DE", NO_NEEDS, {"other": "disabled in the config"}),
        # Without the name of the variable, because clients read receipts.
        (routed_first('api_key: "${NOWHERE_SET}"'), "DE", NO_NEEDS, {"other": "no credential"}),
        (BASE, "HK", NO_NEEDS, {"gemini": "gemini does not serve Hong Kong"}),
        # A refusal has reasons too.
        (
            BASE,
            "CN",
            Requirements(frozenset({"vision"}), frozenset(), frozenset()),
            {"qwen-cn": "does not support vision"},
        ),
    ],
)
def test_receipt_has_the_reason_of_each_deployment_outside_the_plan(
    config: Config, territory: str, needs: Requirements, passed_over: dict[str, str]
) -> None:
    table = table_of(config)
    location = resolve(table, None, reports_from(territory))
    decision = decide(table, table.assistants["assistant"], location, needs, {}, AT_S)
    assert receipt_data(record_of(location=location, decision=decision))["passed_over"] == passed_over
    skipped = record_of(location=location, decision=decision, skipped=[Skipped("chatgpt-eu", "benched")])
    assert receipt_data(skipped)["passed_over"] == {**passed_over, "chatgpt-eu": "benched"}


def test_deployment_whose_format_cannot_express_the_request_was_sent_nothing() -> None:
    failure = Failure(FailureKind.UNSUPPORTED, "`n` is at most 4", code="n", param="n", unsent=True)
    unsent = AttemptRecord("qwen-cn", "dashscope", "qwen-plus", 0.1, failure, 0.0, BEIJING, consent=ConsentKind.TOKEN)
    record = record_of(attempts=[unsent], status=400)
    assert (receipt_data(record)["tried"], receipt_data(record)["passed_over"]) == (
        [],
        {"qwen-cn": "does not support n"},
    )
    assert receipt_data(record)["consent"] is None
    sent = record_of(attempts=[replace(unsent, failure=None)])
    assert receipt_data(sent)["consent"] == "token"


def test_hidden_model_is_not_in_the_receipt() -> None:
    table = table_of(BASE.merge("assistants: {assistant: {reveal_model: false}}"))
    decision = decide(table, table.assistants["assistant"], CN, NO_NEEDS, {}, AT_S)
    abandoned = AttemptRecord("qwen-cn", "dashscope", "qwen-plus", 0.1, None, 0.0, BEIJING, is_abandoned=True)
    tried = receipt_data(record_of(decision=decision, abandoned=(abandoned,)))["tried"]
    assert [(one["deployment"], one["model"]) for one in tried] == [("qwen-cn", None)] * 2


def test_receipt_of_a_refusal_names_no_deployment() -> None:
    nobody = dict.fromkeys(("deployment", "provider", "model", "places", "resumed"))
    receipt = receipt_data(
        record_of(status=451, code="no_approved_deployment", outcome="refused", attempts=[], **nobody)
    )
    assert (receipt["status"], receipt["code"], receipt["tried"]) == (451, "no_approved_deployment", [])
    assert {receipt[name] for name in ("answered_by", "stores", "processes", "resumed_after")} == {None}


def test_receipt_names_every_deployment_that_was_sent_the_prompt() -> None:
    first = AttemptRecord("ernie-cn", "qianfan", "ernie", 0.1, FAILED, 0.0, BEIJING)
    second = AttemptRecord("qwen-cn", "dashscope", "qwen-plus", 0.1, None, 0.0, BEIJING, is_abandoned=True)
    record = record_of(
        attempts=[first], abandoned=(second,), skipped=[Skipped("third", "benched")], outcome="cancelled"
    )
    receipt = receipt_data(record)
    assert [(attempt["deployment"], attempt["outcome"]) for attempt in receipt["tried"]] == [
        ("ernie-cn", "unavailable"),
        ("qwen-cn", "abandoned"),
    ]
    assert receipt["passed_over"] == {"third": "benched"}
    judged = record_of()
    judged.note_judges(record)
    assert [judge["outcome"] for judge in receipt_data(judged)["judges"]] == ["unavailable", "abandoned"]
    assert "secret word" not in json.dumps(receipt)


@cases("cell", "keeps")
def test_receipt_of_a_region_outside_the_cell_is_not_stored(cell: str, keeps: bool) -> None:
    config = BASE.merge(cell) if cell else BASE
    if "DE" in cell:
        config = config.merge("regions: {cn: {transit: [DE]}, us: {transit: [DE]}}")
    elif "serves: [eu]" in cell:
        config = config.merge("regions: {eu: {transit: [US]}}")
    elif cell:
        config = config.merge("regions: {cn: {transit: [US]}, eu: {transit: [US]}}")
    region = table_of(config).regions["us"]
    location = Location(region, "US", "edge_header", ())
    assert (receipt_of(record_of(location=location), AT_S, "DE") is not None) is keeps


@cases("territory", "cell", "keeps")
def test_receipt_that_must_stay_in_its_territory_is_not_stored_elsewhere(
    territory: str | None, cell: str | None, keeps: bool
) -> None:
    """This includes receipts of refusals, which show that a person in the territory sent a request."""
    location = Location(TABLE.regions["default"], territory, "edge_header", ())
    assert (receipt_of(record_of(location=location), AT_S, cell) is not None) is keeps


@pytest.mark.parametrize(("territory", "bounds"), [("CN", "CN"), ("RU", "RU"), ("JP", "any"), (None, "any")])
def test_receipt_has_the_boundary_of_the_callers_territory(territory: str | None, bounds: str) -> None:
    location = Location(TABLE.regions["default"], territory, "edge_header", ())
    assert receipt_data(record_of(location=location), territory)["boundary"] == bounds


def test_request_without_a_region_has_no_receipt() -> None:
    assert receipt_of(record_of(location=Location(None, None, "unknown", ())), AT_S, None) is None
    assert receipt_of(record_of(location=None), AT_S, None) is None


# --- the store ------------------------------------------------------------------------------------


Open = Callable[..., Receipts]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    stores: list[Receipts] = []

    def open_one(
        table: ConfigVersion = TABLE,
        failed: Callable[[str], None] = lambda _: None,
        clock: SetClock | None = None,
        signing_keys: Sequence[bytes] = (),
    ) -> Receipts:
        stores.append(Receipts(tmp_path, lambda: table, failed, clock or SetClock(AT_S), signing_keys=signing_keys))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def test_receipt_is_found_only_by_its_client_and_from_any_process(opened: Open) -> None:
    store, other = opened(), opened()
    store.take(record_of("req_1"))
    eventually(lambda: other.find("req_1", "shop-cn") is not None)
    assert other.find("req_1", "app") is None
    assert other.find("req_1", None) is None
    assert other.find("req_2", "shop-cn") is None


def test_equal_request_ids_give_each_client_its_own_latest_receipt(opened: Open) -> None:
    store = opened()
    for client, status in (("app", 200), ("shop-cn", 200), ("app", 503)):
        store.take(record_of("same", client, status=status))
    eventually(lambda: (store.find("same", "app") or ({}, False))[0].get("status") == 503)
    assert store.find("same", "shop-cn") is not None


def test_queued_receipts_are_written_at_close(tmp_path: Path) -> None:
    store = Receipts(tmp_path, lambda: TABLE, clock=SetClock(AT_S))
    for number in range(1200):
        store.take(record_of(f"req_{number}"))
    store.close()
    with sqlite3.connect(tmp_path / "receipts.db") as database:
        assert database.execute("SELECT count(*), count(DISTINCT id) FROM receipt").fetchone() == (1200, 1200)
    database.close()


def test_receipt_after_close_is_counted_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is cut off at the end of the grace time ends after the writer."""
    monkeypatch.setattr(receipts, "_MOST_WAITING", 2)
    store = Receipts(tmp_path, lambda: TABLE, clock=SetClock(AT_S))
    store.take(record_of("in time"))
    store.close()
    assert store.lost == 0
    for late in range(1, 4):
        store.take(record_of(f"late {late}"))
        assert store.lost == late
    with sqlite3.connect(tmp_path / "receipts.db") as database:
        assert database.execute("SELECT id FROM receipt").fetchall() == [("in time",)]
    database.close()


def test_receipt_beyond_the_queue_is_counted_as_lost_without_waiting(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "_MOST_WAITING", 3)
    monkeypatch.setattr(receipts, "_WRITE_S", 0.01)
    monkeypatch.setattr(Receipts, "_write", lambda _: None)
    failures: list[str] = []
    store = opened(failed=failures.append)
    for number in range(5):
        store.take(record_of(f"req_{number}"))
    assert store.lost == 2
    eventually(lambda: set(failures) == {"receipts arrive faster than they can be written, and some are lost"})


def test_unexpected_error_does_not_end_the_writer_thread(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[str] = []

    def out_of_files(record: Record, at_s: float, cell: str | None, share: float) -> dict[str, object] | None:
        if record.request_id == "req_1":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/a/file")
        return receipt_of(record, at_s, cell, share)

    monkeypatch.setattr("gateway.state.receipts.receipt_of", out_of_files)
    store = opened(failed=failures.append)
    for name in ("req_0", "req_1", "req_2"):
        store.take(record_of(name))
    eventually(lambda: store.find("req_2", "shop-cn") is not None)
    assert store.find("req_0", "shop-cn") is not None
    assert store.lost == 1
    assert failures == [f"a receipt can't be built, and is lost: OSError: {os.strerror(errno.EMFILE)}"]


def test_row_that_sqlite_cannot_store_does_not_end_the_writer_thread(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    store = opened(failed=failures.append)
    with monkeypatch.context() as patch:
        patch.setattr(ReceiptSeals, "seal", lambda *_: "\ud800")
        store.take(record_of("req_0"))
        eventually(lambda: store.lost == 1)
    store.take(record_of("req_1"))
    eventually(lambda: store.find("req_1", "shop-cn") is not None)
    assert failures == ["receipts can't be written, and are lost: UnicodeEncodeError"]


VALUES: list[tuple[object, object]] = [
    *((number, number) for number in (1e-7, 5e-324, 1e22, 1.7976931348623157e308, 0.1 + 0.2)),
    *((number, number) for number in (2**63, 2**64, -(2**63) - 1, 10**40)),
    ("\U0001f600", "\U0001f600"),
    ("\ud83d\ude00", "\U0001f600"),
    (r'\ud800 "\ud800', r'\ud800 "\ud800'),
    ("a\ud800b", "a\ufffdb"),
    ({"\udfff": 2**64}, {"\ufffd": 2**64}),
]
"""Values of JSON, and as they are stored: no store and no reader has half a surrogate pair."""


def test_receipt_with_any_json_value_is_stored_sealed_signed_and_verified(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, clock = {f"req_{number}": value for number, (value, _) in enumerate(VALUES)}, SetClock(AT_S)
    monkeypatch.setattr(receipts, "receipt_of", lambda record, *_: {"id": record.request_id, **more_of(record)})

    def more_of(record: Record) -> dict[str, object]:
        return {"value": values[record.request_id]}

    store = opened(clock=clock, signing_keys=[b"s"])
    for request_id, at_s in zip(values, itertools.cycle([AT_S, AT_S + 0.1234567]), strict=False):
        clock.now = at_s
        store.take(record_of(request_id))
    eventually(lambda: store.find(request_id, "shop-cn") is not None)
    signer = Signer(Ed25519PrivateKey.generate())
    for request_id, (_, stored) in zip(values, VALUES, strict=True):
        receipt = {"id": request_id, "value": stored}
        assert store.find(request_id, "shop-cn") == (receipt, True)
        assert find_receipts(tmp_path, request_id) == [receipt]
        assert verify(signer.sign(RECEIPT_KIND, receipt), RECEIPT_KIND, [signer.public])[0] == receipt


def test_receipt_of_an_id_with_half_a_surrogate_pair_is_stored_with_those_that_were_taken_with_it(opened: Open) -> None:
    store = opened(signing_keys=[b"s"])
    for request_id, client in (("req_1", "shop-cn"), ("req_\ud800", "shop-\udfff"), ("req_2", "shop-cn")):
        store.take(record_of(request_id, client))
    eventually(lambda: store.find("req_2", "shop-cn") is not None)
    found = store.find("req_\ufffd", "shop-\ufffd")
    assert (found[0]["id"], found[0]["client"], found[1]) == ("req_\ufffd", "shop-\ufffd", True)
    assert (store.find("req_1", "shop-cn") or ({}, False))[0]["id"] == "req_1"
    assert store.lost == 0


def test_receipts_wait_while_the_rest_of_the_disk_is_for_usage_rows(tmp_path: Path) -> None:
    space, failures = [FreeSpace(64 * 1024**2 - 1, 1024**3)], list[str]()
    with closing(Receipts(tmp_path, lambda: TABLE, failures.append, measure=lambda _: space[0])) as store:
        store.take(record_of("req_1"))
        eventually(lambda: bool(failures))
        store.take(record_of("req_2"))
        assert (store.waiting, store.lost) == (2, 0)
        assert failures == [
            "receipts.db is not written, and up to 20000 receipts wait: fewer than 64 MB are free, which are kept for "
            "usage rows"
        ]
        space[0] = FreeSpace(64 * 1024**2, 1024**3)
        eventually(lambda: store.find("req_2", "shop-cn") is not None)
        assert store.find("req_1", "shop-cn") is not None
        assert store.waiting == 0


def test_receipts_of_a_failed_write_are_written_when_the_disk_works_again(opened: Open, tmp_path: Path) -> None:
    failures: list[str] = []
    store = opened(failed=failures.append)
    store._writer.execute("PRAGMA query_only = ON")  # SQLITE_READONLY, as on a file system that was remounted
    for number in range(3):
        store.take(record_of(f"req_{number}"))
    eventually(lambda: any("can't be written" in line for line in failures))
    assert [line for line in failures if "can't be written" in line] == [
        "receipts.db can't be written, and up to 20000 receipts wait until this is fixed: "
        "attempt to write a readonly database"
    ]
    assert store.lost == 0
    store.take(record_of("req_3"))
    store._writer.execute("PRAGMA query_only = OFF")
    eventually(lambda: store.find("req_3", "shop-cn") is not None)
    with sqlite3.connect(tmp_path / "receipts.db") as database:
        rows = database.execute("SELECT id FROM receipt ORDER BY number").fetchall()
    database.close()
    assert rows == [(f"req_{number}",) for number in range(4)]
    assert store.lost == 0


def test_receipts_that_still_wait_at_the_end_are_counted_as_lost(tmp_path: Path) -> None:
    store = Receipts(tmp_path, lambda: TABLE, clock=SetClock(AT_S))
    store._writer.execute("PRAGMA query_only = ON")
    store.take(record_of("req_1"))
    store.close()
    assert store.lost == 1


def test_first_receipt_is_written_without_a_free_file_descriptor(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    territory_data.cache_clear()
    failures: list[str] = []
    store = Receipts(tmp_path, lambda: TABLE, failures.append, SetClock(AT_S))
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 512), limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        store.take(record_of("req_1"))
        eventually(lambda: store.find("req_1", "shop-cn") is not None)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        store.close()
    assert (store.lost, failures) == (0, [])


def test_invalid_receipt_is_reported_as_damage(opened: Open, tmp_path: Path) -> None:
    store = opened()
    store.take(record_of("req_1"))
    eventually(lambda: store.find("req_1", "shop-cn") is not None)
    for content in ("{", "[]", b"\xff"):
        with sqlite3.connect(tmp_path / "receipts.db") as database:
            database.execute("UPDATE receipt SET content = ?", (content,))
        database.close()
        with pytest.raises(StateError, match=r"receipts\.db can't be read: .* move it away"):
            store.find("req_1", "shop-cn")


def test_old_receipts_are_deleted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_WRITE_S", 0.01)
    monkeypatch.setattr(receipts, "_SWEPT_AT_ONCE", 2)
    clock, table = SetClock(AT_S), table_of(BASE.merge("receipts: {keep: 12h}"))
    store = Receipts(tmp_path, lambda: table, clock=clock)
    for number in range(5):
        store.take(record_of(f"old{number}"))
    store.close()
    clock.now += 12 * 3600 + 1
    store = Receipts(tmp_path, lambda: table, clock=clock)
    store.take(record_of("new"))
    eventually(
        lambda: store.find("new", "shop-cn") is not None and not any(store.find(f"old{n}", "shop-cn") for n in range(5))
    )
    store.close()


@cases("change")
def test_receipt_that_does_not_match_its_seal_is_neither_shown_nor_signed(
    opened: Open, tmp_path: Path, change: str
) -> None:
    store = opened(signing_keys=[b"s"])
    for request_id, client in (("req_1", "shop-cn"), ("req_2", "shop-cn"), ("req_1", "app")):
        store.take(record_of(request_id, client))
    eventually(lambda: store.find("req_1", "app") is not None)
    found = store.find("req_1", "shop-cn")
    assert found[1], "signed"
    with closing(sqlite3.connect(tmp_path / "receipts.db", isolation_level=None)) as database:
        database.execute(change)
    with pytest.raises(ReceiptDamaged):
        store.find("req_1", "shop-cn")
    with pytest.raises(ReceiptDamaged):
        find_receipts(tmp_path, "req_1")


ROW = ("req_1", "shop-cn", 1_795_000_000.25, '{"id":"req_1","sample":1e-6}')
FORM_1 = "03f2c889ab1c24e45e7966acc27e1891.e338d3d402242e2ba3f7cffe4d1c3a4d"
FORM_2 = "2.ee8ca1da6948e8c99fd6a1744e92d897.6bc7b1302e54f50523cbc0fbfda9327f"


def test_seals_of_both_forms_stay_as_they_are_stored() -> None:
    """The two seals were written by the releases that introduced their forms."""
    seals = ReceiptSeals(b"directory", [b"signing"])
    assert seals.seal(ROW) == FORM_2
    assert [seals.check(ROW, seal) for seal in (FORM_1, FORM_2)] == [True, True]
    mixed = [FORM_2.removeprefix("2."), f"2.{FORM_1}", f"1.{FORM_1}", f"3.{FORM_2[2:]}", FORM_1.upper(), "2", "2.", "."]
    for seal in mixed:
        with pytest.raises(ReceiptDamaged):
            seals.check(ROW, seal)
    halves = [f"2.{FORM_2.split('.')[1]}.{FORM_1.split('.')[1]}", f"{FORM_1.split('.')[0]}.{FORM_2.split('.')[2]}"]
    assert [seals.check(ROW, seal) for seal in halves] == [False, False], "a hash of the other form signs nothing"


@pytest.mark.parametrize(
    "other",
    [
        ("req_", "1shop-cn", *ROW[2:]),
        (*ROW[:1], 'shop-cn{"id"', ROW[2], ROW[3].removeprefix('{"id"')),
        (*ROW[:2], math.nextafter(ROW[2], math.inf), ROW[3]),
        (*ROW[:2], math.inf, ROW[3]),
        (*ROW[:2], str(ROW[2]), ROW[3]),
        (*ROW[:2], None, ROW[3]),
        (*ROW[:2], b"", ROW[3]),
        (b"req_1", *ROW[1:]),
        (*ROW[:3], ROW[3].encode()),
        (*ROW[:3], None),
    ],
)
@pytest.mark.parametrize("seal", [FORM_1, FORM_2])
def test_row_with_another_value_or_type_does_not_match_the_seal(other: Any, seal: str) -> None:
    with pytest.raises(ReceiptDamaged):
        ReceiptSeals(b"directory").check(other, seal)


@pytest.mark.parametrize("at_s", [0.0, 1e-7, 5e-324, 1e16, 1e22, AT_S + 0.1234567])
@pytest.mark.parametrize("text", ["", " ", "1 2", "\0", "\ud800", "\U0001f600", str(2**64)])
def test_seal_of_any_text_and_time_is_accepted(at_s: float, text: str) -> None:
    seals, row = ReceiptSeals(b"directory", [b"signing"]), (text, text, at_s, text)
    assert seals.check(row, seals.seal(row))


def test_file_with_seals_of_both_forms_is_read_and_signed(opened: Open, tmp_path: Path) -> None:
    """Two releases write to the file while one hands over to the other."""
    store = opened(signing_keys=[b"s"])
    for number in range(4):
        store.take(record_of(f"req_{number}"))
    eventually(lambda: store.find("req_3", "shop-cn") is not None)
    keys = [generated_key(tmp_path, RECEIPT_KEY), b"s"]

    def form_1(*row: object) -> str:
        sealed = json.dumps(["receipt 1", *row]).encode()
        return ".".join(hmac.new(key, sealed, "sha256").hexdigest()[:32] for key in keys)

    with closing(sqlite3.connect(tmp_path / "receipts.db", isolation_level=None)) as database:
        database.create_function("form_1", 4, form_1)
        database.execute("UPDATE receipt SET seal = form_1(id, client, at_s, content) WHERE number % 2 = 0")
    listed = [receipt and receipt["id"] for _, receipt in receipts_between(tmp_path, 0.0, math.inf)]
    assert listed == [f"req_{number}" for number in range(4)]
    assert all((store.find(f"req_{number}", "shop-cn") or ({}, False))[1] for number in range(4))
    with closing(sqlite3.connect(tmp_path / "receipts.db", isolation_level=None)) as database:
        database.execute("UPDATE receipt SET content = replace(content, 'CN', 'DE')")
    assert [receipt for _, receipt in receipts_between(tmp_path, 0.0, math.inf)] == [None] * 4


def test_only_a_receipt_that_the_present_signing_key_sealed_is_signed(opened: Open) -> None:
    store = opened(signing_keys=[b"s"])
    store.take(record_of("req_1"))
    eventually(lambda: store.find("req_1", "shop-cn") is not None)
    versions = [[b"s"], [b"new", b"s"], [b"new"]]
    signed = [(opened(signing_keys=keys).find("req_1", "shop-cn") or ({}, None))[1] for keys in versions]
    assert signed == [True, True, False]


def test_receipts_without_seals_are_refused_with_the_release_to_start_first(opened: Open, tmp_path: Path) -> None:
    with closing(open_database(tmp_path, "receipts", receipts._LAYOUT.replace(",\n    seal TEXT", ""))):
        pass
    with pytest.raises(StateError, match=r"is of release 0.1: start release 0.2"):
        opened(signing_keys=[b"s"])


def test_receipt_whose_seal_is_missing_is_damaged(opened: Open, tmp_path: Path) -> None:
    opened(signing_keys=[b"s"])
    with closing(sqlite3.connect(tmp_path / "receipts.db", isolation_level=None)) as database:
        database.execute("INSERT INTO receipt VALUES (2, 'new', 'shop-cn', ?, '{\"id\":\"new\"}', NULL)", (AT_S,))
    with pytest.raises(ReceiptDamaged):
        opened(signing_keys=[b"s"]).find("new", "shop-cn")


@pytest.mark.parametrize(("reveals", "shown"), [(True, ("qwen-plus", "qwen3.7-plus")), (False, (None, None))])
def test_receipt_names_the_model_of_a_redirect_unless_models_are_hidden(reveals: bool, shown: tuple[Any, Any]) -> None:
    attempt = AttemptRecord("qwen-cn", "dashscope", "qwen-plus", 0.1, places=BEIJING, redirected_to="qwen3.7-plus")
    record = record_of(notes=(ShadowNote(attempt),))
    record.attempts, record.judges = [attempt], (attempt,)
    record.decided = replace(record.decided, decision=None, reveal_model=reveals)
    receipt: Any = receipt_data(record)
    for entry in (*receipt["tried"], *receipt["judges"], receipt["shadow"]):
        assert (entry["model"], entry["redirected_to"]) == shown


@given(st.floats(0, 4e9))
@example(1_795_000_000.999_999_8)
def test_time_of_a_receipt_is_written_as_isoformat_writes_it(at_s: float) -> None:
    assert shown_time(at_s) == datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
