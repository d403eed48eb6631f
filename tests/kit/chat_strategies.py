"""Hypothesis strategies for canonical values: requests that a client may send, and complete answers.

The codec and the folding carry each of these values without loss.
"""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from providers import chat

__all__ = ["completions", "json_values", "requests", "texts", "unhurried", "words"]

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For every property: a slow machine must not make a property fail."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
int64 = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | int64 | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
_arguments = json_objects.map(json.dumps)

_data_uris = st.sampled_from(["data:image/png;base64,aGk=", "data:application/pdf;x=y;base64,aGk_-"])
# Without PDF: a decoder reads an image that is a PDF as the file that it is.
_image_uris = st.sampled_from(["data:image/png;base64,aGk=", "data:image/webp;x=y;base64,aGk_-"])
_urls = st.sampled_from(["https://example.com/a.png", "HTTP://example.com./a?b=c#d", "https://8.8.8.8/", "https://a.b"])
_text_parts = st.builds(chat.TextPart, texts)
_text_content = texts | st.lists(_text_parts, min_size=1, max_size=3).map(tuple)
_images = st.builds(chat.ImagePart, _image_uris | _urls, st.sampled_from([None, "auto", "low", "high", "original"]))
_user_parts = (
    _text_parts
    | _images
    | st.builds(chat.AudioPart, st.sampled_from(["aGk=", "aGk_-"]), st.sampled_from(["wav", "mp3", "x-m4a"]))
    | st.builds(chat.FilePart, _data_uris, st.none() | words)
)  # fmt: skip
_user_content = texts | st.lists(_user_parts, min_size=1, max_size=4).map(tuple)

# --- requests -------------------------------------------------------------------------------------

_systems = st.builds(chat.SystemMessage, _text_content, st.sampled_from(["system", "developer"]), st.none() | names)
_users = st.builds(chat.UserMessage, _user_content, st.none() | names)
_answers = st.builds(chat.AssistantMessage, content=_text_content, refusal=st.none() | words, name=st.none() | names)


@st.composite
def _tool_rounds(draw: st.DrawFn) -> tuple[chat.Message, ...]:
    ids = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    calls = tuple(chat.ToolCall(one, draw(names), draw(_arguments)) for one in ids)
    asked = chat.AssistantMessage(draw(st.none() | _text_content), None, None, calls)
    return (asked, *(chat.ToolMessage(one, draw(_text_content)) for one in draw(st.permutations(ids))))


_turns = (_systems | _users | _answers).map(lambda message: (message,)) | _tool_rounds()
_messages = st.lists(_turns, min_size=1, max_size=4).map(lambda turns: tuple(one for turn in turns for one in turn))
_tools = st.builds(
    chat.Tool,
    names,
    description=st.none() | texts,
    parameters=st.none() | json_objects,
    strict=st.none() | st.booleans(),
)
_formats = (
    st.none()
    | st.builds(chat.JsonObjectFormat)
    | st.builds(chat.JsonSchemaFormat, names, json_objects, st.none() | texts, st.none() | st.booleans())
)
_unknown = texts.map(lambda text: f"x_{text}") | st.sampled_from(["top_k", "plugins"])
_extras = st.dictionaries(_unknown, json_values.filter(lambda value: value is not None), max_size=2) | (
    st.fixed_dictionaries(
        {},
        optional={
            "metadata": json_objects,
            "store": st.just(True),
            "verbosity": st.sampled_from(["low", "medium", "high"]),
            "prompt_cache_key": texts,
        },
    )
)


@st.composite
def requests(draw: st.DrawFn, inner: bool = False) -> chat.ChatRequest:
    """Draw a request with any content that a client may send. `include_usage` is drawn only with `stream`.

    Args:
        inner: also draw names of inner fields that no adapter reads and no wire format has.
    """
    tools = tuple(draw(st.lists(_tools, max_size=3)))
    fields: dict[str, Any] = {
        "max_tokens": st.integers(1, 2**31 - 1),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "seed": int64,
        "stop": st.lists(words, max_size=4).map(tuple),
        "n": st.integers(1, 128),
        "logit_bias": st.dictionaries(texts, st.floats(-100, 100), max_size=2),
        "response_format": _formats,
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
        "user": texts,
        "extra": _extras,
    }
    if tools:
        fields["parallel_tool_calls"] = st.booleans()
        known = st.sampled_from([tool.name for tool in tools])
        fields["tool_choice"] = (
            st.sampled_from(["auto", "none", "required"])
            | st.builds(chat.NamedTool, known)
            | st.builds(
                chat.AllowedTools, st.sampled_from(["auto", "required"]), st.lists(known, min_size=1).map(tuple)
            )
        )
    options: Mapping[str, Any] = draw(st.fixed_dictionaries({}, optional=fields))
    stream = draw(st.booleans())
    logprobs: dict[str, Any] = draw(
        st.sampled_from([{}, {"logprobs": False}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 20}])
    )
    unread = draw(st.sets(st.sampled_from(["messages.cache_control", "tools.x"]))) if inner else ()
    return chat.ChatRequest(
        draw(words), draw(_messages), stream, stream, tools=tools, unread=frozenset(unread), **options, **logprobs
    )


# --- answers --------------------------------------------------------------------------------------

_calls = st.builds(chat.ToolCall, words, words, texts, st.none() | words)
_annotations = json_objects | st.builds(
    lambda start, end: {"type": "url_citation", "url_citation": {"start_index": start, "end_index": end, "url": "u"}},
    st.integers(0, 9),
    st.integers(0, 9),
)
_tokens = st.lists(json_objects, max_size=2)
_logprobs = st.none() | st.fixed_dictionaries({"content": st.none() | _tokens, "refusal": st.none() | _tokens})


@st.composite
def _choices(draw: st.DrawFn, index: int) -> chat.Choice:
    calls = tuple(draw(st.lists(_calls, max_size=3)))
    message = chat.AssistantMessage(
        content=draw(words | st.just(None if calls else "")),
        refusal=draw(st.none() | words),
        reasoning=draw(st.none() | words),
        tool_calls=calls,
        annotations=tuple(draw(st.lists(_annotations, max_size=2))),
    )
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter", "other"]))
    return chat.Choice(message, reason, index, draw(_logprobs), draw(st.none() | words))


@st.composite
def completions(draw: st.DrawFn) -> chat.ChatCompletion:
    """Draw a complete canonical answer, also with several choices or none."""
    indices = sorted(draw(st.sets(st.integers(0, 5), max_size=3)))
    usage = st.none() | st.builds(chat.Usage, *(st.integers(0, 2**31),) * 4)
    choices = tuple(draw(_choices(index)) for index in indices)
    setup = draw(st.sampled_from([None, *sorted(chat.SERVICE_TIERS)])), draw(st.none() | words)
    return chat.ChatCompletion(draw(texts), draw(texts), draw(st.integers(0, 2**40)), choices, draw(usage), *setup)
