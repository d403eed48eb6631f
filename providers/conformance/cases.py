"""The canonical requests and answers that the conformance kit uses, including unusual histories."""

from __future__ import annotations

from collections.abc import Iterator

from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatCompletion,
    ChatRequest,
    Choice,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from providers.conformance.subject import Subject
from providers.value import Value, replace

_TOOLS = (Tool("get_weather", None, {}), Tool("find", "", {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}))
_HI = UserMessage("Hi")
_ASKED_AGAIN = UserMessage("And then?")
_RESULT = ToolMessage("call_a1", "-3")


def _asked(*messages: Message) -> ChatRequest:
    return ChatRequest("assistant", messages)


def _called(*messages: Message) -> ChatRequest:
    return replace(_asked(_HI, *messages), tools=_TOOLS)


def _call(arguments: str, id: str = "call_a1", name: str = "get_weather") -> AssistantMessage:
    return AssistantMessage(None, tool_calls=(ToolCall(id, name, arguments),))


_ARGUMENTS = ("", " ", "{broken", "[1]", "null", '"x"', "17", "NaN", '{"x":1e999}', '{"x":"\\ud83d"}', "[" * 2000)


ODD_CALLS = {
    **{f"arguments {arguments[:12]}": _called(_call(arguments), _RESULT) for arguments in _ARGUMENTS},
    "no result": _called(_call("{}"), UserMessage("And?")),
    "a result of no call": _called(_RESULT),
    "a result of another call": _called(_call("{}"), ToolMessage("call_z9", "?"), UserMessage("And?")),
    "two results of one call": _called(_call("{}"), _RESULT, _RESULT),
    "results in another order": _called(
        AssistantMessage(None, tool_calls=(*_call("{}").tool_calls, *_call("{}", "call_b2", "find").tool_calls)),
        ToolMessage("call_b2", "b"),
        _RESULT,
    ),
    "a blank result": _called(_call("{}"), ToolMessage("call_a1", "")),
    "a result without parts": _called(_call("{}"), ToolMessage("call_a1", ())),
    "a call of no tool": _called(_call("{}", name="gone"), _RESULT),
    "a call at the end": _called(_call("{}")),
    "calls without tools": _asked(_HI, _call("{}"), _RESULT),
}


ODD_HISTORIES = {
    **ODD_CALLS,
    "instructions alone": _asked(SystemMessage("Be brief.")),
    "blank instructions": _asked(SystemMessage(""), _HI),
    "instructions at the end": _asked(_HI, SystemMessage("Be brief.")),
    "a blank question": _asked(UserMessage("")),
    "a question without parts": _asked(UserMessage(())),
    "blank parts": _asked(UserMessage((TextPart(""), TextPart(" ")))),
    "an answer first": _asked(AssistantMessage("Hello"), _HI),
    "two answers": _asked(_HI, AssistantMessage("One"), AssistantMessage("Two"), _HI),
    "an empty answer": _asked(_HI, AssistantMessage(None), _HI),
    "an answer without parts": _asked(_HI, AssistantMessage(()), _HI),
    "a refusal": _asked(_HI, AssistantMessage(None, refusal="No."), _HI),
    "thoughts alone": _asked(_HI, AssistantMessage(None, reasoning="Hm."), _HI),
}


HARD_TEXT = 'Grüße, 你好, 👩‍🚀; a\u2028b\u0085c\u2029d "quoted" \\ back\tslash\nand a new line: data: [DONE]'
"""Text that is damaged if bytes, line ends or escapes are handled carelessly."""


_PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


_JPEG = "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQEASABIAAD/2Q=="


_WEATHER = Tool(
    "get_weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string", "description": "名字"}}, "required": ["city"]},
)


_CLOCK = Tool("get_time", "The current time.")


_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


_PARAMETERS: dict[str, object] = {
    "temperature": 0.5,
    "top_p": 0.75,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "seed": 7,
    "stop": ("END", "停"),
    "logit_bias": {"17": -5.0},
    "user": "u-1",
    "max_tokens": 64,
}


PARAMETER_BOUNDS: dict[str, tuple[object, object, object]] = {
    "temperature": (0.0, 0.5, 2.0),
    "top_p": (0.0, 0.5, 1.0),
    "presence_penalty": (-2.0, 0.0, 2.0),
    "frequency_penalty": (-2.0, 0.0, 2.0),
    "seed": (0, 7, 2**31 - 1),
    "max_tokens": (1, 64, 2**31 - 1),
    "logit_bias": ({"17": -100.0}, {"17": 0.0}, {"17": 100.0}),
    "stop": (("a",), ("a", "b"), ("a", "b", "c", "d")),
    "user": ("u", "u-1", "u" * 512),
}
"""The lowest value of each parameter in OpenAI's API, one between, and the highest."""


USUAL_EFFORTS = ("low", "medium", "high")


class RequestCase(Value, frozen=True):
    """A request that the subject claims to support."""

    subject: Subject
    name: str
    request: ChatRequest

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


class AnswerCase(Value, frozen=True):
    """An answer that the subject claims to support. `feature` is the feature that it needs, if any."""

    subject: Subject
    name: str
    completion: ChatCompletion
    request: ChatRequest
    feature: str = ""

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


# --- requests -------------------------------------------------------------------------------------


def question(*messages: Message) -> ChatRequest:
    """Return a request for text. Without `messages`, it asks a short question."""
    return ChatRequest("assistant", messages or (UserMessage("What is the capital of Norway?"),))


def request_cases(subject: Subject) -> Iterator[RequestCase]:
    """Yield a request for everything that this subject claims to support."""
    for name, request in _plain_requests():
        yield RequestCase(subject, name, request)
    for feature, requests in feature_requests().items():
        if feature in subject.features:
            for name, request in requests.items():
                yield RequestCase(subject, name, request)
    for name in sorted(subject.parameters):
        if name in _PARAMETERS:
            yield RequestCase(subject, name, replace(question(), **{name: _PARAMETERS[name]}))  # type: ignore[arg-type]
    if "parallel_tool_calls" in subject.parameters and "tools" in subject.features:
        serial = replace(question(), tools=(_WEATHER,), parallel_tool_calls=False)
        yield RequestCase(subject, "parallel_tool_calls", serial)
    if "strict_tools" in subject.parameters and "tools" in subject.features:
        strict = replace(_WEATHER, strict=True, parameters=_SCHEMA)
        yield RequestCase(subject, "strict_tools", replace(question(), tools=(strict,)))
    if "message_name" in subject.parameters:
        yield RequestCase(subject, "message_name", question(UserMessage("Hi", "ann"), UserMessage("Hello", "bob")))
    if "image_detail" in subject.parameters and "vision" in subject.features:
        image = ImagePart(_PNG, "low")
        yield RequestCase(subject, "image_detail", question(UserMessage((TextPart("What is this?"), image))))
    if "cache_control" in subject.parameters:
        marked = TextPart("A long text.", cache="5m")
        yield RequestCase(subject, "cache_control", question(UserMessage((marked, TextPart("And?")))))
    if {"tools", "vision"} <= subject.features:
        yield RequestCase(subject, "tool_result_image", _tool_result_with_image())
    if "reasoning_effort" in subject.parameters:
        for effort in subject.facts.efforts or (USUAL_EFFORTS if subject.is_invented else ()):
            yield RequestCase(subject, f"effort_{effort}", replace(question(), reasoning_effort=effort))


def _plain_requests() -> Iterator[tuple[str, ChatRequest]]:
    yield "text", question()
    yield "hard_text", question(SystemMessage(HARD_TEXT), UserMessage(HARD_TEXT))
    yield "stream", replace(question(), stream=True, include_usage=True)
    yield "system", question(SystemMessage("Be brief."), UserMessage("Hi"))
    yield "developer", question(SystemMessage("Be brief.", "developer"), UserMessage("Hi"))
    yield "two_systems", question(SystemMessage("Be brief."), SystemMessage("Be kind."), UserMessage("Hi"))
    yield "system_parts", question(SystemMessage((TextPart("Be brief. "), TextPart("Be kind."))), UserMessage("Hi"))
    yield (
        "late_system",
        question(UserMessage("Hi"), AssistantMessage("Hello!"), SystemMessage("Be brief."), _ASKED_AGAIN),
    )
    yield "text_parts", question(UserMessage((TextPart("One. "), TextPart("Two."))))
    yield "empty_text", question(UserMessage("Hi"), AssistantMessage(""), UserMessage("Are you there?"))
    yield "two_users", question(UserMessage("One."), UserMessage("Two."))
    yield "answer_parts", question(UserMessage("Hi"), AssistantMessage((TextPart("Hel"), TextPart("lo"))), _ASKED_AGAIN)
    yield "refusal", question(UserMessage("Hi"), AssistantMessage(None, refusal="That is not for me."), _ASKED_AGAIN)
    yield "turns", question(UserMessage("Hi"), AssistantMessage("Hello! 你好"), UserMessage("And then?"))


def feature_requests() -> dict[str, dict[str, ChatRequest]]:
    """Return, for each feature, requests that need this feature and no other."""
    picture, photo, address = ImagePart(_PNG), ImagePart(_JPEG), ImagePart("https://images.example.com/a%20cat.png")
    image = question(UserMessage((TextPart("What is this?"), picture, TextPart("And this?"), photo)))
    tools = replace(question(), tools=(_WEATHER, _CLOCK))
    return {
        "tools": {
            "tools": tools,
            "tools_stream": replace(tools, stream=True, include_usage=True),
            "tool_choice_none": replace(tools, tool_choice="none"),
            "tool_choice_auto": replace(tools, tool_choice="auto"),
            **_tool_loops(),
        },
        "tool_choice_named": {"tool_choice_named": replace(tools, tool_choice=NamedTool("get_time"))},
        "tool_choice_required": {
            "tool_choice_required": replace(tools, tool_choice="required"),
            "allowed_tools": replace(tools, tool_choice=AllowedTools("required", ("get_weather",))),
        },
        "vision": {"image": image},
        "image_url": {"image_url": question(UserMessage((TextPart("What is this?"), address)))},
        "audio": {"audio": question(UserMessage((TextPart("Listen."), AudioPart("UklGRgAAAABXQVZF", "wav"))))},
        "file": {
            "file": question(
                UserMessage((TextPart("Read."), FilePart("data:application/pdf;base64,JVBERi0xLjQK", "a.pdf")))
            )
        },
        "json_object": {
            "json_object": replace(question(UserMessage("A city as json.")), response_format=JsonObjectFormat())
        },
        "json_schema": {
            "json_schema": replace(
                question(UserMessage("A city as json.")), response_format=JsonSchemaFormat("city", _SCHEMA, strict=True)
            )
        },
        "n": {"n": replace(question(), n=2)},
        "logprobs": {"logprobs": replace(question(), logprobs=True, top_logprobs=2)},
        "prefill": {"prefill": question(UserMessage("Count."), AssistantMessage("One, two,"))},
    }


def _tool_result_with_image() -> ChatRequest:
    """Return a conversation with two results, of which the first has an image."""
    calls = (ToolCall("call_a1", "get_weather", '{"city":"Oslo"}'), ToolCall("call_b2", "get_time", "{}"))
    radar = ToolMessage("call_a1", (TextPart("The radar:"), ImagePart(_PNG)))
    messages = (
        UserMessage("How is the weather?"),
        AssistantMessage(None, tool_calls=calls),
        radar,
        ToolMessage("call_b2", "12:00"),
        UserMessage("And tomorrow?"),
    )
    return replace(question(*messages), tools=(_WEATHER, _CLOCK))


def _tool_loops() -> dict[str, ChatRequest]:
    """Return conversations that contain tool calls and their results."""
    oslo = ToolCall("call_a1", "get_weather", '{"city":"Oslo"}')
    beijing = ToolCall("call_b2", "get_weather", '{"city":"北京 👩‍🚀"}')
    clock = ToolCall("call_c3", "get_time", "{}")
    user = UserMessage("How is the weather?")

    def loop(calls: tuple[ToolCall, ...], *after: Message, text: str | None = None) -> ChatRequest:
        messages = (user, AssistantMessage(text, tool_calls=calls), *after)
        return replace(question(*messages), tools=(_WEATHER, _CLOCK))

    oslo_result = ToolMessage("call_a1", '{"degrees":-3}')
    beijing_result = ToolMessage("call_b2", "晴天")
    clock_result = ToolMessage("call_c3", (TextPart("12:00"),))
    # Some servers number the calls of each answer from the start, so an id occurs twice in a conversation.
    same_id, same_id_result = (
        AssistantMessage(None, tool_calls=(replace(clock, id=oslo.id),)),
        ToolMessage(oslo.id, "12:00"),
    )
    return {
        "tool_result": loop((oslo,), oslo_result),
        "tool_result_with_text": loop((oslo,), oslo_result, text="Let me look."),
        "tool_no_arguments": loop((clock,), clock_result),
        "tool_parallel": loop((oslo, beijing, clock), oslo_result, beijing_result, clock_result),
        "tool_results_in_another_order": loop((oslo, beijing, clock), clock_result, oslo_result, beijing_result),
        "tool_result_parts": loop((oslo,), ToolMessage("call_a1", (TextPart("It is "), TextPart("cold.")))),
        "tool_failed": loop((oslo,), ToolMessage("call_a1", "no such city", is_error=True)),
        "tool_then_user": loop((oslo, beijing), oslo_result, beijing_result, UserMessage("And tomorrow?")),
        "tool_twice": loop((oslo,), oslo_result, AssistantMessage(None, tool_calls=(clock,)), clock_result),
        "tool_twice_one_id": loop((oslo,), oslo_result, same_id, same_id_result),
    }


# --- answers --------------------------------------------------------------------------------------


def completion_of(subject: Subject, *choices: Choice, usage: Usage | None = None) -> ChatCompletion:
    """Return an answer of the subject's model. Counts that the provider does not report are 0."""
    usage = replace(usage or Usage(31, 12), **dict.fromkeys(subject.uncounted, 0))
    return ChatCompletion("resp-7f3a", subject.model, 1_795_000_000, choices, usage)


def answer_cases(subject: Subject) -> Iterator[AnswerCase]:
    """Yield an answer for everything that this subject claims to support."""
    plain_question = question()

    def case(
        name: str,
        *choices: Choice,
        usage: Usage | None = None,
        request: ChatRequest = plain_question,
        feature: str = "",
    ) -> AnswerCase:
        return AnswerCase(subject, name, completion_of(subject, *choices, usage=usage), request, feature)

    hello = AssistantMessage("Oslo is the capital of Norway.")
    yield case("text", Choice(hello, "stop"))
    yield case("hard_text", Choice(AssistantMessage(HARD_TEXT), "stop"))
    yield case("empty_text", Choice(AssistantMessage(""), "stop"), usage=Usage(31, 1))
    yield case("length", Choice(hello, "length"))
    if "content_filter" not in subject.lacks:
        yield case("content_filter", Choice(hello, "content_filter"))
    yield case("cached", Choice(hello, "stop"), usage=Usage(31, 12, cached_tokens=16))
    if "reasoning" in subject.features:
        thinking = AssistantMessage("Oslo.", reasoning=f"The user asks: {HARD_TEXT}")
        yield case("reasoning", Choice(thinking, "stop"), usage=Usage(31, 40, reasoning_tokens=28), feature="reasoning")
    if "tools" in subject.features:
        with_tools = feature_requests()["tools"]["tools"]
        for name, message in _calling_messages().items():
            yield case(name, Choice(message, "tool_calls"), request=with_tools, feature="tools")
    if "n" in subject.features:
        pair = (Choice(hello, "stop"), Choice(AssistantMessage("Oslo, of course"), "length", 1))
        yield case("n", *pair, request=replace(plain_question, n=2), feature="n")
    if "json_schema" in subject.features:
        filled = AssistantMessage('{"city":"Oslo","degrees":-3}')
        wanted = feature_requests()["json_schema"]["json_schema"]
        yield case("json_schema", Choice(filled, "stop"), request=wanted, feature="json_schema")
    if "logprobs" in subject.features:
        tokens = [{"token": "Oslo", "logprob": -0.5, "bytes": [79, 115, 108, 111], "top_logprobs": []}]
        scored = Choice(AssistantMessage("Oslo"), "stop", logprobs={"content": tokens, "refusal": None})
        yield case("logprobs", scored, request=feature_requests()["logprobs"]["logprobs"], feature="logprobs")


def _calling_messages() -> dict[str, AssistantMessage]:
    oslo = ToolCall("call_a1", "get_weather", '{"city":"Oslo"}')
    hard = ToolCall("call_b2", "get_weather", '{"city":"北京 👩‍🚀\u2028\\"x\\"","deep":{"list":[1,2.5,null,true]}}')
    clock = ToolCall("call_c3", "get_time", "{}")
    return {
        "tool_call": AssistantMessage(None, tool_calls=(oslo,)),
        "tool_call_with_text": AssistantMessage("Let me look.", tool_calls=(oslo,)),
        "tool_call_no_arguments": AssistantMessage(None, tool_calls=(clock,)),
        "tool_call_non_ascii": AssistantMessage(None, tool_calls=(hard,)),
        "tool_calls_parallel": AssistantMessage(None, tool_calls=(oslo, hard, clock)),
    }


def rich_answer(subject: Subject) -> tuple[ChatCompletion, ChatRequest]:
    """Return an answer that uses all that the subject claims, and its request.

    It has reasoning, non-ASCII text, tool calls and usage, as far as the subject claims them.
    """
    thinks, calls = "reasoning" in subject.features, "tools" in subject.features
    oslo = ToolCall("call_a1", "get_weather", '{"city":"Os\u2028lo"}')
    clock = ToolCall("call_c3", "get_time", "{}")
    message = AssistantMessage(
        "Grüß\u2028 👍\u0085", reasoning="想👍" if thinks else None, tool_calls=(oslo, clock) if calls else ()
    )
    usage = Usage(31, 40, reasoning_tokens=28 if thinks else 0)
    request = feature_requests()["tools"]["tools"] if calls else question()
    return completion_of(subject, Choice(message, "tool_calls" if calls else "stop"), usage=usage), request
