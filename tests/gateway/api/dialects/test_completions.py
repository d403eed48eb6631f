"""Legacy text completions: one prompt as a chat, and the fields that are refused by name."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.dialects.completions import Completions, CompletionStreamEncoder, decode_completion
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.reading.folding import fold
from tests.gateway.api.answer_events import LABELLED, LOST, OPENED, PLAIN, WORDS, record
from tests.kit.case_files import cases
from tests.kit.chat_http import events_in
from tests.kit.chat_strategies import unhurried, words

END: tuple[chat.StreamEvent, ...] = (chat.ChoiceFinish("stop"), chat.UsageReport(chat.Usage(3, 2)), chat.Finished())


def encoder(style: AnswerStyle = PLAIN) -> CompletionStreamEncoder:
    return CompletionStreamEncoder(style, record())


def text_in(chunks: list[Any]) -> str:
    return "".join(choice["text"] for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"])


@pytest.mark.parametrize("prompt", ["Hi", ["Hi"]])
def test_prompt_is_one_user_message(prompt: Any) -> None:
    request = decode_completion(
        {"model": "a", "prompt": prompt, "max_tokens": 5, "stop": "x", "echo": False, "suffix": "", "best_of": 1}
    )
    assert tuple(request.messages) == (chat.UserMessage("Hi"),)
    assert (request.max_tokens, request.stop, request.extra) == (5, ("x",), {})


@cases("fields", "param", "advice")
def test_refusal_names_the_field(fields: Any, param: str, advice: str) -> None:
    with pytest.raises((InvalidRequest, UnsupportedFeature)) as refused:
        decode_completion({"model": "a", "prompt": "Hi", **fields})
    assert refused.value.param == param  # type: ignore[attr-defined]
    assert advice in str(refused.value)


def test_answer_has_the_form_of_a_text_completion() -> None:
    whole = fold((OPENED, chat.ReasoningDelta("hm"), chat.TextDelta("Hello"), *END))
    body = json.loads(Completions().encode_answer(whole, PLAIN, record()))
    assert body == {
        "id": "cmpl-req_1",
        "object": "text_completion",
        "created": 7,
        "model": "model-1",
        "choices": [{"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": body["usage"],
    }
    assert body["usage"]["total_tokens"] == 5


def test_stream_ends_with_its_finish_usage_and_mark() -> None:
    chunks = events_in(encoder().encode((OPENED, chat.TextDelta("Hel"), chat.TextRun((b"lo",)), *END)))
    assert text_in(chunks) == "Hello"
    assert [chunk["object"] for chunk in chunks[:-1]] == ["text_completion"] * 4
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-2]["choices"], chunks[-2]["usage"]["total_tokens"]) == ([], 5)
    assert chunks[-1] == "[DONE]"


def test_stream_that_breaks_off_ends_with_an_error() -> None:
    chunks = events_in(encoder().encode((OPENED, chat.TextDelta("Hel"), LOST)))
    assert chunks[-1]["error"]["code"] == "stream_interrupted"


@given(st.lists(words, min_size=1, max_size=5), st.booleans())
@unhurried
def test_lone_texts_and_runs_are_encoded_alike(texts: list[str], include_usage: bool) -> None:
    style = AnswerStyle(include_usage=include_usage)
    raw = [orjson.dumps(text)[1:-1] for text in texts]
    one, other = encoder(style), encoder(style)
    one.encode((OPENED,))
    other.encode((OPENED,))
    alone = b"".join(map(one.lone_text, raw))
    assert alone == other.encode((chat.TextRun(tuple(raw)),))
    assert text_in(events_in(alone)) == "".join(texts)


def test_labels_stand_before_the_text_and_in_the_last_finish() -> None:
    labelled = encoder(LABELLED)
    chunks = events_in(labelled.encode((OPENED, chat.TextDelta("你"), *END)))
    assert text_in(chunks).startswith(WORDS)
    assert chunks[-2]["x_gateway"]["labels"][0]["name"] == "cn-gb45438"
    assert labelled.lone_text(b"a") == b""


def test_error_of_an_inner_layer_names_the_prompt() -> None:
    error = ApiError("invalid_request", "`messages[0].content` is too long", "messages[0].content")
    shown = json.loads(Completions().encode_error(error, "req_1"))["error"]
    assert (shown["param"], shown["message"]) == ("prompt", "`prompt` is too long")
