"""Turn `contents` into messages: turns of user and model, media, function calls and their responses.

Google allows several turns of one role in a row, and clients send them: google-genai's streamed chats send each chunk
of an answer back as a turn of its own, then all responses. Turns of the model are joined here, and the responses of a
turn become tool messages that follow the calls at once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from collections.abc import Mapping

import msgspec

from gateway.api.dialects.gemini.fields import DroppedFields, Fields, read_object, repeated
from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.json_values import dumps_text
from providers.openai_json.decode_messages import sound_data_uri, unreachable_host
from providers.openai_json.decode_request import MAX_MESSAGES
from providers.openai_json.fields import boolean, mapping, needed_text, text

_CONTENT = frozenset({"role", "parts"})
_PART = frozenset(
    "text thought thoughtSignature inlineData fileData functionCall functionResponse executableCode codeExecutionResult"
    " toolCall toolResponse".split()
)
_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_HOSTED = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_INLINE = frozenset({"mimeType", "data", "displayName"})
_FILE = frozenset({"mimeType", "fileUri", "displayName"})
_CALL = frozenset({"id", "name", "args"})
_RESPONSE = frozenset({"id", "name", "response", "parts"})
_USER_ROLES = ("user", "function", "tool")
_MIME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,63}")
_SOUNDS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-m4a": "m4a"}
_SOUND = re.compile("[a-z0-9][a-z0-9.+-]{0,15}")
_URL_SAFE = str.maketrans("-_", "+/")
_MAX_CALLS = 512
# The seal of the gateway and the mark of the model: see `gateway.policy.reasoning_seal`.
_MARKED = re.compile(r"(?:[A-Za-z0-9_-]{22}\.)?[0-9a-f]{8}\.[!-~]+")
_FILES = re.compile(r"https?://[^/]*googleapis\.com/|gs://", re.IGNORECASE)


def encode_signature(signature: str) -> str:
    """Return the opaque state of a call as base64, the only form that Google's clients accept."""
    return base64.b64encode(signature.encode("utf-8", "replace")).decode()


def decode_signature(carried: str) -> str | None:
    """Return the state of a call from a client, in either alphabet of base64; None if this gateway did not make it."""
    plain = carried.translate(_URL_SAFE).rstrip("=")
    try:
        signature = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return signature if _MARKED.fullmatch(signature) else None


class _Call(msgspec.Struct):
    """A call that waits for its response. `given` is the id that the client sent, or None."""

    id: str
    name: str
    given: str | None
    is_answered: bool = False


_NO_CALLS: deque[_Call] = deque()


class _OpenCalls(dict[str | None, deque[_Call]]):
    """The calls without a response by their id or name, in their order. Each is looked at once."""

    def take(self, key: str | None) -> _Call | None:
        """Return the first call with this id or name, which counts as answered from now on; None if there is none."""
        waiting = self.get(key, _NO_CALLS)
        while waiting:
            if not (call := waiting.popleft()).is_answered:
                call.is_answered = True
                return call
        return None


class _Response(msgspec.Struct):
    path: str
    id: str | None
    name: str | None
    content: str | tuple[chat.Part, ...]
    is_error: bool


class _ModelTurn(msgspec.Struct):
    """Consecutive turns of the model."""

    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[chat.ToolCall] = []


def _hosted(part: Fields) -> str | None:
    """Return the member of a part that belongs to a tool which Google hosts."""
    return next((name for name in _HOSTED if name in part), None)


class ContentReader:
    """Reads the contents of one request."""

    def __init__(self, dropped: DroppedFields, *, is_partial: bool = False) -> None:
        """Make it for one request. `dropped` collects the names of fields that are not read.

        With `is_partial`, the contents may be a part of a conversation, as for counting: calls without responses, and
        responses without calls.
        """
        self.messages: list[chat.Message] = []
        self._dropped = dropped
        self._is_partial = is_partial
        self._model: _ModelTurn | None = None
        self._responses: list[_Response] = []
        self._user: list[chat.UserMessage] = []
        self._said_at = ""
        self._open: list[_Call] = []
        self._ids: set[str] = set()
        self._number = 0

    def read(self, value: object, path: str) -> tuple[chat.Message, ...]:
        """Return the messages of `contents`. Raises InvalidRequest or UnsupportedFeature."""
        entries = repeated(value, path, at_most=MAX_MESSAGES)
        if not entries:
            raise InvalidRequest(f"`{path}` must not be empty", path)
        for position, entry in enumerate(entries):
            self._content(entry, f"{path}[{position}]")
        self._end_model_turn()
        self._end_user_turn()
        if self._open and not self._is_partial:
            raise InvalidRequest(f"`{path}`: the last function calls have no `functionResponse`", path)
        return tuple(self.messages)

    def _content(self, value: object, path: str) -> None:
        content = read_object(value, path)
        self._dropped.add_unknown(content, _CONTENT, "contents")
        role = content.get("role", "user")
        parts = repeated(content.get("parts", []), f"{path}.parts")
        if role == "model":
            self._end_user_turn()
            if self._open and self._model is None and not self._is_partial:
                raise InvalidRequest(f"`{path}`: the function calls before it have no `functionResponse` yet", path)
            turn = self._model = self._model or _ModelTurn()
            for position, part in enumerate(parts):
                self._model_part(turn, part, f"{path}.parts[{position}]")
        elif role in _USER_ROLES:
            self._end_model_turn()
            if not parts:
                raise InvalidRequest(f"`{path}.parts` must have at least one part", f"{path}.parts")
            self._user_parts(parts, path)
        else:
            raise InvalidRequest(f"`{path}.role` must be 'user' or 'model'", f"{path}.role")

    def _end_model_turn(self) -> None:
        turn, self._model = self._model, None
        if turn is None:
            return
        said, thought = "".join(turn.texts), "".join(turn.thoughts) or None
        if said or turn.calls:
            self.messages.append(chat.AssistantMessage(said or None, None, thought, tuple(turn.calls)))

    def _end_user_turn(self) -> None:
        """Add the responses of all turns of the user since the model's turn, then its other content."""
        if self._responses:
            self._match_responses()
        elif self._open and self._user and not self._is_partial:
            path = self._said_at
            raise InvalidRequest(f"`{path}`: the function calls before it have no `functionResponse` yet", path)
        self.messages += self._user
        self._responses, self._user = [], []

    def _match_responses(self) -> None:
        """Pair each response with its call: by id, else by name and order.

        Gemini CLI repeats the response of a resumed session: a copy with the same id adds nothing, so it is left out.
        """
        by_id, by_name = _OpenCalls(), _OpenCalls()
        for waiting in self._open:
            by_id.setdefault(waiting.given, deque()).append(waiting)
            by_name.setdefault(waiting.name, deque()).append(waiting)
        matched: dict[int, _Call] = {}
        given: dict[str | None, _Response] = {}
        for position, response in enumerate(self._responses):
            if response.id is not None and (call := by_id.take(response.id)) is not None:
                matched[position] = call
                given[response.id] = response
        for position, response in enumerate(self._responses):
            if position not in matched:
                if (first := given.get(response.id)) is not None and first.content == response.content:
                    self._dropped.add("contents.parts.functionResponse")
                    continue
                if (call := by_name.take(response.name)) is None and not self._is_partial:
                    place = f"{response.path}.functionResponse"
                    raise InvalidRequest(f"`{place}` answers no function call of the model's turn before it", place)
                matched[position] = call or _Call(response.id or "", response.name or "", None)
        self._open = [waiting for waiting in self._open if not waiting.is_answered]
        for position, response in enumerate(self._responses):
            if position in matched:
                self.messages.append(chat.ToolMessage(matched[position].id, response.content, response.is_error))

    def _user_parts(self, parts: list[object], path: str) -> None:
        read: list[chat.Part] = []
        for position, value in enumerate(parts):
            place = f"{path}.parts[{position}]"
            part, kind = self._part(value, place)
            if kind == "functionResponse":
                self._responses.append(self._response(part[kind], place))
            elif kind == "functionCall":
                problem = f"`{place}.functionCall` is only allowed in a turn of the model"
                raise InvalidRequest(problem, f"{place}.functionCall")
            else:
                read.append(self._media(part, kind, place))
        if read and not self._user:
            self._said_at = path
        if len(read) == 1 and isinstance(only := read[0], chat.TextPart):
            self._user.append(chat.UserMessage(only.text))
        elif read:
            self._user.append(chat.UserMessage(tuple(read)))

    def _part(self, value: object, place: str) -> tuple[Fields, str]:
        """Return a part and its kind, which is the name of its only content."""
        part = read_object(value, place)
        self._dropped.add_unknown(part, _PART, "contents.parts")
        if name := _hosted(part):
            message = f"`{place}.{name}` belongs to a tool that Google hosts, which the gateway does not offer"
            raise UnsupportedFeature("hosted_tools", message, f"{place}.{name}")
        kinds = [kind for kind in _KINDS if kind in part]
        if len(kinds) != 1:
            words = ", ".join(map(repr, _KINDS))
            raise InvalidRequest(f"`{place}` must have one of {words}", place)
        return part, kinds[0]

    def _media(self, part: Fields, kind: str, place: str) -> chat.Part:
        if "thoughtSignature" in part:
            self._dropped.add("contents.parts.thoughtSignature")
        if kind == "text":
            return chat.TextPart(text(part, "text", f"{place}.text") or "")
        if kind == "inlineData":
            return self._inline(part[kind], f"{place}.{kind}")
        return self._linked(part[kind], f"{place}.{kind}")

    def _inline(self, value: object, place: str) -> chat.Part:
        blob = read_object(value, place)
        self._dropped.add_unknown(blob, _INLINE, "contents.parts.inlineData")
        mime = _mime(blob, place)
        data = _base64(blob, place)
        family, _, kind = mime.partition("/")
        if family == "image":
            return chat.ImagePart(_data_uri(mime, data, place))
        if family == "audio":
            sound = _SOUNDS.get(kind, kind)
            if not _SOUND.fullmatch(sound):
                raise InvalidRequest(f"`{place}.mimeType` names no known format of sound", f"{place}.mimeType")
            _data_uri(mime, data, place)
            return chat.AudioPart(data, sound)
        if family == "video":
            message = f"`{place}.mimeType`: no provider takes a video in a chat; send single images"
            raise UnsupportedFeature("video", message, f"{place}.mimeType")
        return chat.FilePart(_data_uri(mime, data, place), text(blob, "displayName", f"{place}.displayName"))

    def _linked(self, value: object, place: str) -> chat.Part:
        source = read_object(value, place)
        self._dropped.add_unknown(source, _FILE, "contents.parts.fileData")
        path = f"{place}.fileUri"
        uri = needed_text(source, "fileUri", path)
        kind = text(source, "mimeType", f"{place}.mimeType") or ""
        if _FILES.match(uri) or "://" not in uri:
            message = f"`{path}` refers to content kept at Google: send the content itself as `inlineData`"
            raise UnsupportedFeature("file_id", message, path)
        if kind and not kind.lower().startswith("image/"):
            message = f"`{path}`: only images may be linked; send other content as `inlineData`"
            raise UnsupportedFeature("file_url", message, path)
        if not uri.lower().startswith(("https://", "http://")):
            raise InvalidRequest(f"`{path}` must be an https URL", path)
        if problem := unreachable_host(uri):
            raise InvalidRequest(f"`{path}` {problem}", path)
        return chat.ImagePart(uri)

    def _model_part(self, turn: _ModelTurn, value: object, place: str) -> None:
        if hosted := _hosted(read_object(value, place)):
            self._dropped.add(f"contents.parts.{hosted}")  # tools that Google ran
            return
        part, kind = self._part(value, place)
        if kind == "functionCall":
            turn.calls.append(self._call(part, place, len(turn.calls)))
            return
        if "thoughtSignature" in part:
            self._dropped.add("contents.parts.thoughtSignature")
        if kind in ("inlineData", "fileData"):
            self._dropped.add(f"contents.parts.{kind}")  # an image of an earlier answer
            return
        if kind != "text":
            problem = f"`{place}.{kind}` in a turn of the model is not supported: send it in a turn of the user"
            raise UnsupportedFeature(kind, problem, f"{place}.{kind}")
        said = text(part, "text", f"{place}.text") or ""
        (turn.thoughts if boolean(part, "thought", f"{place}.thought") else turn.texts).append(said)

    def _call(self, part: Fields, place: str, count: int) -> chat.ToolCall:
        path = f"{place}.functionCall"
        call = read_object(part["functionCall"], path)
        self._dropped.add_unknown(call, _CALL, "contents.parts.functionCall")
        name = needed_text(call, "name", f"{path}.name")
        if count >= _MAX_CALLS:
            raise InvalidRequest(f"`{path}`: at most {_MAX_CALLS} calls in one turn are accepted", path)
        arguments = mapping(call.get("args", {}), f"{path}.args")
        given = text(call, "id", f"{path}.id") or None
        id = given or self._new_id()
        self._ids.add(id)
        self._open.append(_Call(id, name, given))
        signature = None
        if (carried := text(part, "thoughtSignature", f"{place}.thoughtSignature")) is not None:
            signature = decode_signature(carried)
            if signature is None:
                self._dropped.add("contents.parts.thoughtSignature")
        return chat.ToolCall(id, name, dumps_text(arguments), signature)

    def _new_id(self) -> str:
        """Return an id that no call before it has. A number that was tried once is not tried again."""
        self._number = max(self._number, len(self._ids)) + 1
        while (id := f"call_{self._number}") in self._ids:
            self._number += 1
        return id

    def _response(self, value: object, place: str) -> _Response:
        path = f"{place}.functionResponse"
        response = read_object(value, path)
        self._dropped.add_unknown(response, _RESPONSE, "contents.parts.functionResponse")
        id, name = text(response, "id", f"{path}.id") or None, text(response, "name", f"{path}.name") or None
        if id is None and name is None:
            raise InvalidRequest(f"`{path}.name` is required", f"{path}.name")
        result = mapping(response.get("response", {}), f"{path}.response")
        media: list[chat.Part] = []
        for position, entry in enumerate(repeated(response.get("parts", []), f"{path}.parts")):
            inner = f"{path}.parts[{position}]"
            part, kind = self._part(entry, inner)
            if kind not in ("inlineData", "fileData"):
                raise InvalidRequest(f"`{inner}` must have 'inlineData' or 'fileData'", inner)
            media.append(self._media(part, kind, inner))
        said = _result_text(result)
        content = (*((chat.TextPart(said),) if result else ()), *media) if media else said
        return _Response(place, id, name, content, result.keys() == {"error"})


def read_system(value: object, path: str, dropped: DroppedFields) -> tuple[chat.SystemMessage, ...]:
    """Return `systemInstruction`, one message for each part: many providers join parts without a separator."""
    content = read_object(value, path)
    dropped.add_unknown(content, _CONTENT, path)
    texts: list[str] = []
    for position, entry in enumerate(repeated(content.get("parts", []), f"{path}.parts")):
        place = f"{path}.parts[{position}]"
        part = read_object(entry, place)
        if "text" not in part:
            raise InvalidRequest(f"`{place}` must have a 'text'", place)
        if said := text(part, "text", f"{place}.text"):
            texts.append(said)
    return tuple(map(chat.SystemMessage, texts))


def _result_text(result: Mapping[str, object]) -> str:
    """Return the result of a function as text. SDKs put it into `output` or `result`, or into `error` if it failed."""
    if len(result) == 1:
        for name in ("output", "result", "error"):
            if isinstance(only := result.get(name), str):
                return only
    return dumps_text(result)


def _mime(blob: Fields, place: str) -> str:
    path = f"{place}.mimeType"
    given = text(blob, "mimeType", path)
    mime = (given or "").partition(";")[0].strip().lower()
    if not _MIME.fullmatch(mime):
        raise InvalidRequest(f"`{path}` must be a media type, such as 'image/png'", path)
    return "image/jpeg" if mime == "image/jpg" else mime


def _base64(blob: Fields, place: str) -> str:
    """Return the content in the standard alphabet, with padding. google-genai for Python sends the other alphabet."""
    data = text(blob, "data", f"{place}.data")
    if not data:
        raise InvalidRequest(f"`{place}.data` is required: the content in base64", f"{place}.data")
    data = data.translate(_URL_SAFE) if "-" in data or "_" in data else data
    return data + "=" * (-len(data) % 4)


def _data_uri(mime: str, data: str, place: str) -> str:
    try:
        return sound_data_uri(f"data:{mime};base64,{data}")
    except ValueError:
        raise InvalidRequest(f"`{place}.data` is not valid base64", f"{place}.data") from None
