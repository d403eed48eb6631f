"""Provider errors are logged without our keys and without the content of the request."""

import html
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.execution.redaction import Quotes, redacted, redacting
from gateway.model.deployment import Deployment
from providers import chat
from providers.auth import Secret
from providers.failures import Failure, FailureKind
from tests.kit.case_files import cases
from tests.kit.configs import BASE, table_of

QUOTED = "[from the request]"


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return table_of(BASE).deployments["chatgpt-us"]


def detail_of(text: str, deployment: Deployment, request: chat.ChatRequest) -> str:
    """Return what is kept of a text of a provider."""
    return redacted(failure_with(text), deployment, request).detail


def failure_with(detail: str, code: str | None = None, param: str | None = None) -> Failure:
    return Failure(FailureKind.INVALID_REQUEST, "wrong", detail=detail, status=400, code=code, param=param)


REQUEST = chat.ChatRequest(
    "assistant",
    (
        chat.SystemMessage("Be brief."),
        chat.UserMessage("My neighbour Anna Sommer has diabetes, what may she eat?"),
        chat.AssistantMessage(None, tool_calls=(chat.ToolCall("c", "look_up", '{"of": "Anna Sommer, born 1961"}'),)),
        chat.UserMessage("糖尿病患者可以吃什么水果呢"),
        chat.UserMessage("Hi"),
    ),
    user="anna-1961",
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("`temperature` must be at most 2", "`temperature` must be at most 2"),
        (
            "Invalid value at 'contents[0].parts[0].text': \"My neighbour Anna Sommer has diabetes, what may she eat?\"",
            f"Invalid value at 'contents[0].parts[0].text': \"{QUOTED}\"",
        ),
        ("can't answer 'Anna Sommer has diabetes'", f"can't answer '{QUOTED}'"),
        ("the text 糖尿病患者可以吃什么… is refused", f"the text {QUOTED}… is refused"),
        ("the message 'Hi' is too short; this is high", f"the message '{QUOTED}' is too short; this is high"),
        ("no such user anna-1961", f"no such user {QUOTED}"),
        ('arguments {"of": "Anna Sommer, born 1961"} don\'t fit', f"arguments {QUOTED} don't fit"),
    ],
)
def test_quoted_request_text_is_redacted(deployment: Deployment, text: str, kept: str) -> None:
    failure = redacted(failure_with(text, text, text), deployment, REQUEST)
    assert (failure.detail, failure.code, failure.param) == (kept, kept, kept)


def test_key_is_redacted_in_every_field(deployment: Deployment) -> None:
    key = deployment.credentials[0].reveal()
    failure = redacted(failure_with(f"{key} is wrong", f"bad_{key}", key), deployment, REQUEST)
    assert (failure.detail, failure.code, failure.param) == ("[redacted] is wrong", "bad_[redacted]", "[redacted]")


def test_key_truncated_at_the_end_of_the_text_is_redacted(deployment: Deployment) -> None:
    key = deployment.credentials[0].reveal()
    for length in range(4, len(key)):
        text = f"{'x' * (2000 - length)}{key}"[:2000]
        failure = redacted(failure_with(text, f"bad {key[:length]}"), deployment, REQUEST)
        assert failure.detail == f"{'x' * (2000 - length)}[redacted]"
        assert failure.code == "bad [redacted]"


@pytest.mark.parametrize(
    "part", ["AKIDz8krbsJ5yKBZQpn74", "Gu5t9xGARNpq86cd98joQYCN3", "session-token-000001", "sk-the-second"]
)
def test_part_of_a_key_is_redacted_and_its_request_id_removed(deployment: Deployment, part: str) -> None:
    keys = Secret("AKIDz8krbsJ5yKBZQpn74:Gu5t9xGARNpq86cd98joQYCN3:session-token-000001"), Secret("sk-the-second")
    failure = replace(failure_with(f"{part} is not known"), request_id=f"req-{part}")
    clean = redacted(failure, replace(deployment, credentials=keys), REQUEST)
    assert (clean.detail, clean.request_id) == ("[redacted] is not known", None)


@pytest.mark.parametrize(
    ("request_id", "kept"),
    [("req_011CSHoEeqs5C35K2UUqR7Fy", True), ("bearer-sk-us-secret", False), ("My neighbour Anna", False), ("x" * 201, False)],
)  # fmt: skip
def test_request_id_is_kept_only_if_it_is_one_word_without_a_key(
    deployment: Deployment, request_id: str, kept: bool
) -> None:
    assert redacted(replace(failure_with(""), request_id=request_id), deployment, REQUEST).request_id == (
        request_id if kept else None
    )


@pytest.mark.parametrize("form", ["{}", "req-{}", "req_{}_1"])
@pytest.mark.parametrize(
    "change", [quote, quote_plus, lambda text: text.replace(" ", "-"), lambda text: text.replace(" ", "_")]
)
def test_request_id_that_repeats_the_prompt_is_removed(
    deployment: Deployment, form: str, change: Callable[[str], str]
) -> None:
    said = "my account is closing tomorrow"
    request = chat.ChatRequest("m", (chat.UserMessage(said),))
    for message in ("", "the provider failed"):
        told = replace(failure_with("", message or None), request_id=form.format(change(said)))
        assert redacted(told, deployment, request).request_id is None
    assert redacted(replace(failure_with(""), request_id="req-6f1c"), deployment, request).request_id == "req-6f1c"


@cases("fields", "name")
def test_name_of_a_member_that_the_client_made_up_is_removed(
    deployment: Deployment, fields: dict[str, Any], name: str
) -> None:
    request = chat.ChatRequest("m", (chat.UserMessage("Hello"),), **fields)
    failure = replace(failure_with(f"the field '{name}' is not valid"), param=name, request_id=name.replace(" ", "_"))
    clean = redacted(failure, deployment, request)
    assert name not in f"{clean.detail} {clean.param}"
    assert clean.request_id is None


def test_name_of_a_setting_is_kept_in_the_detail(deployment: Deployment) -> None:
    fields: dict[str, Any] = {"extra": {"options": {"mode": "x"}}, "logit_bias": {"42": 1.0}}
    request = chat.ChatRequest("m", (chat.UserMessage("Hello"),), **fields)
    assert detail_of("the mode of 42 is not valid", deployment, request) == "the mode of 42 is not valid"


def test_part_of_a_key_that_is_a_common_word_is_kept(deployment: Deployment) -> None:
    keyed = replace(deployment, credentials=(Secret("account:Gu5t9xGARNpq86cd98joQYCN3"),))
    told = "the account has no Gu5t9xGARNpq86cd98joQYCN3"
    assert detail_of(told, keyed, REQUEST) == "the account has no [redacted]"


def test_very_short_key_does_not_redact_other_words(deployment: Deployment) -> None:
    keyed = replace(deployment, credentials=(Secret("x"),))
    failure = redacted(replace(failure_with("x is no index", "bad_x"), request_id="req-6x"), keyed, REQUEST)
    assert (failure.detail, failure.code) == ("[redacted] is no index", "bad_[redacted]")
    assert failure.request_id == "req-6x"


def test_short_key_is_redacted_in_text_without_spaces(deployment: Deployment) -> None:
    keyed = replace(deployment, credentials=(Secret("hunt3r2"),))
    assert redacted(failure_with("密钥hunt3r2无效"), keyed, REQUEST).detail == "密钥[redacted]无效"


BESIDE_THE_TEXT = chat.ChatRequest(
    "assistant",
    (
        chat.SystemMessage("Be brief.", name="sommer-and-sons"),
        chat.UserMessage(
            (
                chat.TextPart("What is this?"),
                chat.ImagePart("https://pictures.example/anna-sommer/mri.png?signature=0123456789"),
                chat.ImagePart(f"data:image/png;base64,{'iVBORw0KGgoAAAANSUhEUg' * 9000}"),
                chat.AudioPart("UklGRiQAAABXQVZFZm10IBAAAAABAAEA", "wav"),
                chat.FilePart("JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoK", "anna-sommer-findings.pdf"),
            ),
            name="Anna_Sommer",
        ),
        chat.AssistantMessage(
            None,
            refusal="I can't speak about Anna's findings.",
            reasoning="She seems to be ill, so I",
            name="dr_winter",
        ),
        chat.ToolMessage("c", "Anna Sommer, born on 1961-02-03"),
        chat.UserMessage("?", name="Anna_Sommer"),
    ),
    extra={"safety_identifier": "anna@sommer.example", "metadata": {"patient": "4711-0815"}},
)


@cases("quoted")
def test_further_fields_of_a_message_are_removed_too(deployment: Deployment, quoted: str) -> None:
    assert detail_of(f"can't use '{quoted}'", deployment, BESIDE_THE_TEXT) == f"can't use '{QUOTED}'"


WITH_TOOLS = chat.ChatRequest(
    "assistant",
    (chat.UserMessage("What has she?"),),
    tools=(
        chat.Tool(
            "findings_of_a_patient",
            "What Dr. Winter wrote of Anna Sommer",
            {
                "type": "object",
                "properties": {
                    "which": {
                        "type": "string",
                        "description": "the ward of Anna Sommer",
                        "enum": ["anna sommer", "糖尿病"],
                        "default": "of the 3rd of May",
                    }
                },
            },
        ),
    ),
    response_format=chat.JsonSchemaFormat(
        "answer_to_the_patient",
        {"type": "object", "title": "Of Anna", "$comment": "Room 12 of Anna", "x-of": {"a": ["Bed 3 of Anna"]}},
        "What Anna Sommer is told",
    ),
    stop=("Yours, Dr. Winter",),
    extra={
        "prediction": {"type": "content", "content": [{"type": "text", "text": "Anna Sommer has diabetes."}]},
        "web_search_options": {"user_location": {"approximate": {"city": "Bad Mergentheim"}}},
        "service_tier": "flex",
    },
)


@cases("quoted")
def test_prose_in_tools_schemas_and_other_fields_is_removed(deployment: Deployment, quoted: str) -> None:
    assert redacted(failure_with(f"can't use '{quoted}'"), deployment, WITH_TOOLS).detail == f"can't use '{QUOTED}'"


@pytest.mark.parametrize("name", ["findings_of_a_patient", "which", "answer_to_the_patient", "object", "text", "flex"])
def test_name_or_setting_is_kept_in_the_error(deployment: Deployment, name: str) -> None:
    assert redacted(failure_with(f"'{name}' is wrong"), deployment, WITH_TOOLS).detail == f"'{name}' is wrong"


@pytest.mark.parametrize("write", [quote, quote_plus, html.escape, lambda text: quote(quote(text))])
@pytest.mark.parametrize(
    "text", ["糖尿病患者可以吃什么水果呢", 'She "only" has "a" little <bit> of it', "Anna & Bob's sugar is at 9.1"]
)
def test_request_text_quoted_in_a_url_or_page_is_redacted(
    deployment: Deployment, text: str, write: Callable[[str], str]
) -> None:
    request = chat.ChatRequest("assistant", (chat.UserMessage(text),))
    assert redacted(failure_with(f"wrong: {write(text)}."), deployment, request).detail == f"wrong: {QUOTED}."


KEYED = "sk-Ab/cd+efgh/ijkl==mnop"


@pytest.mark.parametrize(
    "written", [KEYED.replace("/", r"\/"), quote(KEYED, safe=""), f"{KEYED[:10]}...", f"{KEYED[:10]}…", KEYED[:8]]
)
def test_key_is_redacted_in_every_encoding(deployment: Deployment, written: str) -> None:
    keyed = replace(deployment, credentials=(Secret(KEYED),))
    detail = redacted(failure_with(f"the key '{written}' isn't known, nor is '{written}'"), keyed, REQUEST).detail
    assert not any(part in detail for part in (KEYED[:6], "Ab", "mnop"))
    assert "isn't known, nor is" in detail


@pytest.mark.parametrize("key", ["redacted-1234", "https://a.example/key", "[redacted]"])
def test_key_with_a_common_prefix_does_not_redact_other_words(deployment: Deployment, key: str) -> None:
    keyed = replace(deployment, credentials=(Secret(key),))
    detail = redacted(failure_with(f"{key} is wrong: see https://b.example, ‘redacted’"), keyed, REQUEST).detail
    assert detail == "[redacted] is wrong: see https://b.example, ‘redacted’"


FOREIGN = [
    "Bearer {}abcdEFGH1234", "authorization: Basic {}QWxhZGRpbg==", "sk-{}1234567890abcd", "sk-proj-{}1234567890", "AKIA{}ABCD12",
    "AIza{}SyA1234567890abcdefgh", "hf_{}abcdefgh1234", "https://admin:{}pw@vault.example/v1", "https://h.example/?sig={}abcdef&x=1",
    'upstream said {{"api_key": "{}abcdefgh"}}', "X-Amz-Signature={}0123456789", "password='{}hunter22'", "client_secret={}12345678",
    "-----BEGIN PRIVATE KEY-----{}MIIEvQIBADANBgkq-----END PRIVATE KEY-----", "agw_de_{}12345678_secret",
]  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("write", [str, quote, html.escape, lambda text: json.dumps(json.dumps({"m": text}))])
def test_secret_of_another_owner_is_redacted_by_its_form(
    deployment: Deployment, form: str, write: Callable[[str], str]
) -> None:
    mark = "Zq7marked9"
    told = failure_with(write(f"call failed: {form.format(mark)} was refused"))
    shown = redacted(told, deployment, REQUEST).detail
    assert mark not in shown
    assert "call failed" in shown.replace("%20", " ")


@cases("text")
def test_sentence_about_keys_is_kept(deployment: Deployment, text: str) -> None:
    assert redacted(failure_with(text), deployment, REQUEST).detail == text


def test_token_signed_by_the_gateway_is_redacted(deployment: Deployment) -> None:
    """A provider sees only tokens signed with a service account's key, each valid for an hour."""
    token = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhQGIifQ.c2lnbmF0dXJl-_"
    for quoted in (token, token[:50]):
        assert redacted(failure_with(f"bad token {quoted}"), deployment, REQUEST).detail == "bad token [redacted]"
    assert redacted(replace(failure_with(""), request_id=token), deployment, REQUEST).request_id is None


def test_a_message_of_an_adapter_that_repeats_the_request_is_cleaned_too(deployment: Deployment) -> None:
    """A message should not contain request text, but the author of an adapter may forget that."""
    key = deployment.credentials[0].reveal()
    message = f"`n` and Hi can't be said: {REQUEST.messages[1]!r} to {key}"
    failure = redacted(Failure(FailureKind.UNSUPPORTED, message, unsent=True), deployment, REQUEST)
    assert failure.message == f"`n` and Hi can't be said: UserMessage(content='{QUOTED}', name=None) to [redacted]"


def test_harmless_text_is_unchanged(deployment: Deployment) -> None:
    for failure in (failure_with(""), failure_with("too long", "context_length_exceeded", "messages")):
        assert redacted(failure, deployment, REQUEST) is failure


def test_error_of_a_request_too_long_to_search_is_redacted_completely(deployment: Deployment) -> None:
    long = replace(REQUEST, messages=(chat.UserMessage("ab" * 200_000),))
    told = replace(failure_with("you said 'abab'", "abab", "abab"), request_id="req-6f1c")
    failure = redacted(told, deployment, long)
    assert (failure.detail, failure.code, failure.param) == ("[left out: it might repeat the request]", None, None)
    assert failure.request_id is None


@pytest.mark.parametrize("times", [1, 2])
@cases("text")
def test_request_text_quoted_in_nested_json_is_redacted(deployment: Deployment, text: str, times: int) -> None:
    quoted = text
    for _ in range(times):
        quoted = json.dumps(quoted)[1:-1]
    request = chat.ChatRequest("assistant", (chat.UserMessage(text),))
    detail = redacted(failure_with(f"upstream said: wrong is {quoted}, it is"), deployment, request).detail
    assert detail == f"upstream said: wrong is {QUOTED}, it is"


@given(text=st.text(st.sampled_from('ab\\"nu0 \n'), max_size=200))
def test_text_without_quotes_is_unchanged(deployment: Deployment, text: str) -> None:
    assert detail_of(text, deployment, chat.ChatRequest("assistant", (chat.UserMessage("xyz"),))) == text


@given(st.text(max_size=60), st.text(min_size=24, max_size=200), st.text(max_size=60), st.integers(0, 150))
@example("abc", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "b", 3)
def test_no_long_part_of_the_request_remains(before: str, text: str, after: str, start: int) -> None:
    kept = Quotes((text,)).remove_from(before + text[start:] + after)
    for place in range(len(text) - 23):
        part = text[place : place + 24]
        if not any(letter.isspace() for letter in part):
            assert part not in kept


def test_adapter_message_for_a_long_request_contains_no_key(deployment: Deployment) -> None:
    """It goes to the client, too."""
    key = "sk-a-key-of-the-account-1234"
    keyed = replace(deployment, credentials=(Secret(key),))
    request = chat.ChatRequest("assistant", (chat.UserMessage("a long text, " * 10_000),))
    failure = redacted(Failure(FailureKind.CREDENTIALS, f"the key {key} is refused"), keyed, request)
    assert failure.message == "the key [redacted] is refused"


class UnsearchableSchema(dict[str, object]):
    """A schema that must not be searched."""

    def items(self) -> Iterator[tuple[str, object]]:  # type: ignore[override]
        raise AssertionError


def test_error_of_a_conversation_over_the_limit_is_redacted_without_a_search(deployment: Deployment) -> None:
    """It is asked of each large stream as it begins, and not only where one fails."""
    request = replace(
        REQUEST,
        messages=(chat.UserMessage("word " * 20_000),),
        tools=(chat.Tool("look_up", parameters=UnsearchableSchema()),),
    )
    struck = redacting(deployment, request)(failure_with("it was refused: word word", code="word"))
    assert (struck.detail, struck.code) == ("[left out: it might repeat the request]", None)
