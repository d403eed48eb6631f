"""Each entry of a table of errors has a source and a date, and the words that count anywhere match no other error."""

import json
import re
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.error_tables import ANY, Row, rows_of, rows_of_any, rules_of
from providers.failures import About, Failure, FailureKind
from providers.reading.error_words import judged_by_words
from providers.reading.errors import shared_rules
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.case_files import cases, tables_of
from tests.kit.chat_strategies import json_objects, unhurried

RULES = {name: rules_of(name, adapter) for name, adapter in load_registry().adapters.items()}
TABLES = {name: list(rows_of(rules)) for name, rules in RULES.items()} | {ANY: list(rows_of_any())}
FIELD = Path(__file__).parents[1] / "field"
DATED = re.compile(r".+ \(20\d\d-[01]\d-[0-3]\d\)")
OF_AN_ACCOUNT = {FailureKind.CREDENTIALS, FailureKind.QUOTA}
_TABLES = tables_of(__file__)
ORDINARY = _TABLES["ordinary"]


def messages(value: Any) -> Iterator[str]:
    """Yield the messages of the errors in the answer of a case."""
    if isinstance(value, dict):
        for name in ("message", "error", "detail", "error_msg", "status_msg"):
            if isinstance(value.get(name), str):
                yield value[name]
        for inner in value.values():
            yield from messages(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from messages(inner)


def sentences() -> list[tuple[str, FailureKind]]:
    rows = [row for table in TABLES.values() for row in table if row.what == "sentence"]
    return [(re.sub(r"\{\w+\}", "x-1", row.word).removesuffix("…"), FailureKind(row.kind)) for row in rows]


@pytest.mark.parametrize("text", ORDINARY)
def test_words_do_not_match_an_ordinary_message(text: str) -> None:
    assert judged_by_words((), text) is None


def test_words_match_no_sentence_of_another_kind() -> None:
    for text, kind in sentences():
        judged = judged_by_words((), text)
        if judged is not None:
            same = {judged[0], kind} <= OF_AN_ACCOUNT or judged[0] is kind
            assert same or kind in (FailureKind.MODEL_NOT_FOUND, FailureKind.GEO_REFUSED), (text, judged)


def test_words_of_a_filter_match_no_code_of_another_kind() -> None:
    for name, table in TABLES.items():
        for row in table:
            if row.what in ("code", "type"):
                judged = judged_by_words([row.word], "")
                assert judged is None or judged[0] is not FailureKind.CONTENT_FILTER or row.kind == "content_filter", (
                    name,
                    row.word,
                )


def test_words_of_a_filter_match_no_other_error_of_the_field() -> None:
    found: set[str] = set()
    for path in FIELD.glob("*.yaml"):
        for case in yaml.load(path.read_text("utf-8"), yaml.CSafeLoader):
            if "content_filter" not in str([case.get("want"), case.get("requests")]):
                found.update(messages(list((case.get("answers") or {}).values())))
    assert len(found) > 60
    for text in found:
        judged = judged_by_words((), text)
        assert judged is None or judged[0] is not FailureKind.CONTENT_FILTER, text


@pytest.mark.parametrize("name", sorted(TABLES))
def test_each_entry_has_a_source_with_a_date(name: str) -> None:
    for row in TABLES[name]:
        assert DATED.fullmatch(row.source), (row.word, row.source)
        assert row.about in set(About)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_each_source_has_its_entry(name: str) -> None:
    rules = shared_rules() if name == ANY else RULES[name]
    words = [row.word for row in TABLES[name]]
    for key in rules.sources:
        assert key == "*" or any(fnmatchcase(word, key.replace("[", "[[]")) or word == key for word in words), key
    assert rules.about.keys() <= set(words)


def test_nearly_every_provider_has_words_of_its_own() -> None:
    assert {name for name, rows in TABLES.items() if not rows} == {
        "lmstudio",
        "ollama",
        "openai",
        "openai-compatible",
        "sglang",
        "transformers",
    }


def test_row_has_the_meaning_of_an_error() -> None:
    rows = {row.word: row for row in TABLES["zhipu"]}
    assert rows["1113"] == Row("code", "1113", "quota", "key", "yes", rows["1113"].source)
    assert {row.word: row for row in TABLES["groq"]}["tool_use_failed"].about == "request"


# --- errors of any form ---------------------------------------------------------------------------

ADAPTERS = load_registry().adapters
SECRET = "sk-SECRET-PROMPT"
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "1" * 5000,
            "{" * 200,
            '{"error":{"message":"{\\"error\\":{\\"code\\":1}}"}}',
            "Your account is suspended",
            "content policy",
            "2026-99-99 99:99:99",
            "Please try again in 99999999999999999999999999h",
            SECRET,
        ]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                "error code type message detail param metadata raw details reason status loc msg base_resp".split()
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


def classified(name: str, status: int, body: bytes, headers: dict[str, str] | None = None) -> Failure:
    return ADAPTERS[name].classify_error(WireResponse(status, headers or {}, body, 1_790_000_000.0))


def check(failure: Failure) -> None:
    assert isinstance(failure.kind, FailureKind)
    assert isinstance(failure.concerns, About)
    assert failure.rule
    assert SECRET not in failure.message + failure.rule
    assert len(failure.rule) < 200
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s < 1e9
    json.dumps([failure.detail, failure.code, failure.param, failure.request_id]).encode()


@unhurried
@given(
    st.sampled_from(sorted(ADAPTERS)),
    st.sampled_from([400, 401, 402, 403, 404, 408, 413, 418, 422, 429, 451, 500, 503, 529]),
    st.one_of(
        VALUES.map(lambda value: json.dumps(value).encode()),
        VALUES.map(lambda value: json.dumps({"error": value}).encode()),
        VALUES.map(lambda value: json.dumps({"error": {"message": json.dumps({"error": value})}}).encode()),
        json_objects.map(lambda value: json.dumps(value).encode()[:-3]),
        st.binary(max_size=200),
    ),
)
def test_any_body_of_an_error_is_classified(name: str, status: int, body: bytes) -> None:
    check(classified(name, status, body))


@pytest.mark.parametrize("name", sorted(ADAPTERS))
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": {"message": "x{" * 500_000}}).encode(),
        json.dumps({"error": [{"code": 1, "message": "m"}] * 30_000}).encode(),
        json.dumps({"detail": [{"loc": ["body", "x" * 1000], "msg": "m" * 1000}] * 500}).encode(),
        b'{"error":{"message":"' + "欠".encode() * 300_000,
        b"\x1f\x8b\x08" + bytes(range(256)) * 4000,
    ],
    ids=["open-braces", "list", "mistakes", "cut", "gzip"],
)
def test_a_body_of_a_megabyte_takes_no_longer_than_its_parsing(name: str, body: bytes) -> None:
    times = [1.0]
    while min(times) >= 0.2 and len(times) < 6:  # the garbage of other tests may be collected during some of them
        started = time.process_time()
        check(classified(name, 500, body))
        times.append(time.process_time() - started)
    assert min(times) < 0.2


@cases("body")
@pytest.mark.parametrize("name", ["openai-compatible", "openai", "groq", "mistral", "deepseek"])
def test_a_spent_quota_is_found_in_any_form(name: str, body: dict[str, object]) -> None:
    found = classified(name, 500, json.dumps(body).encode())
    assert (found.kind, found.concerns, found.is_stated) == (FailureKind.QUOTA, About.KEY, True)


@cases("raw", "kind")
def test_what_a_relay_quotes_counts_where_it_is_about_the_request(raw: str, kind: FailureKind) -> None:
    error = {"message": "Provider returned error", "code": 429, "metadata": {"raw": raw, "provider_name": "P"}}
    assert classified("openrouter", 429, json.dumps({"error": error}).encode()).kind is kind


@cases("name", "status", "error", "wait_s")
def test_the_reset_that_an_error_names_is_the_time_to_wait(
    name: str, status: int, error: dict[str, object], wait_s: float | None
) -> None:
    assert classified(name, status, json.dumps({"error": error}).encode()).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"error": {"message": "m", "param": "tools[0].function.name"}}, "tools[0].function.name"),
        ({"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "field required"}]}, "messages[0].content"),
        ({"error": {"message": "m", "param": f"what is {SECRET}?"}}, None),
    ],
)
def test_the_member_that_is_wrong_is_a_path(body: dict[str, object], param: str | None) -> None:
    assert classified("openai-compatible", 400, json.dumps(body).encode()).param == param
