"""The errors that clients get: one table of codes, one envelope, and nothing in it that isn't theirs to know."""

import ast
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.errors import ApiError, blocking_link, encode_error, from_domain, whole_seconds
from gateway.execution.retry import rule_of
from gateway.execution.run import PlanExhausted
from gateway.model.decision import Refusal, RefusalCode, Refused
from gateway.model.record import AttemptRecord
from gateway.model.refusal_reason import REASON_BY_CODE, STATUS
from gateway.service.assistants import AssistantNotFound
from providers.failures import Failure, FailureKind, InvalidRequest, UnsupportedFeature
from tests.architecture.source_tree import ROOT
from tests.kit.case_files import cases
from tests.kit.input_gateway import CONFIG, InputGateway

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    451: "permission_error",
    **dict.fromkeys(range(500, 600), "api_error"),
}
"""By status; a request is wrong in all other ways."""
FAILED = Failure(FailureKind.UNAVAILABLE, "busy", "the detail with sk-secret", status=503, code="their-code")
ATTEMPTS = [AttemptRecord("first", "openai", "m", 0.1234, FAILED), AttemptRecord("second", "openai", "m", 0.2)]

OUTCOMES = {
    FailureKind.CONNECT: (502, "provider_error"),
    FailureKind.UNAVAILABLE: (502, "provider_error"),
    FailureKind.RATE_LIMITED: (429, "rate_limited"),
    FailureKind.QUOTA: (503, "no_healthy_deployment"),
    FailureKind.SILENT: (504, "deadline_exceeded"),
    FailureKind.CREDENTIALS: (502, "provider_error"),
    FailureKind.MODEL_NOT_FOUND: (502, "provider_error"),
    FailureKind.GEO_REFUSED: (502, "provider_error"),
    FailureKind.CONTEXT_LENGTH: (400, "context_length_exceeded"),
    FailureKind.INVALID_REQUEST: (400, "invalid_request"),
    FailureKind.REFUSED_HERE: (400, "unsupported_capability"),
    FailureKind.FIELD_REFUSED: (502, "provider_error"),
    FailureKind.UNSUPPORTED: (400, "unsupported_capability"),
    FailureKind.CONTENT_FILTER: (400, "content_filter"),
    FailureKind.MALFORMED: (502, "provider_error"),
    FailureKind.NOT_JSON: (502, "provider_error"),
    FailureKind.NOT_VALID: (502, "provider_error"),
    FailureKind.INTERRUPTED: (502, "provider_error"),
    FailureKind.TOO_LARGE: (502, "provider_error"),
    FailureKind.DEADLINE: (504, "deadline_exceeded"),
    FailureKind.OVERLOADED: (503, "overloaded"),
}


NO_ATTEMPTS = {"stream_interrupted", "gate_unavailable", "keys_unavailable", "moderation_unavailable"}


@pytest.mark.parametrize("code", STATUS)
def test_each_code_has_one_status_and_a_type_that_sdks_know(code: str) -> None:
    error = ApiError(code, "words")
    (envelope,) = encode_error(error).values()
    assert isinstance(envelope, dict)
    attempts = {"attempts": []} if error.status in (502, 503, 504) and code not in NO_ATTEMPTS else {}
    kind, reason = TYPES.get(error.status, "invalid_request_error"), REASON_BY_CODE[code]
    assert envelope == {"message": "words", "type": kind, "param": None, "code": code, "reason": reason, **attempts}
    assert 400 <= error.status < 600


def test_every_refusal_of_routing_has_a_status() -> None:
    assert {str(code) for code in RefusalCode} <= set(STATUS)


@pytest.mark.parametrize("kind", FailureKind)
def test_each_kind_of_failure_has_its_outcome(kind: FailureKind) -> None:
    shown = from_domain(PlanExhausted(Failure(kind, "words", "detail")), ATTEMPTS)
    assert (shown.status, shown.code) == OUTCOMES[kind]
    retryable = ("rate_limited", "no_healthy_deployment", "overloaded")
    assert (shown.retry_after_s is not None) == (shown.code in retryable)
    # An overloaded deployment may soon have a slot, and no provider has refused the request.
    assert shown.headers == ({} if kind is FailureKind.OVERLOADED else {"x-should-retry": "false"})


def test_listed_attempts_contain_no_secret_and_no_provider_text() -> None:
    shown = from_domain(PlanExhausted(FAILED), ATTEMPTS)
    assert shown.extra == {
        "attempts": [
            {"deployment": "first", "reason": "unavailable", "status": 503, "duration_ms": 123.4},
            {"deployment": "second", "reason": None, "status": None, "duration_ms": 200.0},
        ]
    }
    assert "sk-secret" not in str(encode_error(shown))
    assert "their-code" not in str(encode_error(shown))
    assert shown.message == "busy"


def test_error_that_the_client_can_fix_lists_no_attempts() -> None:
    for kind in (FailureKind.INVALID_REQUEST, FailureKind.CONTENT_FILTER, FailureKind.CONTEXT_LENGTH):
        assert from_domain(PlanExhausted(Failure(kind, "words")), ATTEMPTS).extra == {}


def test_error_without_an_attempt_has_a_retry_after() -> None:
    shown = from_domain(PlanExhausted(FAILED), [])
    assert (shown.status, shown.code, shown.headers) == (503, "no_healthy_deployment", {})
    assert shown.retry_after_s is not None


def test_invalid_request_error_quotes_the_provider_up_to_a_limit() -> None:
    failure = Failure(FailureKind.INVALID_REQUEST, "the request is wrong", "x" * 2000, param="top_k")
    shown = from_domain(PlanExhausted(failure), ATTEMPTS)
    assert shown.message.startswith("the request is wrong: xxx")
    assert len(shown.message) < 600
    assert shown.param == "top_k"


@pytest.mark.parametrize(("named_s", "expected_s"), [(None, 1.0), (30.5, 30.5)])
def test_retry_after_is_the_providers_value_or_the_default(named_s: float | None, expected_s: float) -> None:
    failure = Failure(FailureKind.RATE_LIMITED, "too much", retry_after_s=named_s)
    assert from_domain(PlanExhausted(failure), ATTEMPTS).retry_after_s == expected_s


def test_retry_after_of_a_spent_quota_covers_the_cooldown_of_its_key() -> None:
    spent = Failure(FailureKind.QUOTA, "spent")
    assert from_domain(PlanExhausted(spent), ATTEMPTS).retry_after_s == rule_of(spent).cooldown_s
    assert from_domain(PlanExhausted(replace(spent, retry_after_s=7.0)), ATTEMPTS).retry_after_s == 7.0


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        (Refused(Refusal(RefusalCode.UNSUPPORTED_CAPABILITY, "words", param="n")), "unsupported_capability", "n"),
        (
            UnsupportedFeature("custom_tools", "`tools[0]` is …", "tools[0].type"),
            "unsupported_capability",
            "tools[0].type",
        ),
        (InvalidRequest("must be a number", "temperature"), "invalid_request", "temperature"),
    ],
    ids=["refusal", "unsupported feature", "invalid body"],
)
def test_error_of_a_member_of_the_request_names_its_param(error: Exception, code: str, param: str) -> None:
    shown = from_domain(error, [])
    assert (shown.status, shown.code, shown.param) == (400, code, param)


@pytest.mark.parametrize("code", RefusalCode)
def test_refusal_keeps_its_code_and_message(code: RefusalCode) -> None:
    shown = from_domain(Refused(Refusal(code, "words", None, 9.0)), [])
    assert (shown.code, shown.message) == (code, "words")
    later = code in (RefusalCode.RATE_LIMITED, RefusalCode.NO_HEALTHY_DEPLOYMENT)
    unspecified = from_domain(Refused(Refusal(code, "words")), [])
    assert unspecified.retry_after_s == (1.0 if later else None)
    assert shown.retry_after_s == 9.0
    assert shown.extra == {}
    assert shown.headers == ({"x-should-retry": "false"} if shown.is_of_policy else {})


@pytest.mark.parametrize("code", STATUS)
def test_no_client_repeats_what_the_same_request_can_never_get(code: str) -> None:
    policy = {"territory", "approval", "age", "consent", "moderation"}
    never = STATUS[code] in (401, 501) or (REASON_BY_CODE[code] in policy and STATUS[code] != 421)
    assert ApiError(code, "why").headers == ({"x-should-retry": "false"} if never else {})


COMPACTS = re.compile(
    r"(prompt|input) is too long|context window|maximum context|maximum prompt length|model token limit"
    r"|exceeds the maximum number of tokens|token length too long|range of input length should be"
    r"|reduce the length of the messages",
    re.IGNORECASE,
)
"""The words on which Claude Code compacts the conversation: only an error about a prompt that is too long has them."""
ABOUT_LENGTH = {
    "gateway/api/dialects/gemini/errors.json": "Google's words for this error",
    "gateway/api/dialects/messages/errors.json": "Anthropic's words for this error",
    "gateway/api/openapi_examples.json": "the example of this error",
    "gateway/model/hand_off.py": "the description of a cause in the reference",
    "providers/reading/messages.json": "the message of this kind of failure",
}


def test_no_other_error_has_the_words_on_which_clients_compact() -> None:
    texts = {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for folder in ("gateway", "providers")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".json")
    }
    found = {
        name
        for name, text in texts.items()
        if not re.search("testkit|simulat", name) and COMPACTS.search(text)
        if name.endswith(".json") or any(map(COMPACTS.search, _constants(text)))
    }
    assert found == {*ABOUT_LENGTH}


def _constants(module: str) -> list[str]:
    nodes = ast.walk(ast.parse(module))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_blocked_by_link_is_sent_only_with_451_and_a_known_page() -> None:
    page = "https://assistant.example/where"
    for code, status in STATUS.items():
        expected = {"link": f'<{page}>; rel="blocked-by"'} if status == 451 else {}
        assert blocking_link(ApiError(code, "words"), page) == expected
        assert blocking_link(ApiError(code, "words"), None) == {}


def test_another_cell_is_named_twice() -> None:
    shown = from_domain(Refused(Refusal(RefusalCode.WRONG_CELL, "elsewhere", "https://cn.example")), [])
    assert (shown.status, dict(shown.headers)) == (421, {"location": "https://cn.example"})
    assert encode_error(shown)["error"]["home"] == "https://cn.example"  # type: ignore[index]


@cases("name", "nearest", "words")
def test_an_unknown_assistant(name: str, nearest: tuple[str, ...], words: str) -> None:
    shown = from_domain(AssistantNotFound(name, nearest), [])
    assert (shown.status, shown.code, shown.param, shown.message) == (404, "model_not_found", "model", words)


def test_a_long_name_is_cut() -> None:
    assert len(from_domain(AssistantNotFound("x" * 100_000, ()), []).message) < 200


def test_unexpected_error_shows_no_detail() -> None:
    shown = from_domain(RuntimeError("sk-secret at /etc/passwd"), ATTEMPTS)
    assert (shown.status, shown.code) == (500, "internal_error")
    assert "secret" not in str(shown)
    assert "passwd" not in str(encode_error(shown))


def test_api_error_is_returned_unchanged() -> None:
    error = ApiError("overloaded", "full", retry_after_s=1)
    assert from_domain(error, []) is error
    assert str(error) == "overloaded: full"


@given(seconds=st.floats(0, 1e9))
def test_retry_after_is_whole_seconds_and_never_too_early(seconds: float) -> None:
    assert int(whole_seconds(seconds)) >= max(seconds, 1)
    assert int(whole_seconds(seconds)) < max(seconds, 1) + 1


PDF, PNG = "data:application/pdf;base64,JVBERi0xLjQKJSVFT0YK", "data:image/png;base64,iVBORw0KGgo="
ASKED_TEXT = {"type": "text", "text": "What is it?"}


@pytest.mark.parametrize(("path", "body", "param", "words"), [
    ("/v1/chat/completions", {"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [ASKED_TEXT, {"type": "image_url", "image_url": {"url": PNG}}]}]},
     "messages[1].content[1]", "does not support vision): see `messages[1].content[1]`"),
    *[("/v1/chat/completions", {"messages": [{"role": "user", "content": [ASKED_TEXT, part]}]},
       "messages[0].content[1]", "does not support file): see")
      for part in ({"type": "file", "file": {"file_data": PDF}}, {"type": "image_url", "image_url": {"url": PDF}})],
    ("/v1/responses", {"instructions": "Be brief.", "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PDF}]}]},
     "input[0].content[1]", "does not support file): see"),
    ("/v1/messages", {"max_tokens": 9, "system": "Be brief.", "messages": [{"role": "user", "content": [
        ASKED_TEXT, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG[22:]}}]}]},
     "messages", "see `messages`"),
    ("/v1/chat/completions", {"input": "hello", "max_output_tokens": 5, "tools": [{"type": "function", "name": "f"}]},
     "messages", "`messages` is required: a body with `input` belongs to `/v1/responses`"),
])  # fmt: skip
def test_an_error_names_the_part_that_is_the_cause(path: str, body: dict[str, Any], param: str, words: str) -> None:
    gateway = InputGateway(lambda request: httpx.Response(500), CONFIG)
    answer = gateway.post(path, {"model": "assistant", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert words in answer.json()["error"]["message"]
    assert not gateway.requests
