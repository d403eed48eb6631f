"""The check of answers by a client's schema: what it accepts, and that its work is bounded and done in small pieces."""

import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.execution import json_schemas
from gateway.execution.json_schemas import MOST_WORK, PAUSE_AFTER, AnswerSchema, TooMuchWork, WorkLimit, answer_schema
from providers.failures import InvalidRequest
from tests.kit.case_files import cases


def read(schema: Any) -> AnswerSchema:
    return AnswerSchema(json.dumps(schema).encode(), WorkLimit(MOST_WORK))


def problem(schema: Any, value: object) -> str | None:
    return read(schema).problem_within(json.dumps(value), WorkLimit(MOST_WORK))


def doubled(keyword: str, depth: int) -> dict[str, Any]:
    """Return a schema whose work doubles with each level."""
    levels = {f"d{at}": {keyword: [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**levels, f"d{depth}": {"type": "integer"}}}


BRANCHES = [{"type": "object", "properties": {f"p{at}": {"enum": [at]}}} for at in range(900)]
ONE_NAME = {"name": {"type": "string"}}
LONG = "x" * 100_000
KEYS = {f"k{at}": at for at in range(900)}
HOSTILE: dict[str, tuple[dict[str, Any], object]] = {
    "branches": ({"anyOf": [{"type": "object", "required": [f"p{at}"]} for at in range(900)]}, {"p": LONG}),
    "large values": ({"items": {"anyOf": [{"type": "null"}] * 900}}, [{"p": LONG}] * 4),
    "doubled allOf": (doubled("allOf", 28), 1),
    "doubled anyOf": (doubled("anyOf", 28), "x"),
    "doubled oneOf": (doubled("oneOf", 28), 1),
    "own schema": ({"$defs": {"a": {"$schema": "draft-07", **doubled("allOf", 28)}}, **doubled("allOf", 28)}, 1),
    "recursion": ({"$ref": "#"}, 1),
    "doubled in depth": (
        {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 3},
        json.loads('{"a":' * 60 + "1" + "}" * 60),
    ),
    "enum": ({"items": {"enum": list(range(9000))}}, list(range(9000, 12000))),
    "nested enum": ({"items": {"enum": [[list(range(9000))]]}}, [[list(range(9000))]] * 10),
    "required": ({"items": {"required": [f"k{at}" for at in range(4000)]}}, [KEYS] * 10),
    "unique": ({"items": {"uniqueItems": True}}, [[[at] for at in range(900)]] * 100),
    "unevaluated": ({"allOf": [{"properties": {key: True}} for key in KEYS], "unevaluatedProperties": False}, KEYS),
    "nothing in the branches": ({"unevaluatedItems": False, "allOf": [{}] * 9000}, [1]),
    "contains": ({"contains": {"const": 0}, "minContains": 10**9}, [[]] * 50_000),
    "large answer": ({"items": True}, [[]] * 100_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_check_pauses_after_little_work(name: str) -> None:
    """The interpreter's events between two pauses are counted: a time would depend on the machine."""
    schema, value = HOSTILE[name]
    pieces = [0]

    def count(*_: object) -> None:
        pieces[-1] += 1

    def counted(job: Callable[[WorkLimit], object]) -> None:
        pieces.append(0)
        sys.setprofile(count)
        try:
            with suppress(TooMuchWork, InvalidRequest):
                job(WorkLimit(6_000, lambda: pieces.append(0)))
        finally:
            sys.setprofile(None)

    data, text = json.dumps(schema).encode(), json.dumps(value)
    counted(lambda work: AnswerSchema(data, work))
    with suppress(InvalidRequest):
        checked = AnswerSchema(data, WorkLimit(MOST_WORK))
        counted(lambda work: checked.problem_within(text, work))
    assert max(pieces) < 100 * PAUSE_AFTER


@pytest.mark.parametrize("keyword", ["allOf", "oneOf"])
def test_exponential_work_ends(keyword: str) -> None:
    work = WorkLimit(5_000)
    with pytest.raises(TooMuchWork):
        read(doubled(keyword, 28)).problem_within("1", work)
    assert work.done <= 5_000 + PAUSE_AFTER


@cases("schema", "words")
def test_schema_is_refused_with_the_reason(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read(schema)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        (
            {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}},
            {"$ref": 1},
            "1 is not of type 'string'",
        ),
        ({"$defs": {"a b/c": {"type": "null"}}, "$ref": "#/$defs/a%20b~1c"}, 1, "1 is not of type 'null'"),
        (
            {"anyOf": [{"type": "null"}, {"properties": ONE_NAME}]},
            {"name": 5},
            "5 is not of type 'string' (at $['name'])",
        ),
        ({"$id": "https://example.com/a", "$defs": {"a": {"type": "null"}}, "$ref": "#/$defs/a"}, 1, "of type 'null'"),
        ({"enum": ["a", "b"]}, "c", "'c' is not one of ['a', 'b']"),
        ({"enum": list(range(100))}, "c", ", …]"),
        ({"type": "string"}, {"long": LONG}, "{…} is not of type 'string' (at $)"),
        ({"type": "integer"}, LONG, "'…' is not of type 'integer' (at $)"),
        ({"uniqueItems": True}, [1, 1.0], "uniqueItems"),
    ],
)
def test_message_names_the_problem_in_few_words(schema: dict[str, Any], value: object, words: str) -> None:
    message = problem(schema, value)
    assert message is not None
    assert words in message
    assert len(message) <= 501


@pytest.mark.parametrize("text", ["[1", "NaN", "", "[" * 100_000, '"\\ud800"'])
def test_text_that_is_not_json_is_a_problem(text: str) -> None:
    try:
        assert str(read({}).problem_within(text, WorkLimit(MOST_WORK))).startswith("it is not valid JSON")
    except TooMuchWork:
        assert len(text) == 100_000


@pytest.mark.parametrize(
    ("divisor", "text", "is_multiple"),
    [
        (0.01, "19.99", True),
        (0.1, "0.3", True),
        (0.01, "19.999", False),
        (2, "4.0", True),
        (0.5, "7", True),
        (3, "10", False),
        (1e-7, "1e-7", True),
        (0.01, "1" + "0" * 400, True),
    ],
)
def test_multiples_are_those_of_decimal_numbers(divisor: float, text: str, is_multiple: bool) -> None:
    problem = read({"multipleOf": divisor}).problem_within(text, WorkLimit(MOST_WORK))
    assert (problem is None) == is_multiple


@pytest.mark.parametrize(
    "schema",
    [{"properties": {f"p{at}": {"type": "string", "description": "words"} for at in range(1100)}}, {"anyOf": BRANCHES}],
)
def test_schema_of_almost_64_kb_can_be_checked(schema: dict[str, Any]) -> None:
    assert 50_000 < len(json.dumps(schema)) < 70_000
    assert problem(schema, {"p1": "x"}) is None


async def test_same_schema_is_read_once() -> None:
    schema = {"type": "object", "title": "read once"}
    assert await answer_schema(schema) is await answer_schema(dict(schema))


async def test_little_work_does_not_wait_for_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    await answer_schema({"title": "the library is loaded"})
    monkeypatch.delattr(json_schemas, "_threads")
    schema = await answer_schema({"properties": {f"p{at}": {"type": "string"} for at in range(10)}, "required": ["p1"]})
    assert await schema.problem_of('{"p1": "x"}') is None
    with pytest.raises(NameError):
        await schema.problem_of(json.dumps({"p1": LONG}))


async def test_choices_share_the_work_of_an_answer() -> None:
    schema = await answer_schema({"items": {"type": "integer"}})
    text = json.dumps(list(range(9000)))
    assert await schema.problem_of(text) is None
    assert "too much work" in str(await schema.problem_of(text, 100))


async def test_answer_that_is_too_long_is_not_checked() -> None:
    schema = await answer_schema({"type": "string"})
    assert "524288 are accepted" in str(await schema.problem_of('"' + "x" * 600_000 + '"'))
    assert await schema.problem_of('"' + LONG + '"') is None


NAMES = st.sampled_from("abc")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([1.0, 1.5, "", "a", "abc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "null", "boolean"])


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    some, by_name, small = (
        st.lists(inner, min_size=1, max_size=2),
        st.dictionaries(NAMES, inner, max_size=2),
        st.integers(0, 2),
    )
    single = ["items", "contains", "not", "if", "then", "else", "propertyNames"]
    single += ["additionalProperties", "unevaluatedProperties", "unevaluatedItems"]
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(single, inner),
            **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], some),
            **dict.fromkeys(["properties", "dependentSchemas"], by_name),
            **dict.fromkeys(["minItems", "maxItems", "minProperties", "maxLength", "minimum", "maximum"], small),
            "type": TYPES | st.lists(TYPES, unique=True, min_size=1, max_size=2),
            "enum": st.lists(VALUES, max_size=3),
            "const": VALUES,
            "required": st.lists(NAMES, unique=True),
            "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, unique=True), max_size=2),
            "uniqueItems": st.booleans(),
            "$ref": st.just("#/$defs/a"),
        },
    )


SCHEMAS = st.recursive(st.booleans(), keywords, max_leaves=6)


@given(keywords(SCHEMAS), SCHEMAS, VALUES)
def test_counted_check_and_the_library_agree(schema: dict[str, Any], definition: Any, value: object) -> None:
    schema = {**schema, "$defs": {"a": definition}}
    try:
        expected = Draft202012Validator(schema).is_valid(value)
    except RecursionError:
        with pytest.raises(TooMuchWork):
            problem(schema, value)
        return
    assert (problem(schema, value) is None) == expected


def test_library_is_loaded_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that import a package and a part of it fail now and then: the first request got status 500."""
    begun, go_on = threading.Event(), threading.Event()
    loading: list[None] = []

    def load() -> None:
        loading.append(None)
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(json_schemas, "_meta_schema", load)
    threads = [threading.Thread(target=json_schemas._load) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.1)
    assert len(loading) == 1
    go_on.set()
    for thread in threads:
        thread.join()
