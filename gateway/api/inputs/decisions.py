"""`POST /v1/decisions`: questions with closed answers about an input, in OpenAI's form.

Source: the official Python SDK 3.57 (`DecisionCreateParams`, `Decision`), read 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.api.body import parse_input
from gateway.api.dialects.labelling import MEMBER
from gateway.api.dialects.openai_chat import InputDialect
from gateway.api.dialects.responses.encode import encode_usage
from gateway.api.dialects.responses.input_items import InputReader
from gateway.api.dialects.responses.tools import ToolNames
from gateway.api.inputs.dialects import shown_model, tokens_of_texts
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import CacheTime, FilePart, Message, Part, TextPart, Usage
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.inputs.decisions.values import (
    MOST_QUESTIONS,
    DecisionAnswer,
    DecisionQuestion,
    DecisionRequest,
    DecisionResult,
    JsonPart,
    Option,
)
from providers.json_values import dumps, verbatim
from providers.openai_json.decode_request import MAX_MESSAGES, check_unknown
from providers.openai_json.fields import BREAKPOINT, boolean, choice, items, mapping, needed_text, present, text

_KNOWN = frozenset({"model", "input", "questions", "stream"})
_ITEMS = {
    "message": frozenset({"type", "role", "content"}),
    "function_call": frozenset({"type", "call_id", "name", "arguments"}),
    "function_call_output": frozenset({"type", "call_id", "output"}),
}
_NAMED = frozenset(
    "custom_tool_call custom_tool_call_output reasoning item_reference input_image input_file input_audio input_json "
    "text refusal".split()
)
"""The items and parts of OpenAI that are refused by name."""
_SILENT = frozenset({"id", "status"})
_KINDS = ("predicate", "choice", "score")
_QUESTION = frozenset({"type", "name", "instructions"})
_LEAST_OPTIONS, _MOST_OPTIONS = 2, 255
_SAFETY, _MOST_IDENTIFIER = "safety_identifier", 128
_MOST_JSON_LEVELS, _MOST_JSON_VALUES, _MOST_JSON_BYTES = 32, 10_000, 256 * 1024


class DecisionsDialect(InputDialect):
    """One request for decisions. Its answer has the client's names and options, which providers answer by position."""

    route = "/v1/decisions"

    def __init__(self) -> None:
        self._request: DecisionRequest | None = None

    def decode(self, body: bytes) -> DecisionRequest:
        self._request = decode_decisions(parse_input(body))
        return self._request

    def encode_result(self, result: DecisionResult, style: AnswerStyle, record: Record) -> bytes:
        """See `InputDialect`. Tokens that the provider did not count are estimated: clients require them."""
        asked = self._request
        questions, usage = asked.questions if asked is not None else (), result.usage
        if usage is None:
            usage = Usage(prompt_tokens=tokens_of_texts(asked.texts() if asked is not None else ()))
        body = {
            "model": shown_model(style, record),
            "answers": [_answer(one, asked) for one, asked in zip(result.decisions, questions, strict=True)],
            "usage": verbatim(encode_usage(usage).decode()),
            MEMBER: {"usage": "estimated"} if result.usage is None else {},
        }
        return dumps(body)


def _answer(decision: DecisionAnswer, question: DecisionQuestion) -> dict[str, object]:
    body: dict[str, object] = {"type": decision.kind, "name": question.name}
    options = list(zip(question.options, decision.probabilities, strict=False))
    match decision.kind:
        case "predicate":
            body["probability"] = decision.probability
        case "choice":
            body["choice"] = question.options[decision.chosen or 0].value
            body["probabilities"] = [{"value": option.value, "probability": p} for option, p in options]
            body["confidence"] = decision.confidence
        case "score":
            body["score"] = decision.score
            body["probabilities"] = [
                {"value": index, "label": level.value, "probability": p} for index, (level, p) in enumerate(options)
            ]
            body["confidence"] = decision.confidence
    return body


def decode_decisions(value: object) -> DecisionRequest:
    """Read a client's request strictly. Raises InvalidRequest or UnsupportedFeature."""
    body, unread = mapping(value, "body"), set[str]()
    if boolean(body, "stream", "stream"):
        raise InvalidRequest("`stream` must be false: decisions are one answer", "stream")
    model = needed_text(body, "model", "model")
    if len(text(body, _SAFETY, _SAFETY) or "") > _MOST_IDENTIFIER:
        raise InvalidRequest(f"`{_SAFETY}` must have at most {_MOST_IDENTIFIER} characters", _SAFETY)
    content = _input(present(body, "input", "input"), unread)
    asked = body.get("questions")
    if isinstance(asked, dict):
        raise InvalidRequest("`questions` must be a list here, not a map: give each question a `name`", "questions")
    entries = items(asked, "questions")
    if not 1 <= len(entries) <= MOST_QUESTIONS:
        raise InvalidRequest(f"`questions` has {len(entries)} entries; 1 to {MOST_QUESTIONS} are accepted", "questions")
    questions = tuple(_question(it, f"questions[{place}]", unread) for place, it in enumerate(entries))
    extra = {name: it for name, it in body.items() if name not in _KNOWN and it is not None}
    check_unknown(extra, unread)
    request = DecisionRequest(model, content, questions, extra, frozenset(unread))
    if not request.images and not any(it.strip() for it in request.texts_of_input()):
        raise InvalidRequest("`input` must not be blank", "input")
    return request


def _note_unknown(source: Mapping[str, object], known: frozenset[str], path: str, unread: set[str]) -> None:
    unread.update(f"{path}.{name}" for name, it in source.items() if name not in known and it is not None)


def _question(value: object, path: str, unread: set[str]) -> DecisionQuestion:
    source = mapping(value, path)
    kind = choice(source.get("type"), f"{path}.type", _KINDS)
    name, instructions = text(source, "name", f"{path}.name"), _instructions(source, f"{path}.instructions", unread)
    if kind == "predicate":
        _note_unknown(source, _QUESTION, "questions", unread)
        return DecisionQuestion("predicate", instructions, (), name)
    member, of_option = ("levels", "label") if kind == "score" else ("choices", "value")
    _note_unknown(source, _QUESTION | {member}, "questions", unread)
    path = f"{path}.{member}"
    entries = items(source.get(member), path)
    if not _LEAST_OPTIONS <= len(entries) <= _MOST_OPTIONS:
        message = f"`{path}` has {len(entries)} entries; {_LEAST_OPTIONS} to {_MOST_OPTIONS} are accepted"
        raise InvalidRequest(message, path)
    options: dict[tuple[type, object], Option] = {}
    for place, it in enumerate(entries):
        entry, at = mapping(it, f"{path}[{place}]"), f"{path}[{place}].{of_option}"
        _note_unknown(entry, frozenset({of_option, "description"}), "questions", unread)
        shown = entry.get("value") if kind == "choice" else text(entry, "label", at)
        if not isinstance(shown, str | bool):
            raise InvalidRequest(f"`{at}` is required: a text{' or a boolean' if kind == 'choice' else ''}", at)
        if kind == "score" and isinstance(shown, str) and not shown.strip():
            raise InvalidRequest(f"`{at}` must not be blank", at)
        key = (type(shown), shown) if kind == "choice" else (int, place)
        if key in options:
            raise InvalidRequest(f"`{at}` is that of another choice", at)
        options[key] = Option(shown, text(entry, "description", f"{path}[{place}].description"))
    return DecisionQuestion("score" if kind == "score" else "choice", instructions, tuple(options.values()), name)


def _instructions(source: Mapping[str, object], path: str, unread: set[str]) -> str:
    """Return the text of a question. Its parts become one text."""
    given = present(source, "instructions", path)
    if isinstance(given, str):
        found = given
    else:
        texts: list[str] = []
        for place, it in enumerate(items(given, path)):
            at, part = f"{path}[{place}]", mapping(it, f"{path}[{place}]")
            if part.get("type") not in ("input_text", "input_json"):
                raise _unsupported(part.get("type"), at, "instructions are text")
            texts.append(_text_of(part, at, "questions", unread))
        found = "\n\n".join(texts)
    if not found.strip():
        raise InvalidRequest(f"`{path}` must not be blank", path)
    return found


def _text_of(part: Mapping[str, object], path: str, dropped_as: str, unread: set[str]) -> str:
    """Return the text of a part, or its JSON as compact text."""
    if part.get("type") == "input_json":
        _note_unknown(part, frozenset({"type", "data"}), dropped_as, unread)
        return _json_text(part.get("data"), f"{path}.data")
    _note_unknown(part, frozenset({"type", "text"}), dropped_as, unread)
    found = text(part, "text", f"{path}.text")
    if found is None:
        raise InvalidRequest(f"`{path}.text` is required", f"{path}.text")
    return found


def _json_text(data: object, path: str) -> str:
    entries = data if isinstance(data, list) else [data]
    if not all(isinstance(it, dict) for it in entries):
        raise InvalidRequest(f"`{path}` must be an object or a list of objects", path)
    within, levels, count = [data], 0, 0
    while within := [it for it in within if isinstance(it, dict | list)]:
        levels += 1
        within = [one for it in within for one in (it.values() if isinstance(it, dict) else it)]
        count += len(within)
        if levels > _MOST_JSON_LEVELS or count > _MOST_JSON_VALUES:
            message = f"`{path}` has more than {_MOST_JSON_LEVELS} levels or {_MOST_JSON_VALUES:,} values"
            raise InvalidRequest(message, path)
    written = dumps(data)
    if len(written) > _MOST_JSON_BYTES:
        raise InvalidRequest(f"`{path}` is larger than {_MOST_JSON_BYTES // 1024} KiB", path)
    return written.decode()


def _unsupported(kind: object, path: str, why: str) -> UnsupportedFeature:
    """Return the refusal of an item or a part, by its name if OpenAI has one with this name."""
    name = kind if isinstance(kind, str) and kind in _NAMED else "this type"
    return UnsupportedFeature(name, f"`{path}.type`: {name} is not supported in decisions: {why}", f"{path}.type")


def _input(given: object, unread: set[str]) -> str | tuple[Message, ...]:
    if isinstance(given, str):
        return given
    entries = items(given, "input", at_most=MAX_MESSAGES)
    if not entries:
        raise InvalidRequest("`input` must not be empty", "input")
    reader = _ItemReader(ToolNames())
    reader.read(entries)
    unread |= reader.unread
    return tuple(reader.messages)


class _ItemReader(InputReader):
    """Reads items as those of Responses: messages, calls of functions and their results. No other item is taken.

    A conversation may end with a call, because nothing answers it here.
    """

    takes_open_calls = True
    _is_message = True

    def _read_item(self, item: Mapping[str, object], path: str) -> None:
        kind = item.get("type", "message" if "role" in item else None)
        known = _ITEMS.get(kind) if isinstance(kind, str) else None
        if known is None:
            raise _unsupported(kind, path, "an item is a message, a function call or its output")
        self._is_message = kind == "message"
        self._note_unknown(item, known | _SILENT, "input")
        super()._read_item({name: it for name, it in item.items() if name in known}, path)

    def _part(self, value: object, path: str) -> Part:
        part = mapping(value, path)
        if part.get("type") == "input_json" and self._is_message:
            return JsonPart(_text_of(part, path, "input", self.unread))
        if part.get("type") != "input_image":
            return self._text_part(part, path)
        if part.get("file_id") is not None:
            place = f"{path}.file_id"
            message = f"`{place}` is not supported in decisions: send the image in `image_url`"
            raise UnsupportedFeature("file_id", message, place)
        if isinstance(image := self._image(part, path), FilePart):
            raise _unsupported("input_file", path, "send images and texts")
        return image

    def _text_part(self, part: Mapping[str, object], path: str) -> TextPart:
        if part.get("type") not in ("input_text", "output_text"):
            raise _unsupported(part.get("type"), path, "a part here is a text, an image or, of users, JSON")
        return super()._text_part(part, path)

    def _mark(self, part: Mapping[str, object], path: str) -> CacheTime | None:
        return None

    def _note_unknown(self, source: Mapping[str, object], known: frozenset[str], path: str) -> None:
        _note_unknown(source, known - {BREAKPOINT}, "input", self.unread)
