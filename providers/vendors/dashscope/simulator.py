"""The simulator of DashScope's native API, which checks a request by the rules of its compatible mode and by its own.

It is as strict as the vendor, or stricter: unknown fields are always refused.

Source of formats and refusals: Alibaba Cloud Model Studio API reference (DashScope) and error codes, dashscope 2.0.2,
captured 400 bodies of 2025 and 2026; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from providers.catalogue import FactsFile
from providers.catalogue.models import ModelFacts, load_models, model_facts
from providers.chat import ChatCompletion, ChatRequest, Choice, Usage, said_in
from providers.compatible import simulator_request as compatible
from providers.compatible.dialect import CompatibleDialect, read_dialect
from providers.failures import FailureKind, InvalidRequest, UnsupportedFeature
from providers.inputs.embeddings.facts import load_embedding_facts
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import JsonError, as_list, as_map, dumps, loads, read_int, read_list, read_map, read_str
from providers.openai_json import decode_request
from providers.testkit.answer_pieces import cut, cut_in_two
from providers.testkit.simulated_audio import answer_audio
from providers.testkit.simulated_inputs import read_sent_rerank, write_sent_rerank
from providers.testkit.simulator import IncomingRequest, RequestRejected, error_words, failure_text, status_of
from providers.value import Value
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.dashscope", "dashscope")
_PATHS = {
    "text": "/services/aigc/text-generation/generation",
    "multimodal": "/services/aigc/multimodal-generation/generation",
}
_EMBEDDINGS = "/services/embeddings/text-embedding/text-embedding"
_JSON = {"content-type": "application/json"}
_BLOCKED = ("DataInspectionFailed", 400)
_FILTERED = "Output data may contain inappropriate content."
_WORDS = error_words(_FACTS)
_TOO_LONG = "Range of input length should be [1, 98304]"


@dataclass(frozen=True, slots=True)
class DashScopeSimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "dashscope"

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """See `Simulator`. `reasoning_effort` shows whether and how much the model thinks."""
        body, model = _read_head(incoming)
        facts = model_facts(load_models(_FACTS), model)
        if not incoming.path.endswith(_PATHS[facts.api or "text"]):
            raise _refused(NativeError("url error, please check url！"))
        streams = incoming.headers.get("x-dashscope-sse", "").lower() == "enable"
        if streams and "text/event-stream" not in incoming.headers.get("accept", ""):
            raise _refused(NativeError("A stream needs the header Accept: text/event-stream."))
        objection = next(objections(body, facts, streams), None)
        if objection is not None:
            raise _refused(objection)
        try:
            return decode_request(as_openai(body, facts, streams))
        except (InvalidRequest, UnsupportedFeature) as error:
            raise _refused(NativeError(str(error))) from None

    def read_input(self, incoming: IncomingRequest) -> EmbeddingRequest | None:
        """See `providers.testkit.simulator.SimulatesInputs`. Too many texts are refused."""
        if not incoming.path.endswith(_EMBEDDINGS):
            return None
        body, model = _read_head(incoming)
        texts = [text for text in as_list(read_map(body, "input").get("texts")) if isinstance(text, str) and text]
        vendor = load_embedding_facts(self.name)
        most = vendor.facts(model).most_inputs if vendor is not None else 1
        if not texts or len(texts) > most:
            raise _refused(NativeError(f"batch size is invalid, it should not be larger than {most}.: input.texts"))
        parameters = read_map(body, "parameters")
        if parameters.get("text_type", "document") not in ("query", "document") or "input_type" in parameters:
            raise _refused(NativeError("text_type must be query or document.: parameters.text_type"))
        return EmbeddingRequest(model, tuple(texts), read_int(parameters, "dimension"))

    def write_embeddings(self, answer: EmbeddingAnswer, incoming: IncomingRequest) -> WireResponse:
        data = [{"text_index": index, "embedding": vector.tolist()} for index, vector in enumerate(answer.vectors)]
        tokens = answer.usage.prompt_tokens if answer.usage is not None else 0
        body = {"output": {"embeddings": data}, "usage": {"total_tokens": tokens}, "request_id": "simulated"}
        return WireResponse(200, _JSON, dumps(body), 0)

    def read_rerank(self, incoming: IncomingRequest) -> RerankRequest | None:
        return read_sent_rerank(self.name, incoming, _read_head, lambda message: _refused(NativeError(message)))

    def write_rerank(self, answer: RerankAnswer, incoming: IncomingRequest) -> WireResponse:
        return write_sent_rerank(self.name, answer, incoming)

    def answer_audio(self, incoming: IncomingRequest) -> WireResponse | None:
        return answer_audio(
            self.name, incoming, _read_head, lambda message: _refused(NativeError(message))
        )  # fmt: skip

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`. A filtered answer is an error; it has no finish reason."""
        if any(choice.finish_reason == "content_filter" for choice in completion.choices):
            return _error(_BLOCKED[0], _FILTERED, _BLOCKED[1])
        lists = _uses_lists(request)
        several = len(completion.choices) > 1
        choices = [_choice(each, _whole(each, lists), _finish_reason(each), several) for each in completion.choices]
        output = {"text": None, "finish_reason": None, "choices": choices}
        body: dict[str, object] = {"request_id": completion.id, "output": output}
        if completion.usage is not None:
            body["usage"] = _usage(completion.usage)
        return WireResponse(200, _JSON, dumps(body), 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `Simulator`. Usage grows with each event. If there are several choices, each has its own usage."""
        lists = _uses_lists(request)
        several = len(completion.choices) > 1
        events: list[bytes] = []
        for position, choice in enumerate(completion.choices):
            filtered = choice.finish_reason == "content_filter"
            messages = list(_pieces(choice, lists))
            if filtered:
                messages.pop()
            share = None if completion.usage is None else _share(completion.usage, position, len(completion.choices))
            for number, message in enumerate(messages, 1):
                reason = _finish_reason(choice) if number == len(messages) and not filtered else "null"
                body: dict[str, object] = {"output": {"choices": [_choice(choice, message, reason, several)]}}
                if share is not None:
                    body["usage"] = _usage(share, number / len(messages))
                body["request_id"] = completion.id
                events.append(_event(len(events) + 1, "result", 200, body))
            if filtered:
                events.append(_event(len(events) + 1, "error", _BLOCKED[1], _error_body(_BLOCKED[0], _FILTERED)))
                break
        return tuple(events)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `Simulator`. The vendor sends no `retry-after`."""
        return _error(_WORDS.of(kind, status), failure_text(kind, _TOO_LONG), status)

    def write_error_event(self, kind: FailureKind) -> bytes:
        status = status_of(kind, 500)
        return _event(1, "error", status, _error_body(_WORDS.of(kind, status), failure_text(kind, _TOO_LONG)))


def _read_head(incoming: IncomingRequest) -> tuple[Mapping[str, object], str]:
    """Return the body of a request and its model. Raises RequestRejected."""
    if not incoming.bearer:
        raise _refused(NativeError("Invalid API-key provided.", "InvalidApiKey"), 401)
    if incoming.method != "POST":
        raise _refused(NativeError(f"Request method '{incoming.method}' is not supported."), 405)
    if incoming.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _refused(NativeError("The content type must be application/json."))
    try:
        body = as_map(loads(incoming.body))
    except JsonError:
        raise _refused(NativeError("Required body invalid, please check the request body format.")) from None
    model = read_str(body, "model")
    if not model:
        raise _refused(NativeError("Model not exist.", "ModelNotFound"), 404)
    return body, model


def _uses_lists(request: ChatRequest) -> bool:
    """Return whether the model uses the multimodal path, where a content is a list of parts."""
    return model_facts(load_models(_FACTS), request.model).api == "multimodal"


def _refused(objection: NativeError, status: int = 400) -> RequestRejected:
    return RequestRejected(objection.message, _error(objection.code, objection.message, status))


def _error(code: str, message: str, status: int) -> WireResponse:
    return WireResponse(status, _JSON, dumps(_error_body(code, message)), 0)


def _error_body(code: str, message: str) -> dict[str, object]:
    return {"code": code, "message": message, "request_id": "simulated"}


def _event(number: int, name: str, status: int, body: Mapping[str, object]) -> bytes:
    return f"id:{number}\nevent:{name}\n:HTTP_STATUS/{status}\ndata:".encode() + dumps(body) + b"\n\n"


def _finish_reason(choice: Choice) -> str:
    return choice.raw_finish_reason or choice.finish_reason


def _choice(choice: Choice, message: Mapping[str, object], reason: str, several: bool) -> dict[str, object]:
    body: dict[str, object] = {"message": {"role": "assistant", **message}, "finish_reason": reason}
    if several:
        body["index"] = choice.index
    if choice.logprobs is not None and reason != "null":
        body["logprobs"] = choice.logprobs
    return body


def _content(text: str, lists: bool) -> object:
    if not lists:
        return text
    return [{"text": text}] if text else []


def _whole(choice: Choice, lists: bool) -> dict[str, object]:
    message = choice.message
    body: dict[str, object] = {"content": _content(said_in(message), lists)}
    if message.reasoning is not None:
        body["reasoning_content"] = message.reasoning
    if message.tool_calls:
        calls = enumerate(message.tool_calls)
        body["tool_calls"] = [_call(index, call.id, call.name, call.arguments) for index, call in calls]
    return body


def _pieces(choice: Choice, lists: bool) -> Iterator[dict[str, object]]:
    """Yield the messages of one choice's events. The last, empty one ends the choice."""
    message = choice.message
    for piece in cut(message.reasoning or ""):
        yield {"content": _content("", lists), "reasoning_content": piece}
    for piece in cut(said_in(message)):
        yield {"content": _content(piece, lists), "reasoning_content": ""}
    for index, call in enumerate(message.tool_calls):
        # Only the first fragment of a call has the id and the name.
        halves = (_call(index, "", "", half) for half in cut_in_two(call.arguments))
        for fragment in (_call(index, call.id, call.name, ""), *halves):
            yield {"content": _content("", lists), "tool_calls": [fragment]}
    yield {"content": _content("", lists)}


def _call(index: int, id: str, name: str, arguments: str) -> dict[str, object]:
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _share(usage: Usage, position: int, of: int) -> Usage:
    """Return an equal part of the usage for one of several choices. The first choice has the remainder too."""
    output, reasoning = usage.completion_tokens // of, usage.reasoning_tokens // of
    if position == 0:
        output, reasoning = usage.completion_tokens - output * (of - 1), usage.reasoning_tokens - reasoning * (of - 1)
    return Usage(usage.prompt_tokens, output, usage.cached_tokens, reasoning)


def _usage(usage: Usage, part: float = 1) -> dict[str, object]:
    """Return the counts after this fraction of the output."""
    output = round(usage.completion_tokens * part)
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": output,
        "total_tokens": usage.prompt_tokens + output,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": min(usage.reasoning_tokens, output)},
    }


SIMULATOR = DashScopeSimulator()


_COMPATIBLE = FactsFile("providers.compatible", "dashscope-compatible")
_JSON_FORMATS = ("json_object", "json_schema")
_NO_THINKING = "InvalidParameter.NotSupportEnableThinking"
# The effort for a budget: the first entry that is not smaller than the budget.
_EFFORTS = ((512, "minimal"), (2048, "low"), (8192, "medium"), (24576, "high"))


class NativeError(Value, frozen=True):
    """The message and code of a native error that states why a request is refused."""

    message: str
    code: str = "InvalidParameter"


def _dialect() -> CompatibleDialect:
    return read_dialect(as_map(_COMPATIBLE.read()["dialect"]))


def thinks(parameters: Mapping[str, object], facts: ModelFacts) -> bool:
    """Whether the model thinks before this answer."""
    if "thinking_only" in facts.flags:
        return True
    enabled = parameters.get("enable_thinking")
    return enabled is True or (enabled is None and "thinking_default" in facts.flags)


def objections(body: Mapping[str, object], facts: ModelFacts, streams: bool) -> Iterator[NativeError]:
    """Yield an error for each rule of the model's path that a body breaks, in the order of the checks."""
    parameters = read_map(body, "parameters")
    yield from _unknown(body, frozenset({"model", "input", "parameters"}), "")
    yield from _unknown(read_map(body, "input"), frozenset({"messages"}), "input.")
    yield from _in_messages(read_list(read_map(body, "input"), "messages"), facts)
    for name, lowest in (("top_k", 0), ("thinking_budget", 1)):
        if name in parameters and (type(value := parameters[name]) is not int or value < lowest):
            yield NativeError(f"Range of {name} is wrong: parameters.{name}")
    if parameters.get("result_format") != "message":
        yield NativeError("parameters.result_format must be 'message': the simulator knows no other")
    if streams and parameters.get("incremental_output") is not True:
        yield NativeError("The incremental_output parameter of this model cannot be set to False.")
    yield from _in_thinking(parameters, facts, streams)
    tools = [read_map(as_map(tool), "function") for tool in read_list(parameters, "tools")]
    if any(function.get("name") == "search" for function in tools):
        yield NativeError("Tool names are not allowed to be [search]")
    if tools and "tools" not in facts.features:
        yield NativeError("tools are not supported by this model")
    yield from map(NativeError, compatible.objections(_as_compatible(body, streams), _dialect(), facts, ""))


def _unknown(source: Mapping[str, object], known: frozenset[str], path: str) -> Iterator[NativeError]:
    return (NativeError(f"Unknown field: {path}{name}") for name in source if name not in known)


def _in_messages(messages: object, facts: ModelFacts) -> Iterator[NativeError]:
    entries = [as_map(entry) for entry in as_list(messages)]
    for position, message in enumerate(entries):
        content, path = message.get("content"), f"input.messages[{position}].content"
        if not isinstance(content, str) and (facts.api != "multimodal" or not isinstance(content, list)):
            yield NativeError(f"input content must be a string: {path}")
        for part in as_list(content):
            kinds = list(as_map(part))
            if len(kinds) != 1 or kinds[0] not in ("text", "image", "audio"):
                yield NativeError(f"The item of content should be a message of a certain modal: {path}")
            elif not isinstance(as_map(part)[kinds[0]], str):
                yield NativeError(f"A part's value must be a string: {path}")
    if not entries or entries[-1].get("role") not in ("user", "tool"):
        yield NativeError("The last message must be of the role user or tool: input.messages")


def _in_thinking(parameters: Mapping[str, object], facts: ModelFacts, streams: bool) -> Iterator[NativeError]:
    enabled = parameters.get("enable_thinking")
    if enabled is not None:
        if not isinstance(enabled, bool):
            yield NativeError("parameters.enable_thinking must be a boolean")
        if enabled is False and "thinking_only" in facts.flags:
            yield NativeError("The value of the enable_thinking parameter is restricted to True.")
        if not facts.flags & {"thinking", "thinking_default", "thinking_only"}:
            yield NativeError("enable_thinking is not supported by this model", _NO_THINKING)
    if not streams and "stream_only" in facts.flags:
        yield NativeError(
            "This model only support stream mode, please enable the stream parameter to access the model."
        )
    if isinstance(parameters.get("tool_choice"), dict) and thinks(parameters, facts):
        yield NativeError(
            "The tool_choice parameter does not support being set to required or object in thinking mode",
            "InternalError.Algo.InvalidParameter",
        )
    kind = read_map(parameters, "response_format").get("type")
    if kind in _JSON_FORMATS and "json_without_thinking" in facts.flags and thinks(parameters, facts):
        yield NativeError("Json mode response is not supported when enable_thinking is true")


def as_openai(body: Mapping[str, object], facts: ModelFacts, streams: bool) -> dict[str, object]:
    """Return the request in OpenAI's format, for the shared decoder. DashScope's own parameters stay unchanged."""
    parameters = read_map(body, "parameters")
    plain = {**_as_compatible(body, streams), "enable_thinking": None, "thinking_budget": None}
    request = compatible.as_openai(plain, _dialect(), facts)
    if thinks(parameters, facts):
        budget = read_int(parameters, "thinking_budget")
        bounds = [effort for most, effort in _EFFORTS if budget is not None and budget <= most]
        request["reasoning_effort"] = bounds[0] if bounds else "max"
    elif parameters.get("enable_thinking") is False:
        request["reasoning_effort"] = "none"
    return {name: value for name, value in request.items() if value is not None}


def _as_compatible(body: Mapping[str, object], streams: bool) -> dict[str, object]:
    """Return the request in the form of the compatible mode."""
    own = ("result_format", "incremental_output")
    request = {name: value for name, value in read_map(body, "parameters").items() if name not in own}
    messages = [_message(as_map(entry)) for entry in read_list(read_map(body, "input"), "messages")]
    stream: dict[str, object] = {"stream": True} if streams else {}
    return {**request, **stream, "model": body.get("model"), "messages": messages}


def _message(source: Mapping[str, object]) -> dict[str, object]:
    content = source.get("content")
    if isinstance(content, list):
        parts = [_part(as_map(part)) for part in content]
        is_text = all(part["type"] == "text" for part in parts)
        content = "".join(str(part["text"]) for part in parts) if is_text else parts
    return {**source, "content": None if source.get("tool_calls") and not content else content}


def _part(source: Mapping[str, object]) -> dict[str, object]:
    if "image" in source:
        return {"type": "image_url", "image_url": {"url": source["image"]}}
    if "audio" in source:
        head, _, data = str(source["audio"]).partition(",")
        sound = head.removeprefix("data:audio/").partition(";")[0]
        return {"type": "input_audio", "input_audio": {"data": f"data:;base64,{data}", "format": sound}}
    return {"type": "text", "text": read_str(source, "text") or ""}
