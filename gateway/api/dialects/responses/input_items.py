"""Read the items of `input` as messages of a chat.

Adjacent function calls form one turn of the model, together with the text and the reasoning before them. Each output
follows the turn of its call, wherever it stands in `input`, because most vendors require it there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec
import orjson

from gateway.api.dialects.responses.tools import INPUT, TOOL_SEARCH, ToolNames
from providers import chat
from providers.failures import InvalidRequest
from providers.formats.reasoning_state import split_call_id
from providers.openai_json import fields
from providers.openai_json.decode_messages import DETAILS, file_if_pdf, file_part, image_url
from providers.value import replace

_ROLES = ("user", "assistant", "system", "developer")
_PARAGRAPH_BREAK = "\n\n"
# Fields of answers, which clients send back with the history. They have no meaning in a request.
_OF_ANSWERS = frozenset({"status", "annotations", "logprobs", "parsed", "parsed_arguments"})
_MESSAGE = frozenset({"type", "role", "content"})
_CALL = frozenset({"type", "call_id", "name", "arguments", "namespace", "input", "execution"})
_OUTPUT = frozenset({"type", "call_id", "output", "name", "tools", "execution"})
WITH_TOOLS = ("additional_tools", "tool_search_output")
"""Items that bring further tools."""
_LEFT_OUT = ("web_search_call", "image_generation_call")
"""Items of answers without a text that another model could read: a search, and an image."""
_SUMMARIES = ("compaction", "compaction_summary", "context_compaction")
"""Items that stand for a conversation before them. Without an encrypted text they mark a place only."""
_REASONING = frozenset({"type", "summary", "content", "encrypted_content"})
_PARTS = {
    "input_text": frozenset({"type", "text", fields.BREAKPOINT}),
    "output_text": frozenset({"type", "text"}),
    "text": frozenset({"type", "text"}),
    "refusal": frozenset({"type", "refusal"}),
    "input_image": frozenset({"type", "image_url", "detail", "file_id", fields.BREAKPOINT}),
    "input_file": frozenset({"type", "file_data", "filename", "file_id", "file_url", "detail", fields.BREAKPOINT}),
}
_TEXT_KINDS = ("input_text", "output_text", "text")
_KEPT_AT_PROVIDER = "refers to content kept at a provider, and the gateway keeps none"


class _Call(msgspec.Struct):
    """A call of the history, and its output once it is read."""

    call: chat.ToolCall
    client_id: str
    path: str
    turn: _Turn
    output: chat.ToolMessage | None = None
    output_path: str = ""


class _Turn(msgspec.Struct):
    """A turn of the model that is being read."""

    path: str
    texts: list[chat.TextPart] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    state: str | None = None
    calls: list[_Call] = []
    is_answered: bool = False

    def message(self) -> chat.AssistantMessage | None:
        """Return the turn; None if it has reasoning only."""
        if not self.texts and not self.refusals and not self.calls:
            return None
        content: str | tuple[chat.TextPart, ...] | None = tuple(self.texts) or None
        if len(self.texts) == 1:
            content = self.texts[0].text
        reasoning = _PARAGRAPH_BREAK.join(self.reasoning) or None
        refusal = "".join(self.refusals) or None
        return chat.AssistantMessage(content, refusal, reasoning, tuple(call.call for call in self.calls))


class InputReader:
    """Reads the items of one request. After `read`, it has the messages, their paths, and what is `unread`.

    `updates` has the items that change how the model answers, with their paths. With `takes_open_calls`,
    a call needs no output.
    """

    takes_open_calls = False

    def __init__(self, names: ToolNames) -> None:
        """`names` gets the functions in groups that the history calls."""
        self.messages: list[chat.Message] = []
        self.paths: list[str] = []
        self.unread: set[str] = set()
        self.updates: list[tuple[str, Mapping[str, object]]] = []
        self._names = names
        self._turn: _Turn | None = None
        # Calls without an output so far, by the id that the client knows.
        self._open: dict[str, deque[_Call]] = {}
        # The turns of the model with calls, each with the position of its message.
        self._with_calls: list[tuple[int, _Turn]] = []

    def add_instructions(self, instructions: str) -> None:
        """Add the field `instructions`."""
        self._add(chat.SystemMessage(instructions), "instructions")

    def read(self, entries: Sequence[object]) -> None:
        """Read all items. Raises InvalidRequest or UnsupportedFeature."""
        for position, entry in enumerate(entries):
            path = f"input[{position}]"
            self._read_item(fields.mapping(entry, path), path)
        self._end_turn()
        self._add_outputs()

    def _read_item(self, item: Mapping[str, object], path: str) -> None:
        kind = item.get("type")
        if kind is None:
            kind = "message" if "role" in item else "item_reference" if "id" in item else None
        match kind:
            case "message":
                self._read_message(item, path)
            case "function_call" | "custom_tool_call" | "tool_search_call":
                self._read_call(item, path)
            case "function_call_output" | "custom_tool_call_output" | "tool_search_output":
                self._read_output(item, path)
            case "additional_tools":
                pass  # `decode_tools` has read them
            case str() if kind in _LEFT_OUT:
                self.unread.add(f"input.{kind}")
            case str() if kind in _SUMMARIES:
                if fields.text(item, "encrypted_content", f"{path}.encrypted_content"):
                    problem = "holds a summary that only its vendor can read: begin a new session"
                    raise InvalidRequest(f"`{path}` {problem}", path)
                self.unread.add(f"input.{kind}")
            case "compaction_trigger":
                message = f"`{path}` asks for a summary that only its vendor could read: compact in the client"
                raise InvalidRequest(message, f"{path}.type")
            case "configuration_update":
                self.updates.append((path, item))
            case "reasoning":
                self._read_reasoning(item, path)
            case "item_reference":
                raise InvalidRequest(
                    f"`{path}` is an `item_reference`: it {_KEPT_AT_PROVIDER}; send the item itself (in the Vercel AI "
                    "SDK, set the provider option `store` to false)",
                    path,
                )
            case _:
                raise InvalidRequest(
                    f"`{path}.type` must be 'message', 'function_call', 'function_call_output' or 'reasoning': other "
                    "items belong to tools or state at a provider; leave them out",
                    f"{path}.type",
                )

    def _read_message(self, item: Mapping[str, object], path: str) -> None:
        self._note_unknown(item, _MESSAGE, "input")
        role = fields.choice(item.get("role"), f"{path}.role", _ROLES)
        content = fields.present(item, "content", f"{path}.content")
        if role == "assistant":
            self._read_assistant(content, path)
        elif role == "user":
            parts = content if isinstance(content, str) else self._parts(content, f"{path}.content")
            self._add(chat.UserMessage(parts), path)
        else:
            texts = content if isinstance(content, str) else self._texts(content, f"{path}.content")
            self._add(chat.SystemMessage(texts, "developer" if role == "developer" else "system"), path)

    def _read_assistant(self, content: object, path: str) -> None:
        turn = self._turn
        if turn is None or turn.is_answered or ((turn.texts or turn.refusals) and not turn.calls):
            turn = self._begin_turn(path)
        if isinstance(content, str):
            turn.texts.append(chat.TextPart(content))
            return
        for position, entry in enumerate(fields.items(content, f"{path}.content")):
            place = f"{path}.content[{position}]"
            part = fields.mapping(entry, place)
            if part.get("type") == "refusal":
                self._note_unknown(part, _PARTS["refusal"], "input.content")
                turn.refusals.append(fields.text(part, "refusal", f"{place}.refusal") or "")
            else:
                turn.texts.append(self._text_part(part, place))

    def _read_call(self, item: Mapping[str, object], path: str) -> None:
        self._note_unknown(item, _CALL, "input")
        kind = item.get("type")
        name = TOOL_SEARCH if kind == "tool_search_call" else fields.needed_text(item, "name", f"{path}.name")
        client_id = fields.needed_text(item, "call_id", f"{path}.call_id")
        if namespace := fields.text(item, "namespace", f"{path}.namespace"):
            name = self._names.flatten(namespace, name)
        turn = self._turn
        if turn is None or turn.is_answered:
            turn = self._begin_turn(path)
        call_id, in_id = split_call_id(client_id)
        if kind == "custom_tool_call":
            arguments = _json({INPUT: fields.text(item, "input", f"{path}.input") or ""})
        elif kind == "tool_search_call":
            arguments = _json(fields.mapping(item.get("arguments") or {}, f"{path}.arguments"))
        else:
            arguments = fields.arguments_text(item, "arguments", f"{path}.arguments")
        signature, turn.state = turn.state or in_id, None
        call = _Call(chat.ToolCall(call_id, name, arguments, signature), client_id, path, turn)
        turn.calls.append(call)
        self._open.setdefault(client_id, deque()).append(call)

    def _read_output(self, item: Mapping[str, object], path: str) -> None:
        self._note_unknown(item, _OUTPUT, "input")
        client_id = fields.text(item, "call_id", f"{path}.call_id")
        waiting = self._open.get(client_id or "")
        if not waiting:
            place = f"{path}.call_id"
            raise InvalidRequest(f"`{place}` is not the id of a function call before it in `input`", place)
        call = waiting.popleft()
        if item.get("type") == "tool_search_output":
            # The model gets the names of the tools that a search has found. The tools themselves are offered to it.
            tools = fields.items(item.get("tools") or [], f"{path}.tools")
            output: object = _json([fields.mapping(tool, f"{path}.tools").get("name") for tool in tools])
        else:
            output = fields.present(item, "output", f"{path}.output")
        content = output if isinstance(output, str) else self._parts(output, f"{path}.output")
        call.output, call.output_path = chat.ToolMessage(call.call.id, content), path
        if self._turn is call.turn:
            call.turn.is_answered = True

    def _read_reasoning(self, item: Mapping[str, object], path: str) -> None:
        self._note_unknown(item, _REASONING, "input")
        turn = self._turn
        if turn is None or turn.is_answered:
            turn = self._begin_turn(path)
        for name in ("summary", "content"):
            if item.get(name) is None:
                continue
            for position, entry in enumerate(fields.items(item[name], f"{path}.{name}")):
                place = f"{path}.{name}[{position}]"
                if thought := fields.text(fields.mapping(entry, place), "text", f"{place}.text"):
                    turn.reasoning.append(thought)
        if turn.state is not None:
            self.unread.add("input.encrypted_content")
        turn.state = fields.text(item, "encrypted_content", f"{path}.encrypted_content") or None
        if turn.state is None:
            self.unread.add("input.reasoning")

    def _begin_turn(self, path: str) -> _Turn:
        self._end_turn()
        self._turn = turn = _Turn(path)
        return turn

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if turn.state is not None:
            # The models that give such state want it back with a call only.
            self.unread.add("input.encrypted_content")
        message = turn.message()
        if message is None:
            self.unread.add("input.reasoning")
            return
        if turn.calls:
            self._with_calls.append((len(self.messages), turn))
        self.messages.append(message)
        self.paths.append(turn.path)

    def _add(self, message: chat.Message, path: str) -> None:
        self._end_turn()
        self.messages.append(message)
        self.paths.append(path)

    def _add_outputs(self) -> None:
        """Put each output after the turn of its call, from the last turn to the first."""
        for position, turn in reversed(self._with_calls):
            outputs: list[chat.Message] = []
            paths: list[str] = []
            for call in turn.calls:
                if call.output is None:
                    if self.takes_open_calls:
                        continue
                    place = f"{call.path}.call_id"
                    raise InvalidRequest(f"`{place}`: this call has no `function_call_output` in `input`", place)
                outputs.append(call.output)
                paths.append(call.output_path)
            self.messages[position + 1 : position + 1] = outputs
            self.paths[position + 1 : position + 1] = paths

    def _parts(self, value: object, path: str) -> str | tuple[chat.Part, ...]:
        return tuple(self._part(entry, f"{path}[{i}]") for i, entry in enumerate(fields.items(value, path))) or ""

    def _part(self, value: object, path: str) -> chat.Part:
        part = fields.mapping(value, path)
        match part.get("type"):
            case "input_image":
                return self._image(part, path)
            case "input_file":
                return self._file(part, path)
        return self._text_part(part, path)

    def _texts(self, value: object, path: str) -> tuple[chat.TextPart, ...]:
        return tuple(
            self._text_part(fields.mapping(entry, f"{path}[{i}]"), f"{path}[{i}]")
            for i, entry in enumerate(fields.items(value, path))
        )

    def _text_part(self, part: Mapping[str, object], path: str) -> chat.TextPart:
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in _TEXT_KINDS:
            place = f"{path}.type"
            raise InvalidRequest(
                f"`{place}` must be one of 'input_text', 'input_image', 'input_file', 'output_text', 'refusal', where "
                "the role allows it",
                place,
            )
        self._note_unknown(part, _PARTS[kind], "input.content")
        value = fields.text(part, "text", f"{path}.text")
        if value is None:
            raise InvalidRequest(f"`{path}.text` is required", f"{path}.text")
        return chat.TextPart(value, self._mark(part, path) if fields.BREAKPOINT in _PARTS[kind] else None)

    def _mark(self, part: Mapping[str, object], path: str) -> chat.CacheTime | None:
        if fields.BREAKPOINT not in part:
            return None
        if time := fields.lost_time(part, "input.content"):
            self.unread.add(time)
        return fields.part_mark({fields.BREAKPOINT: part[fields.BREAKPOINT]}, path)

    def _image(self, part: Mapping[str, object], path: str) -> chat.ImagePart | chat.FilePart:
        self._note_unknown(part, _PARTS["input_image"], "input.content")
        if part.get("file_id") is not None:
            place = f"{path}.file_id"
            raise InvalidRequest(f"`{place}` {_KEPT_AT_PROVIDER}: send the image in `image_url`, as a data URI", place)
        url = image_url(fields.text(part, "image_url", f"{path}.image_url"), f"{path}.image_url")
        detail = part.get("detail")
        detail = None if detail is None else fields.choice(detail, f"{path}.detail", DETAILS)
        return file_if_pdf(chat.ImagePart(url, detail, self._mark(part, path)))

    def _file(self, part: Mapping[str, object], path: str) -> chat.FilePart:
        self._note_unknown(part, _PARTS["input_file"], "input.content")
        for name, problem in (("file_id", _KEPT_AT_PROVIDER), ("file_url", "would make a provider fetch the file")):
            if part.get(name) is not None:
                place = f"{path}.{name}"
                raise InvalidRequest(f"`{place}` {problem}: send the file in `file_data`, as a data URI", place)
        if part.get("detail") is not None:
            self.unread.add("input.content.detail")
        file = file_part(part, path)
        return file if (mark := self._mark(part, path)) is None else replace(file, cache=mark)

    def _note_unknown(self, source: Mapping[str, object], known: frozenset[str], path: str) -> None:
        if not source.keys() <= known:
            for name, value in source.items():
                if name not in known and name not in _OF_ANSWERS and value is not None:
                    self.unread.add(f"{path}.{name}")


def tools_in(entries: Sequence[object]) -> list[tuple[str, object]]:
    """Return the lists of tools that items bring, each with its path."""
    return [
        (f"input[{position}].tools", entry["tools"])
        for position, entry in enumerate(entries)
        if isinstance(entry, dict) and entry.get("type") in WITH_TOOLS and entry.get("tools") is not None
    ]


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
