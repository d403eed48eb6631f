"""A complete sentence of a provider or its own words change the failure kind, not a client's text that an error quotes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.compatible.adapter import adapter_named, adapter_of
from providers.failures import FailureKind
from providers.reading.errors import Phrases
from providers.registry import load_registry
from providers.wire import WireResponse
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


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("No model", NO_MODEL),
        (" No model\n", NO_MODEL),
        ("the model 'a/B-1.5:free' is not here (7)", NO_MODEL),
        (f"the model '{'m' * 256}' is not here (7)", NO_MODEL),
        ("m?", FailureKind.QUOTA),
        ("too long: 208656 > 200000", FailureKind.CONTEXT_LENGTH),
        ("too long: my secret > 200000", INVALID),
        ("", INVALID),
        ("no model", INVALID),
        ("No model.", INVALID),
        ("No model\nNo model", INVALID),
        ("Invalid name: 'No model'", INVALID),
        ("the model '' is not here (7)", INVALID),
        ("the model 'a b' is not here (7)", INVALID),
        ("the model 'ä' is not here (7)", INVALID),
        (f"the model '{'m' * 257}' is not here (7)", INVALID),
        ("the model 'm' is not here 7", INVALID),
        ("what is the model 'm'?", INVALID),
    ],
)
def test_only_a_whole_sentence_decides_the_kind(message: str, kind: FailureKind) -> None:
    assert PHRASES.kind_of(INVALID, message) is kind


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not INVALID])
def test_kind_by_code_or_status_is_not_refined(kind: FailureKind) -> None:
    assert PHRASES.kind_of(kind, "No model") is kind


@unhurried
@given(before=st.text(min_size=1), after=st.text(min_size=1))
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
        ("hunyuan-compatible", 400, "UnsupportedRegion", FailureKind.CREDENTIALS),
        ("groq", 403, "model_permission_blocked_org", NO_MODEL),  # the settings of the organization, not the key
    ],
)
def test_code_of_a_compatible_vendor_counts_before_the_status(
    provider: str, status: int, code: str, kind: FailureKind
) -> None:
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    failed = adapter_named(provider).classify_error(WireResponse(status, {}, body, 0))
    assert (failed.kind, failed.is_stated) == (kind, True)


LIMIT = "This model's maximum context length is 32768 tokens. However, "
EITHER = "Please reduce the length of the input prompt or the number of requested output tokens."
FLAT = "you requested 36864 tokens (32768 in the messages, 4096 in the completion). Please reduce the length of the "
OF_QWEN = "Range of input length should be [1, 983616]"
OF_ARK = "exceed max message tokens. Request id: 021756453937251fef43cebbc3e"
OF_KIMI = "Your request exceeded model token limit: 262144 (requested: 291351)"
OF_OPENROUTER = "This endpoint's maximum context length is 262144 tokens. However, you requested about 285795 tokens (277217 of text "


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


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("deepseek vllm huawei openai-compatible", f"{LIMIT}{FLAT}messages or completion."),
        ("vllm openai-compatible", f"{LIMIT}{FLAT}messages or completion. None"),
        (
            "vllm openai-compatible",
            f"{LIMIT}you requested 35620 tokens in the messages, Please reduce the length of the messages. None",
        ),
        (
            "vllm openai-compatible",
            f"{LIMIT}your request has 33000 input tokens. Please reduce the length of the input messages. "
            "(parameter=input_tokens, value=33000)",
        ),
        (
            "vllm openai-compatible",
            f"{LIMIT}you requested 32000 output tokens and your prompt contains at least 769 input tokens, for a total of at "
            f"least 32769 tokens. {EITHER} (parameter=input_tokens, value=769)",
        ),
        (
            "vllm",
            f"{LIMIT}you requested 16000 output tokens and your prompt contains 20000 input tokens, for a total of 36000 "
            f"tokens (20000 + 16000 = 36000 > 32768). {EITHER}",
        ),
        (
            "vllm",
            "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context length is 4096 "
            "tokens and your request has 2778 input tokens (8000 > 4096 - 2778). None",
        ),
        (
            "vllm",
            "You passed 98305 input tokens and requested 32768 output tokens. However, the model's context length is only "
            "131072 tokens, resulting in a maximum input length of 98304 tokens. Please reduce the length of the input "
            "prompt. (parameter=input_tokens, value=98305)",
        ),
        (
            "openai-compatible vllm",
            "The input (516368 tokens) is longer than the model's context length (262144 tokens).",
        ),
        (
            "openai-compatible",
            "Requested token count exceeds the model's maximum context length of 64000 tokens. You requested a total of 71897 "
            "tokens: 7897 tokens from the input messages and 64000 tokens for the completion. Please reduce the number of "
            "tokens in the input messages or the completion to fit within the limit.",
        ),
        ("openai-compatible", "This model's maximum prompt length is 131072 but the request contains 136973 tokens."),
        (
            "openai-compatible",
            f"{OF_OPENROUTER}input, 386 of tool input, 8192 in the output). Please reduce the length of either one, or use "
            "the context-compression plugin to compress your prompt automatically.",
        ),
        (
            "openai-compatible",
            f"{OF_OPENROUTER}input, 8192 in the output). Please reduce the length of either one, or use the "
            '"middle-out" transform to compress your prompt automatically.',
        ),
        ("dashscope", OF_QWEN),
        ("dashscope dashscope-compatible", f"<400> InternalError.Algo.InvalidParameter: {OF_QWEN}"),
        ("moonshot", f"Invalid request: {OF_KIMI}"),
        ("moonshot", "Input token length too long"),
        ("ark", f"Total tokens of image and text {OF_ARK}"),
        ("ark", f"Total tokens of multi-modal content and text {OF_ARK}"),
        ("minimax", "invalid params, context window exceeds limit (2013)"),
        ("siliconflow", "length of prompt_tokens (235121) must be less than max_seq_len (65536)."),
        (
            "mistral",
            "Prompt contains 170397 tokens and 0 draft tokens, too large for model with 131072 maximum context length",
        ),
    ],
)
def test_too_long_prompt_is_recognised_by_the_sentence_of_the_error(providers: str, message: str) -> None:
    for provider in providers.split():
        assert taken_for(provider, message) is FailureKind.CONTEXT_LENGTH
        for other in (f"Invalid value: {message}", message.replace("token", "word")):
            assert taken_for(provider, other) in (FailureKind.CONTEXT_LENGTH, INVALID)


@pytest.mark.parametrize("provider", ["dashscope", "ark", "siliconflow", "moonshot", "vllm", "openai-compatible"])
@pytest.mark.parametrize(
    "message",
    [
        "Range of max_tokens should be [1, 8192]",
        "The parameter `max_tokens` specified in the request are not valid: integer above maximum value",
        "invalid temperature: only 1 is allowed for this model",
    ],
)
def test_error_about_the_answer_limit_is_not_a_too_long_prompt(provider: str, message: str) -> None:
    assert taken_for(provider, message) is INVALID


def test_model_of_another_api_is_not_a_client_error() -> None:
    message = "the requested model doubao-seed-translation-250915 does not support this api.. Request id: 0217633719776"
    message = f"The parameter `model` specified in the request are not valid: {message}"
    assert taken_for("ark", message) is NO_MODEL
