"""The wire formats of decisions: OpenAI's, Gemini's, and System One, which servers of one's own have.

Source: openai 3.57.0 (DecisionCreateParams, Decision); google-genai 3.6.1 (CreateDecisionRequest, its answers and its
tests); vLLM, entrypoints/openai/decisions/protocol.py; SGLang, decision_models; alibabacloud.com/help/en/model-studio,
"decision-model-api"; read 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from providers.adapter import Target
from providers.catalogue.models import ByModel
from providers.chat import AssistantMessage, ImagePart, Message, Part, SystemMessage, TextPart, ToolMessage, Usage
from providers.chat.messages import UserMessage, is_data_uri, split_data_uri, text_of
from providers.inputs.decisions.facts import DecisionFacts
from providers.inputs.decisions.values import DecisionQuestion, DecisionRequest, JsonPart, SentDecisions
from providers.inputs.reading import JSON_HEADERS
from providers.json_values import as_map, dumps, read_count, read_map, read_str, verbatim
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_MEMBERS = {"predicate": "noul", "choice": "choice", "score": "score"}
"""The name in a map of each kind of question, which is also that of the member with the answer."""
KINDS = {member: kind for kind, member in _MEMBERS.items()}


class VendorDecisions(Value, frozen=True):
    """The format of a vendor, by its facts. See `DecisionFormat`."""

    vendor: ByModel[DecisionFacts]

    def accepts(self, model: str) -> bool:
        return not self.vendor.models or self.vendor.knows(model)

    def facts(self, model: str) -> DecisionFacts:
        return self.vendor.of(model)

    def build_request(self, request: DecisionRequest, target: Target) -> WireRequest:
        """See `InputFormat`. Names of questions never leave: a map has their numbers."""
        facts = self.vendor.of(target.model)
        path, field = ("/systemone", "state") if facts.form == "systemone" else ("/decisions", "input")
        questions: object = [_listed(question) for question in request.questions]
        if facts.form != "listed":
            blank = "" if facts.form == "mapped" else None
            questions = {f"{number}": _mapped(it, blank) for number, it in enumerate(request.questions, 1)}
        body = {"model": target.model, field: _input(request, facts), "questions": questions, **request.extra}
        return WireRequest("POST", target.base_path + path, JSON_HEADERS, dumps(body))

    def parse_response(self, response: WireResponse, target: Target) -> SentDecisions:
        """See `InputFormat`. The request compares the answers with its questions (`DecisionRequest.checked`)."""
        body, by_text = error_object(response.body), self.vendor.of(target.model).form != "listed"
        usage, model = _usage(read_map(body, "usage")), read_str(body, "model") or ""
        answers, is_blocked = body.get("answers"), bool(read_map(body, "prompt_feedback").get("block_reason"))
        if by_text and (isinstance(answers, dict) or is_blocked):
            found = {number: _as_listed(as_map(answer)) for number, answer in as_map(answers).items()}
            return SentDecisions(found, usage, model, by_text, is_blocked)
        if by_text or not isinstance(answers, list):
            raise malformed("the answer has no decisions")
        return SentDecisions({f"{number}": as_map(one) for number, one in enumerate(answers, 1)}, usage, model)


def _listed(question: DecisionQuestion) -> dict[str, object]:
    """Return a question in OpenAI's form. A description that is missing is absent: vLLM refuses null."""
    body: dict[str, object] = {"type": question.kind, "instructions": question.instructions}
    name, of_option = ("levels", "label") if question.kind == "score" else ("choices", "value")
    options = [{of_option: option.value, "description": option.description} for option in question.options]
    named = [{key: value for key, value in option.items() if value is not None} for option in options]
    return {**body, name: named} if named else body


def _mapped(question: DecisionQuestion, blank: str | None) -> dict[str, object]:
    """Return a question of a map. `blank` stands for a description that is missing."""
    body: dict[str, object] = {"type": _MEMBERS[question.kind], "instructions": question.instructions}
    described = [(option.text, option.description) for option in question.options]
    if question.kind == "choice":
        body["criteria"] = {text: blank if means is None else means for text, means in described}
    elif question.kind == "score":
        body["criteria"] = [text if means is None else f"{text}: {means}" for text, means in described]
    return body


def _input(request: DecisionRequest, facts: DecisionFacts) -> object:
    """Return the input: one message of a user as it is, else messages, or a text that shows who wrote what."""
    messages = request.messages
    content = messages[0].content if len(messages) == 1 and isinstance(messages[0], UserMessage) else None
    if isinstance(content, str):
        return content
    if facts.takes_messages:
        return [item for message in messages for item in _items(message)]
    parts: Sequence[Part] = content or (TextPart(conversation_of(messages)), *request.images)
    if facts.form != "mapped" or all(isinstance(part, TextPart) for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))
    return [_block(part) for part in parts]


def _parts_of(message: Message) -> tuple[Part, ...]:
    return (TextPart(message.content),) if isinstance(message.content, str) else message.content or ()


def _role_of(message: Message) -> str:
    """Return the role of a message that is not a result of a call."""
    if isinstance(message, SystemMessage):
        return message.role
    return "assistant" if isinstance(message, AssistantMessage) else "user"


def _items(message: Message) -> Iterator[dict[str, object]]:
    """Yield a message as items of OpenAI's input. A call and a result are items of their own."""
    said, calls = (message, message.tool_calls) if isinstance(message, AssistantMessage) else (None, ())
    parts = [_part(part, "output_text" if said else "input_text") for part in _parts_of(message)]
    if said and said.refusal is not None:
        parts.append({"type": "refusal", "refusal": said.refusal})
    content = message.content if isinstance(message.content, str) and len(parts) == 1 else parts
    if isinstance(message, ToolMessage):
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": content}
    elif parts or not calls:
        yield {"role": _role_of(message), "content": content}
    for call in calls:
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _part(part: Part, text_type: str) -> dict[str, object]:
    if isinstance(part, ImagePart):
        detail = {"detail": part.detail} if part.detail is not None else {}
        return {"type": "input_image", "image_url": part.url, **detail}
    if isinstance(part, JsonPart):
        return {"type": "input_json", "data": verbatim(part.text)}
    return {"type": text_type, "text": text_of([part])}


def _block(part: Part) -> dict[str, object]:
    """Return a part in Gemini's form."""
    if not isinstance(part, ImagePart):
        return {"type": "text", "text": text_of([part])}
    kind, data = split_data_uri(part.url)
    return {"type": "image", **({"data": data, "mime_type": kind} if is_data_uri(part.url) else {"uri": part.url})}


def conversation_of(messages: Sequence[Message]) -> str:
    """Return a conversation as the compact text of a JSON array, so that no text of a user can look like another role.

    A result has the name of its call in place of an id. An image is its number, from 1.
    """
    entries: list[dict[str, object]] = []
    names: dict[str, str] = {}
    images = count(1)
    for message in messages:
        said, calls = (message, message.tool_calls) if isinstance(message, AssistantMessage) else (None, ())
        parts = _parts_of(message)
        contents: list[object] = [{"image": next(images)} if isinstance(it, ImagePart) else _value(it) for it in parts]
        contents += [said.refusal] if said and said.refusal is not None else []
        content = contents[0] if len(contents) == 1 and isinstance(contents[0], str) else contents
        if isinstance(message, ToolMessage):
            entries.append({"role": "tool", "name": names.get(message.tool_call_id, ""), "content": content})
        elif contents or not calls:
            entries.append({"role": _role_of(message), "content": content})
        for call in calls:
            names[call.id] = call.name
            entries.append({"role": "assistant", "tool_call": {"name": call.name, "arguments": call.arguments}})
    return dumps(entries).decode()


def _value(part: Part) -> object:
    return verbatim(part.text) if isinstance(part, JsonPart) else text_of([part])


def _as_listed(answer: Mapping[str, object]) -> Mapping[str, object]:
    """Return an answer of a map as OpenAI writes it. The member with the answer shows the kind if `type` is missing."""
    member = answer.get("type", next((name for name in KINDS if name in answer), None))
    shares = [{"value": key, "probability": share} for key, share in read_map(answer, "probabilities").items()]
    kind = KINDS.get(member) if isinstance(member, str) else None
    return {**answer, "type": kind, "probability": answer.get("noul"), "probabilities": shares}


def _usage(counts: Mapping[str, object]) -> Usage | None:
    details = read_map(counts, "input_tokens_details")
    if not (tokens := read_count(counts, "input_tokens") or read_count(counts, "total_input_tokens")):
        return None
    output = read_count(counts, "output_tokens") or read_count(counts, "total_output_tokens")
    cached = read_count(details, "cached_tokens") or read_count(counts, "total_cached_tokens")
    return Usage(tokens, output, cached, cache_write_tokens=read_count(details, "cache_write_tokens"))
