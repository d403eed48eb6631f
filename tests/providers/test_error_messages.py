"""A complete sentence of a provider or its own words change the failure kind, not a client's text that an error quotes."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from providers.compatible.adapter import adapter_named, adapter_of
from providers.failures import FailureKind
from providers.reading.errors import Phrases
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried

INVALID, NO_MODEL = FailureKind.INVALID_REQUEST, FailureKind.MODEL_NOT_FOUND
PHRASES = Phrases(
    {
        "No model": NO_MODEL,
        "the model '{model}' is not here (7)": NO_MODEL,
        "{model}?": FailureKind.QUOTA,
        "too long: {asked} > {most}": FailureKind.CONTEXT_LENGTH,
    }
)


@cases("message", "kind")
def test_only_a_whole_sentence_decides_the_kind(message: str, kind: FailureKind) -> None:
    assert PHRASES.kind_of(INVALID, message) is kind


@pytest.mark.parametrize(("length", "kind"), [(256, NO_MODEL), (257, INVALID)])
def test_name_of_a_model_has_a_longest_length(length: int, kind: FailureKind) -> None:
    assert PHRASES.kind_of(INVALID, f"the model '{'m' * length}' is not here (7)") is kind


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not INVALID])
def test_kind_by_code_or_status_is_not_refined(kind: FailureKind) -> None:
    assert PHRASES.kind_of(kind, "No model") is kind


@unhurried
@given(before=st.text(min_size=1), after=st.text(min_size=1))
@example(before='"\n', after="0")
@example(before='x" ', after="0")
@example(before='"\n', after='\n"')
def test_prompt_that_is_quoted_in_an_error_does_not_change_the_kind(before: str, after: str) -> None:
    adapter = adapter_named("deepseek")
    for text in (f"{before}.Model Not Exist", f"Model Not Exist.{after}", f"{before}.Model Not Exist.{after}"):
        error = {"message": f'Invalid value: "{text}"', "type": "invalid_request_error"}
        failure = adapter.classify_error(WireResponse(400, {}, json.dumps({"error": error}).encode(), 0))
        assert failure.kind is INVALID


def test_prompt_that_is_repeated_in_a_refusal_does_not_choose_a_cooldown() -> None:
    message = "Invalid value for input: rate limit exceeded, please try again in 3600 seconds"
    for status, wait_s in ((400, None), (429, 3600.0)):
        body = json.dumps({"error": {"message": message}}).encode()
        failed = adapter_named("deepseek").classify_error(WireResponse(status, {}, body, 0))
        assert (failed.kind, failed.retry_after_s) == (FailureKind.RATE_LIMITED, wait_s)


def test_compatible_vendor_has_its_own_error_sentences() -> None:
    row = 'name = "acme"\n[dialect]\n[dialect.errors.messages]\nquota = ["{model} has nothing left"]\n'
    failed = adapter_of(row).classify_error(WireResponse(422, {}, b'{"message": "m-1 has nothing left"}', 0))
    assert (failed.kind, failed.detail) == (FailureKind.QUOTA, "m-1 has nothing left")


@pytest.mark.parametrize(
    ("provider", "status", "code", "kind"),
    [
        ("zhipu", 429, "1112", FailureKind.CREDENTIALS),  # a locked account, with the status of a rate limit
        ("zhipu", 429, "1302", FailureKind.RATE_LIMITED),
        ("dashscope-compatible", 400, "Model.NotExist", NO_MODEL),  # the errors of the native API
        ("groq", 403, "model_permission_blocked_org", NO_MODEL),  # the settings of the organization, not the key
    ],
)
def test_code_of_a_compatible_vendor_counts_before_the_status(
    provider: str, status: int, code: str, kind: FailureKind
) -> None:
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    failed = adapter_named(provider).classify_error(WireResponse(status, {}, body, 0))
    assert (failed.kind, failed.is_stated) == (kind, True)


def taken_for(provider: str, message: str) -> FailureKind:
    """Return the kind of a provider's error with this message and with the code of any invalid request."""
    code = {"minimax": "2013", "siliconflow": 20015, "vllm": 400, "mistral": "3051"}.get(provider, "InvalidParameter")
    body: object = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    if provider == "minimax":
        body = {"base_resp": {"status_code": 2013, "status_msg": message}}
    elif provider in ("siliconflow", "dashscope", "mistral"):
        body = {"code": code, "message": message}
    adapter = load_registry().adapters[provider]
    return adapter.classify_error(WireResponse(400, {}, json.dumps(body).encode(), 0)).kind


@cases("providers", "message")
def test_too_long_prompt_is_recognised_by_the_sentence_of_the_error(providers: str, message: str) -> None:
    for provider in providers.split():
        assert taken_for(provider, message) is FailureKind.CONTEXT_LENGTH
        for other in (f"Invalid value: {message}", message.replace("token", "word")):
            assert taken_for(provider, other) in (FailureKind.CONTEXT_LENGTH, INVALID)


@pytest.mark.parametrize("provider", ["dashscope", "ark", "siliconflow", "moonshot", "vllm", "openai-compatible"])
@cases("message")
def test_error_about_the_answer_limit_is_not_a_too_long_prompt(provider: str, message: str) -> None:
    assert taken_for(provider, message) in (INVALID, FailureKind.REFUSED_HERE)


def test_model_of_another_api_is_not_a_client_error() -> None:
    message = "the requested model doubao-seed-translation-250915 does not support this api.. Request id: 0217633719776"
    message = f"The parameter `model` specified in the request are not valid: {message}"
    assert taken_for("ark", message) is NO_MODEL
