"""Failures are classified by status and by the contents of the error body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.failures import About, Failure, FailureKind
from providers.json_values import dumps
from providers.reading.errors import (
    MESSAGES,
    ErrorRules,
    Phrases,
    blames_itself,
    by_status,
    classify,
    error_object,
    failure,
    is_html,
    mistakes_in,
)
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.case_files import cases, tables_of
from tests.kit.chat_strategies import json_objects, unhurried

K = FailureKind
ACME = ErrorRules(
    codes={"E7": K.QUOTA, "E8": K.UNAVAILABLE},
    types={"server_error": K.UNAVAILABLE, "overloaded": K.UNAVAILABLE},
    messages=Phrases({"no parrot {name}": K.MODEL_NOT_FOUND}),
    about={"E8": About.REQUEST},
    vendor="acme",
)


def response(status: int = 500, headers: dict[str, str] | None = None, body: bytes = b"") -> WireResponse:
    return WireResponse(status, headers or {}, body, 1000.0)


@cases("status", "kind")
def test_status_maps_to_its_failure_kind(status: int, kind: FailureKind) -> None:
    assert by_status(status) is kind


def test_every_status_has_a_message_for_the_client() -> None:
    assert {by_status(status) for status in range(200, 600)} <= MESSAGES.keys()


def test_failure_has_our_message_for_the_client_and_the_providers_text_for_the_log() -> None:
    headers = {"retry-after": "7", "x-request-id": "req-1"}
    assert failure(response(429, headers), FailureKind.RATE_LIMITED, code="c", detail="org-1 is over", param="n") == Failure(
        kind=FailureKind.RATE_LIMITED,
        message=MESSAGES[FailureKind.RATE_LIMITED],
        detail="org-1 is over",
        status=429,
        code="c",
        retry_after_s=7,
        request_id="req-1",
        param="n",
    )  # fmt: skip


def test_wait_in_the_body_wins_over_the_headers() -> None:
    classified = failure(
        response(429, {"retry-after": "7", "x-request-id": "head"}),
        FailureKind.RATE_LIMITED,
        request_id="body",
        retry_after=3.0,
    )
    assert (classified.retry_after_s, classified.request_id) == (3.0, "body")
    assert failure(response(429, {"retry-after": "7"}), FailureKind.RATE_LIMITED, retry_after=0.0).retry_after_s == 0.0


@pytest.mark.parametrize(
    ("value", "taken"), [("true", True), (" False ", False), ("", None), ("1", None), ("true, false", None)]
)
def test_should_retry_header_of_a_provider_is_read(value: str, taken: bool | None) -> None:
    headers = {"x-should-retry": value} if value else {}
    assert failure(response(500, headers), FailureKind.UNAVAILABLE).should_retry is taken


def test_texts_of_a_provider_are_limited_and_can_be_encoded() -> None:
    long = "x\ud83d" * 5000
    classified = failure(response(), FailureKind.UNAVAILABLE, code=long, detail=long, request_id=long, param=long)
    for text, most in (
        (classified.detail, 2000),
        (classified.code, 200),
        (classified.request_id, 200),
        (classified.param, 200),
    ):
        assert text is not None
        assert len(text) == most
        assert dumps(text)


@cases("status", "left_out", "kind")
def test_lookups_of_an_errors_kind_have_an_order(status: int, left_out: str, kind: FailureKind) -> None:
    without = left_out.split()
    error_type = "permission_error" if "code-type" in without else "unsupported_country_region_territory"
    error = {"code": "model_not_found", "type": error_type}
    for part in {"code", "type"} & set(without):
        del error[part]
    rules: dict[str, dict[str, FailureKind]] = {
        "statuses": {"400": FailureKind.QUOTA},
        "codes": {"model_not_found": FailureKind.RATE_LIMITED},
        "types": {error_type: FailureKind.REFUSED_HERE},
    }
    body: dict[str, object] = {"error": error} | ({} if "mark" in without else {"misalignment": {"policy": "p"}})
    table = ErrorRules(**{name: kinds for name, kinds in rules.items() if name not in without})  # type: ignore[arg-type]
    assert classify(body, response(status), table).kind is kind


@cases("status", "kind", "is_stated")
def test_code_that_blames_the_request_counts_only_below_500(status: int, kind: FailureKind, is_stated: bool) -> None:
    rules = ErrorRules(codes={"E1": FailureKind.INVALID_REQUEST})
    found = classify({"error": {"code": "E1"}}, response(status), rules)
    assert (found.kind, found.is_stated) == (kind, is_stated)
    assert blames_itself(FailureKind.INVALID_REQUEST, response(status)) is (kind is FailureKind.UNAVAILABLE)


@cases("code", "message", "kind")
def test_known_sentence_refines_an_inexact_kind(code: str, message: str, kind: FailureKind) -> None:
    rules = ErrorRules(
        codes={"E1": FailureKind.INVALID_REQUEST, "E2": FailureKind.CONTENT_FILTER},
        messages=Phrases({"The parrot sleeps.": FailureKind.UNAVAILABLE, "model not found": FailureKind.QUOTA}),
    )
    assert classify({"error": {"code": code, "message": message}}, response(400), rules).kind is kind


def test_first_code_that_a_table_knows_counts() -> None:
    rules = ErrorRules(codes={"E1": FailureKind.QUOTA}, code_at=("error.details.code",))
    details = [{"code": "outer"}, {"code": "model_not_found"}, {"code": "E1"}]
    found = classify({"error": {"details": details}}, response(400), rules)
    assert (found.kind, found.code) == (FailureKind.MODEL_NOT_FOUND, "model_not_found")


def test_kind_without_its_own_message_is_named() -> None:
    assert failure(response(), FailureKind.SILENT).message == "silent"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error":{"code":1}}', {"error": {"code": 1}}),
        (b' \r\n{"a":1}\n ', {"a": 1}),
        (b'[{"error":{"code":400}}]', {"error": {"code": 400}}),
        (b'[{"a":1},{"b":2}]', {"a": 1}),
        (b'data: {"a":1}\n\n', {"a": 1}),
        (b'data:{"a":1}', {"a": 1}),
        (b'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"DataInspectionFailed"}\n\n', {"code": "DataInspectionFailed"}),
        (b'event: error\r\ndata: [{"a":1}]\r\n\r\n', {"a": 1}),
        (b'data: {"a":1}\n\ndata: {"b":2}\n\n', {"a": 1}),
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b"", {}),
        (b"  ", {}),
        (b"[]", {}),
        (b'["a"]', {}),
        (b'"Invalid token"', {}),
        (b"null", {}),
        (b"upstream connect error", {}),
        (b"<html><body>502</body></html>", {}),
        (b'{"error":{"code', {}),
        (b"data: {", {}),
        (b"\xff\xfe", {}),
        (b"x\n" * 64 + b'data: {"a":1}', {}),
    ],
)  # fmt: skip
def test_the_object_in_the_body_of_an_error(body: bytes, found: dict[str, object]) -> None:
    assert error_object(body) == found


@unhurried
@given(json_objects, st.sampled_from(["%s", "[%s]", "data: %s\n\n", "event: error\ndata:%s", "\n %s \n"]))
def test_an_object_is_found_in_every_wrapping(value: dict[str, object], wrapping: str) -> None:
    assert error_object((wrapping % json.dumps(value)).encode()) == value


@unhurried
@given(st.binary())
def test_any_error_body_is_classified_without_an_exception(body: bytes) -> None:
    assert isinstance(error_object(body), dict)


@pytest.mark.parametrize(
    ("kind", "html"),
    [("text/html", True), ("Text/HTML; charset=utf-8", True), ("application/json", False), ("text/plain", False), ("", False)],
)  # fmt: skip
def test_html_page_is_recognised_by_its_content_type(kind: str, html: bool) -> None:
    assert is_html(kind) is html


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": "no such tool"}, "no such tool"),
        (
            {
                "detail": [
                    {"loc": ["body", "messages", 0, "content"], "msg": "field required", "input": {"role": "user"}}
                ]
            },
            "messages.0.content: field required",
        ),
        (
            {"message": {"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}, {"msg": "and more"}]}},
            "seed: not permitted; and more",
        ),
        ({"detail": [{"loc": ["body"], "msg": "x"}] * 100}, "; ".join("x" * 8)),
        ({"detail": [5, {"loc": 5, "msg": 5}, {"loc": [None, {}]}]}, ""),
        ({"detail": {}}, ""),
        ({"message": "m"}, ""),
        ({}, ""),
    ],
)
def test_errors_of_a_web_framework_are_reported_with_their_paths(body: dict[str, object], message: str) -> None:
    assert mistakes_in(body) == message


@pytest.mark.parametrize("name", ["mistral", "openai-compatible"])
def test_a_web_frameworks_mistakes_are_the_details_of_a_wrong_request(name: str) -> None:
    """Mistral's API and operators' own FastAPI servers send this form."""
    body = dumps({"detail": [{"loc": ["body", "tool_choice"], "msg": "Input should be 'auto'", "type": "enum"}]})
    found = load_registry().adapters[name].classify_error(response(422, body=body))
    assert (found.kind, found.detail) == (FailureKind.INVALID_REQUEST, "tool_choice: Input should be 'auto'")


@cases("status", "headers", "error", "kind", "about", "is_stated", "rule")
def test_failure_has_its_subject_and_the_rule_that_judged(
    status: int,
    headers: dict[str, str],
    error: dict[str, str],
    kind: FailureKind,
    about: About,
    is_stated: bool,
    rule: str,
) -> None:
    found = classify({"error": error}, response(status, headers), ACME)
    assert (found.kind, found.concerns, found.is_stated, found.rule) == (kind, about, is_stated, rule)


@cases("code", "message", "kind")
@pytest.mark.parametrize("name", ["openai-compatible", "openai", "anthropic", "groq"])
def test_words_decide_at_every_vendor(code: str, message: str, kind: FailureKind, name: str) -> None:
    body = dumps({"error": {"message": message, "code": code or None}})
    found = load_registry().adapters[name].classify_error(response(400, body=body))
    assert found.kind is kind


_TABLES = tables_of(__file__)
STATES = _TABLES["states"]
"""What servers of LM Studio, Ollama, llama.cpp, LocalAI, TabbyAPI, vLLM, TGI and Xinference say about their state."""
NOT_STATES = [
    "Failed to load image from url", "Unable to load file: the document exited",
    "Requested adapter not loaded", "messages.0.content: the server crashed is not a valid type",
    "Failed to connect to the provider of the tool", "The connection to the image's origin timed out", "provider: connection error is not a valid value of this field",
    "The prompt contains: worker died, failed to load model", "Invalid value: 'the worker died, failed to load model'",
    # A role that no server has, and messages that are missing.
    "messages[0].role: must be one of user, assistant", "Invalid role: foo", "messages 不能为空",
]  # fmt: skip


@pytest.mark.parametrize("code", ["", "model_not_found"])
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("message", STATES)
def test_state_of_a_server_is_its_failure(message: str, status: int, code: str) -> None:
    """A code that blames the request, or is that of an unknown model, does not change the meaning of the sentence."""
    found = classify({"error": {"message": message, "code": code or None, "param": "model"}}, response(status))
    assert (found.kind, found.concerns) == (K.UNAVAILABLE, About.DEPLOYMENT)


def test_missing_chat_template_is_the_operators_matter() -> None:
    found = classify({"error": {"message": "Failed to load the chat template of the model"}}, response(400))
    assert found.kind is K.REFUSED_HERE


@pytest.mark.parametrize("message", NOT_STATES)
def test_error_about_something_else_is_the_clients_mistake(message: str) -> None:
    assert classify({"error": {"message": message}}, response(400)).kind is K.INVALID_REQUEST


@pytest.mark.parametrize("message", ["no such model", "The prompt is too long for this model", "invalid api key"])
def test_model_that_is_not_known_is_refined_by_a_state_only(message: str) -> None:
    found = classify({"error": {"message": message, "code": "model_not_found"}}, response(400))
    assert (found.kind, found.is_stated) == (K.MODEL_NOT_FOUND, True)


@cases("message")
@pytest.mark.parametrize("name", ["tokenhub", "openai-compatible"])
def test_order_of_roles_is_refused_by_this_server_only(name: str, message: str) -> None:
    body = dumps({"error": {"message": message, "type": "invalid_request_error", "code": "1001"}})
    assert load_registry().adapters[name].classify_error(response(400, body=body)).kind is K.REFUSED_HERE
