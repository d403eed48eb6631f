"""Read answers in OpenAI's dialect: whole ones, chunks of a stream, and errors, as tolerantly as vendors differ.

A whole answer is read as one large chunk, so that both obey the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.adapters._openai_phrases import by_sentence, code_of_block
from providers.adapters._openai_pieces import new_in_message, read_annotations, read_setup
from providers.adapters._openai_places import place_in_chat
from providers.adapters._openai_plain import plain_completion
from providers.adapters._openai_usage import read_usage
from providers.adapters._tool_loops import arguments_text, calls_in
from providers.assembly import MAX_CHOICES, Assembler
from providers.chat import ChatCompletion, FinishReason, Logprobs
from providers.classify import by_status, failure, mistakes_in
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.folding import fold
from providers.json_values import JsonError, as_list, as_map, loads, read_int, read_list, read_map, read_str
from providers.rate_limits import LimitHeaders
from providers.wire import WireResponse

__all__ = [
    "BY_CODE",
    "BY_TYPE",
    "FINISH",
    "check_choices",
    "classify",
    "read_chunk",
    "read_completion",
    "read_reasoning",
    "read_text",
    "read_tool_call",
]

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "normal": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}
_LIMITS = LimitHeaders()
BY_CODE = {
    "context_length_exceeded": FailureKind.CONTEXT_LENGTH,
    "insufficient_quota": FailureKind.QUOTA,
    "billing_not_active": FailureKind.QUOTA,
    "billing_hard_limit_reached": FailureKind.QUOTA,
    # "Retrying these errors won't restore access", whatever the type. source: help.openai.com, 5955604 and 6614457.
    "credit_balance_exhausted": FailureKind.QUOTA,
    "organization_spend_limit_exceeded": FailureKind.QUOTA,
    "organization_usage_limit_exceeded": FailureKind.QUOTA,
    "project_spend_limit_exceeded": FailureKind.QUOTA,
    "invalid_prompt": FailureKind.CONTENT_FILTER,
    "content_policy_violation": FailureKind.CONTENT_FILTER,
    "content_filter": FailureKind.CONTENT_FILTER,
    "bio_policy": FailureKind.CONTENT_FILTER,
    "misalignment_policy_violation": FailureKind.CONTENT_FILTER,
    "image_content_policy_violation": FailureKind.CONTENT_FILTER,
    # DashScope's, which is asked as a server like any other, too: in its compatible mode, or by a proxy.
    "data_inspection_failed": FailureKind.CONTENT_FILTER,
    "DataInspectionFailed": FailureKind.CONTENT_FILTER,
    "InternalError.Algo.DataInspectionFailed": FailureKind.CONTENT_FILTER,
    "CustomRoleBlocked": FailureKind.CONTENT_FILTER,
    "FaqRuleBlocked": FailureKind.CONTENT_FILTER,
    "IPInfringementSuspect": FailureKind.CONTENT_FILTER,
    "data_residency_mismatch": FailureKind.CREDENTIALS,
    "unsupported_country_region_territory": FailureKind.GEO_REFUSED,
    "incorrect_hostname": FailureKind.CREDENTIALS,
    "invalid_api_key": FailureKind.CREDENTIALS,
    "model_not_found": FailureKind.MODEL_NOT_FOUND,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
}
BY_TYPE = {
    "invalid_request_error": FailureKind.INVALID_REQUEST,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "authentication_error": FailureKind.CREDENTIALS,
    "permission_error": FailureKind.CREDENTIALS,
    "insufficient_quota": FailureKind.QUOTA,
}
_WHOLE = ("stop", "length", "tool_calls")
_NO_HTTP_ERROR = 200
_NOTHING: Mapping[str, object] = {}
# What most deltas hold: no more than who speaks, and text.
_OF_TEXT = frozenset({"role", "content"})
_TOO_MANY = Failure(FailureKind.TOO_LARGE, "the provider's answer has more choices than are taken")


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """The whole answer of a 2xx JSON body; raises ProviderFailed."""
    try:
        value = loads(response.body)
    except JsonError:
        value = None
    body: Mapping[str, object] = value if type(value) is dict else {}
    if body.get("error") or body.get("object") == "error":
        raise ProviderFailed(classify(body, response))
    usage = body.get("usage")
    if plain := plain_completion(body, read_usage(usage) if type(usage) is dict and usage else None):
        return plain
    if _is_bare_error(body):
        raise ProviderFailed(classify(body, response))
    check_choices(body, response)
    assembler = Assembler(model)
    read_chunk(assembler, body, "message")
    assembler.complete()
    return fold(assembler.take())


def _is_bare_error(body: Mapping[str, object]) -> bool:
    """Whether a body that says success is an error without an envelope: it has a code of one, and no choices.

    Only a code that is known: a body without choices is no answer in any case, but what a filter refused must not be
    asked of somebody else as if it were garbage.
    """
    return not body.get("choices") and read_str(body, "code") in BY_CODE


def check_choices(body: Mapping[str, object], response: WireResponse) -> None:
    """Raise ProviderFailed for an answer without choices, or with one that has ended and has no message: an empty text
    would be taken for what was said. Of one that a filter ended nothing need be left."""
    choices = read_list(body, "choices")
    if not choices:
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no choices in the answer"))
    for choice in map(as_map, choices[:MAX_CHOICES]):
        is_whole = FINISH.get(read_str(choice, "finish_reason") or "") in _WHOLE
        if is_whole and not isinstance(choice.get("message"), dict) and not isinstance(choice.get("delta"), dict):
            raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="a choice without a message"))


def read_chunk(assembler: Assembler, chunk: Mapping[str, object], event: str) -> None:
    """One chunk, or one whole answer, into the assembler."""
    take = chunk.get
    if take("error") or event == "error":
        assembler.fail(classify(chunk, WireResponse(_NO_HTTP_ERROR, {}, b"", 0)))
        return
    if not assembler.identified:
        assembler.identify(id=read_str(chunk, "id"), model=read_str(chunk, "model"), created=read_int(chunk, "created"))
        read_setup(assembler, chunk)
    choices, usage = take("choices"), take("usage")
    if type(choices) is list:
        if len(choices) > MAX_CHOICES:
            # Not one by one: millions fit into a body.
            assembler.fail(_TOO_MANY)
            return
        for entry in choices:
            _read_choice(assembler, entry if type(entry) is dict else _NOTHING)
    elif take("object") == "error" or _is_bare_error(chunk):
        read_chunk(assembler, chunk, "error")
    if usage and type(usage) is dict:
        assembler.usage(read_usage(usage))


def _read_choice(assembler: Assembler, source: Mapping[str, object]) -> None:
    # Most of what a choice may have is empty or absent: that is asked before it is read.
    take = source.get
    index = (read_int(source, "index") or 0) if take("index") else 0
    found = take("delta")
    delta: Mapping[str, object] = found if type(found) is dict else _NOTHING
    is_whole = not delta
    if is_whole and take("message"):
        delta = new_in_message(assembler, read_map(source, "message"), index)
    logprobs = (read_map(source, "logprobs") or None) if take("logprobs") else None
    content = delta.get("content")
    if type(content) is not list and delta.keys() <= _OF_TEXT:
        text = content if type(content) is str else ""
        if text or logprobs:
            assembler.text(text, index, logprobs)
    else:
        text = _read_delta(assembler, delta, index, logprobs, is_whole=is_whole)
    word = take("finish_reason")
    if word and type(word) is str and word != "null":
        assembler.finish(FINISH.get(word, "other"), index, None if word in FINISH else word[:100])
    elif not text:
        assembler.see(index)


def _read_delta(
    assembler: Assembler, delta: Mapping[str, object], index: int, logprobs: Logprobs | None, *, is_whole: bool
) -> str:
    """All that a delta can bring, in the order in which a model says it; its text."""
    take = delta.get
    content = take("content")
    if reasoning := read_reasoning(delta):
        assembler.reasoning(reasoning, index)
    text = read_text(content)
    if text or logprobs:
        assembler.text(text, index, logprobs)
    if take("refusal") and (refusal := read_str(delta, "refusal")):
        assembler.refusal(refusal, index)
    if take("annotations"):
        assembler.annotations(read_annotations(delta), index)
    if take("tool_calls") or take("function_call"):
        for place, entry in enumerate(calls_in(delta)):
            read_tool_call(assembler, as_map(entry), index, place if is_whole else None)
    return text


def read_reasoning(delta: Mapping[str, object]) -> str:
    """The reasoning text of a piece, under whichever name it stands; the same text in two places is one."""
    take = delta.get
    for name in ("reasoning_content", "reasoning", "thinking"):
        if take(name) and (text := read_str(delta, name)):
            return text
    details = "".join(read_str(as_map(one), "text") or "" for one in as_list(take("reasoning_details")))
    return details or (_thoughts_among(content) if type(content := take("content")) is list else "")


def _thoughts_among(content: object) -> str:
    """The reasoning in a list of parts, where Mistral puts it."""
    thoughts = [as_map(part).get("thinking") for part in as_list(content)]
    return "".join(read_text(thought) for thought in thoughts)


def read_text(content: object) -> str:
    """The text of a content: a string, or a list of parts as some vendors send it."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(read_str(as_map(part), "text") or "" for part in content)
    return ""


def read_tool_call(assembler: Assembler, source: Mapping[str, object], choice: int, place: int | None = None) -> None:
    """A call or a piece of one. place: of a whole call among those of its message."""
    function, index = read_map(source, "function"), read_int(source, "index")
    arguments = arguments_text(function.get("arguments"))
    if arguments is None:
        assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
        return
    assembler.tool_call(
        arguments,
        choice=choice,
        index=index if place is None else place,
        id=read_str(source, "id"),
        name=read_str(function, "name"),
        empty=function.get("arguments") == {},
    )


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """What an error body means: by its code, then its type, then the HTTP status; by its text, as a whole sentence.

    `error` is an object at OpenAI, a string at some servers, and absent where the fields stand at the top.
    """
    error = body.get("error")
    source = error if isinstance(error, dict) else body
    text = error if isinstance(error, str) else read_str(source, "message") or mistakes_in(body)
    code = read_str(source, "code") or code_of_block(source)
    word = read_str(source, "type")
    status = response.status if response.status >= 400 else read_int(source, "code") or _NO_HTTP_ERROR
    kind = BY_CODE.get(code or "") or BY_CODE.get(word or "")
    if kind is None and response.status < 400:
        kind = BY_TYPE.get(word or "") or (by_status(status) if 400 <= status < 600 else FailureKind.UNAVAILABLE)
    kind = kind or by_status(status)
    if kind is FailureKind.RATE_LIMITED and word == "insufficient_quota":
        kind = FailureKind.QUOTA
    return failure(
        response,
        by_sentence(kind, text or ""),
        code=code or word,
        detail=text,
        param=place_in_chat(read_str(source, "param")),
        request_id=read_str(body, "request_id"),
        limits=_LIMITS,
    )
