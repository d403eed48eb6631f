"""Read the messages of a client's request strictly: parts, image URLs and data URIs."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from itertools import islice, takewhile
from typing import TypeVar

from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.formats.reasoning_state import split_call_id
from providers.json_values import as_map
from providers.openai_json import fields
from providers.openai_json.plain_request import plain_message, plain_messages
from providers.openai_json.unread_fields import PARTS, THOUGHTS
from providers.sites import split_url
from providers.value import replace

_SCHEME = "data:"
_AUDIO_TYPE = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,[A-Za-z0-9+/_=-]+", re.ASCII)
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/_=-]", re.ASCII)
_INSIDE_NAMES = frozenset({"localhost", "metadata", "metadata.google.internal", "instance-data"})
# Names of internal networks (`.svc` is Kubernetes'), and names that no public server has: RFC 6761, RFC 7686.
_INSIDE_SUFFIXES = (
    *(".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".corp", ".home", ".svc"),
    *(".test", ".invalid", ".onion"),
)
_NAME = re.compile(r"[a-z0-9._-]+")
_ADDRESS = re.compile(r"[0-9a-f:.]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "2001::/23", "3fff::/20")))
"""Networks for protocol assignments (RFC 6890) and documentation (RFC 9637), which some versions of Python treat as
public. They contain metadata services of clouds and anycast addresses, such as that of a router (RFC 7723)."""
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
"""The global unicast addresses of IANA. Other IPv6 addresses lead to internal hosts, by translation or in old forms."""
_ROLES = ("system", "developer", "user", "assistant", "tool")
DETAILS = ("auto", "low", "high", "original")
_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]+", re.ASCII)
_SOUND = re.compile(r"[a-z0-9][a-z0-9.+-]{0,15}", re.ASCII)
_PDF = re.compile("data:application/pdf[;,]", re.IGNORECASE)
_MAX_CALLS = 512
USE_A_FUNCTION = "use a function with one string argument instead, which every provider supports"


def is_data_uri(uri: str) -> bool:
    """Return whether the URI contains its content."""
    return uri[: len(_SCHEME)].lower() == _SCHEME


def sound_data_uri(uri: str) -> str:
    """Return a valid data URI. If necessary, the part before its content is changed to lower case.

    Raises ValueError. Its message reads on after the name of the field.
    """
    if _AUDIO_TYPE.fullmatch(uri):
        return uri
    head, comma, content = uri.partition(",")
    uri = f"{head.lower()},{content}"
    if _AUDIO_TYPE.fullmatch(uri):
        return uri
    raise ValueError(_describe_problem(head.lower(), comma, content))


def _describe_problem(head: str, comma: str, content: str) -> str:
    if not is_data_uri(head):
        return "is not a data URI"
    if not comma or not head.endswith(";base64"):
        return "is a data URI that is not in base64"
    if not content:
        return "is a data URI without content"
    invalid = _NO_BASE64.search(content)
    if invalid is None:
        return "is a data URI with an invalid media type"
    kind = "white space" if invalid[0].isspace() else "an invalid character"
    return f"has {kind} in its base64 (at character {invalid.start() + 1})"


def unreachable_host(url: str) -> str | None:
    """Return why a provider must not fetch this URL, or None if it may."""
    try:
        parts = split_url(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if not host or not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        return "is not a URL of visible ASCII characters"
    if parts.username is not None or parts.password is not None:
        return "must not carry credentials"
    host = host.rstrip(".").lower()
    if not (_ADDRESS if "[" in parts.netloc else _NAME).fullmatch(host):
        return "has no valid host name"
    if host in _INSIDE_NAMES or host.endswith(_INSIDE_SUFFIXES) or not (set(".:") & set(host)):
        return "points inside a network"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Some resolvers read 127.1, 0x7f.1 and 0177.0.0.1 as addresses, and not all as the same one.
        return "spells an address in an unusual way" if _NUMBER.fullmatch(host.rpartition(".")[2]) else None
    return None if _is_public(address) else "points to a private or special address"


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        return _is_public(inner) if inner else address in _PUBLIC_IPV6 and _is_global(address)
    return _is_global(address) and not address.is_multicast


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not any(address in network for network in _RESERVED)


_P = TypeVar("_P", chat.TextPart, chat.Part)


def decode_messages(entries: list[object]) -> tuple[chat.Message, ...]:
    """Return the messages. Raises InvalidRequest, also if tool results do not match the calls before them."""
    if not entries:
        raise InvalidRequest("`messages` must not be empty", "messages")
    if (texts := plain_messages(entries, len(entries))) is not None:
        return texts
    messages = [
        plain_message(entry) or decode_any_message(entry, f"messages[{position}]")
        for position, entry in enumerate(entries)
    ]
    _check_tool_loop(messages)
    match messages:
        case [_, *_, chat.AssistantMessage(content=None | "" | (), refusal=None | "", tool_calls=())]:
            del messages[-1]  # there is nothing to continue: Apple's library sends such a turn with its reasoning alone
    return tuple(messages)


def decode_any_message(value: object, path: str) -> chat.Message:
    """Decode one message of any form."""
    source = fields.mapping(value, path)
    role = source.get("role")
    name = fields.text(source, "name", f"{path}.name")
    if role == "user":
        return chat.UserMessage(_marked(_content(source, path, _user_part), source, path), name)
    if role == "assistant":
        return _assistant(source, path, name)
    if role in ("system", "developer"):
        return chat.SystemMessage(_marked(_content(source, path, _text_part), source, path), role, name)
    if role == "tool":
        call_id = fields.needed_text(source, "tool_call_id", f"{path}.tool_call_id")
        content = "" if source.get("content") is None else _content(source, path, _text_part)
        return chat.ToolMessage(split_call_id(call_id)[0], content, cache=fields.cache_mark(source, path))
    if role == "function":
        raise InvalidRequest(f"`{path}.role` 'function' is no longer supported; use 'tool'", f"{path}.role")
    words = ", ".join(repr(word) for word in _ROLES)
    raise InvalidRequest(f"`{path}.role` must be one of {words}", f"{path}.role")


def _content(source: Mapping[str, object], path: str, part: Callable[[object, str], _P]) -> str | tuple[_P, ...]:
    place = f"{path}.content"
    value = fields.present(source, "content", place)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise InvalidRequest(f"`{place}` must be a string or an array of parts, not {fields.describe(value)}", place)
    # OpenAI refuses an empty array, which some apps send with tool calls. `or`: it is an empty text.
    return tuple(part(entry, f"{place}[{position}]") for position, entry in enumerate(value)) or ""


def _text_part(value: object, path: str) -> chat.TextPart:
    source = fields.mapping(value, path)
    if source.get("type") != "text":
        raise InvalidRequest(f"`{path}.type` must be 'text' in a message of this role", f"{path}.type")
    return _text(source, path)


def _text(source: Mapping[str, object], path: str) -> chat.TextPart:
    value = fields.text(source, "text", f"{path}.text")
    if value is None:
        raise InvalidRequest(f"`{path}.text` is required", f"{path}.text")
    return chat.TextPart(value, fields.part_mark(source, path))


def _marked(content: str | tuple[_P, ...], source: Mapping[str, object], path: str) -> str | tuple[_P, ...]:
    """Return the content of a message with the message's own mark for a cache, which means its last part."""
    mark = fields.cache_mark(source, path)
    if mark is None:
        return content
    if isinstance(content, str):
        return (chat.TextPart(content, mark),)
    return (*content[:-1], content[-1] if isinstance(content[-1], chat.AudioPart) else replace(content[-1], cache=mark))


def _user_part(value: object, path: str) -> chat.Part:
    source = fields.mapping(value, path)
    kind = source.get("type")
    if kind == "text":
        return _text(source, path)
    if kind == "image_url":
        place = f"{path}.{kind}"
        image = file_if_pdf(decode_image(fields.mapping(fields.present(source, kind, place), place), place))
        return replace(image, cache=mark) if (mark := fields.part_mark(source, path)) is not None else image
    if kind == "input_audio":
        place = f"{path}.{kind}"
        audio = fields.mapping(fields.present(source, kind, place), place)
        data, sound = fields.text(audio, "data", f"{place}.data"), fields.text(audio, "format", f"{place}.format")
        if not data or not _BASE64.fullmatch(data):
            raise InvalidRequest(f"`{place}.data` must be sound in base64", f"{place}.data")
        if not sound or not _SOUND.fullmatch(sound):
            raise InvalidRequest(f"`{place}.format` must be the name of a format, such as 'wav'", f"{place}.format")
        return chat.AudioPart(data, sound)
    if kind == "file":
        place = f"{path}.{kind}"
        held = fields.mapping(fields.present(source, kind, place), place)
        if held.get("file_id") is not None:
            message = f"`{place}.file_id` refers to content kept at a provider; send `file_data` instead"
            raise InvalidRequest(message, f"{place}.file_id")
        file = file_part(held, place)
        return replace(file, cache=mark) if (mark := fields.part_mark(source, path)) is not None else file
    raise InvalidRequest(f"`{path}.type` must be one of 'text', 'image_url', 'input_audio', 'file'", f"{path}.type")


def decode_image(source: Mapping[str, object], path: str) -> chat.ImagePart:
    """Read an image: a `data:` URI, or a URL that a provider may fetch. Raises InvalidRequest."""
    detail = fields.text(source, "detail", f"{path}.detail")
    if detail is not None and detail not in DETAILS:
        raise InvalidRequest(f"`{path}.detail` must be one of {', '.join(map(repr, DETAILS))}", f"{path}.detail")
    return chat.ImagePart(image_url(fields.text(source, "url", f"{path}.url"), f"{path}.url"), detail)


def file_if_pdf(image: chat.ImagePart) -> chat.ImagePart | chat.FilePart:
    """Return a PDF that a client sends as an image, within the request, as the file that it is."""
    return chat.FilePart(image.url, cache=image.cache) if _PDF.match(image.url) else image


def image_url(url: str | None, place: str) -> str:
    """Return the valid URL of an image. Raises InvalidRequest, also for one that leads inside a network."""
    if not url:
        raise InvalidRequest(f"`{place}` is required", place)
    if is_data_uri(url):
        return _data_uri(url, place, "data:image/png;base64,…")
    if not url.lower().startswith(("https://", "http://")):
        raise InvalidRequest(f"`{place}` must be a data URI or an https URL", place)
    if reason := unreachable_host(url):
        raise InvalidRequest(f"`{place}` {reason}", place)
    return url


def _data_uri(uri: str, place: str, example: str) -> str:
    try:
        return sound_data_uri(uri)
    except ValueError as error:
        raise InvalidRequest(f"`{place}` {error}: write {example}", place) from None


def file_part(source: Mapping[str, object], path: str) -> chat.FilePart:
    """Return the file of an object with `file_data` and `filename`. Raises InvalidRequest."""
    place = f"{path}.file_data"
    data = fields.needed_text(source, "file_data", place)
    return chat.FilePart(
        _data_uri(data, place, "data:application/pdf;base64,…"), fields.text(source, "filename", f"{path}.filename")
    )


def _assistant(source: Mapping[str, object], path: str, name: str | None) -> chat.AssistantMessage:
    if source.get("function_call") is not None:
        place = f"{path}.function_call"
        raise InvalidRequest(f"`{place}` is no longer supported; use `tool_calls`", place)
    if source.get("audio") is not None:
        place = f"{path}.audio"
        raise InvalidRequest(f"`{place}` refers to content kept at a provider; send its transcript as `content`", place)
    entries = source.get("tool_calls")
    calls = fields.items(entries, f"{path}.tool_calls", at_most=_MAX_CALLS) if entries is not None else ()
    tool_calls = tuple(_tool_call(entry, f"{path}.tool_calls[{i}]") for i, entry in enumerate(calls))
    refusal = fields.text(source, "refusal", f"{path}.refusal")
    content: str | tuple[chat.TextPart, ...] | None = None
    thoughts = None
    if source.get("content") is not None:
        content, refused, thoughts = _assistant_content(source, path)
        if content is None and refused is None and not tool_calls:
            content = ""  # only parts that no model reads
        content = _marked(content, source, path) if content else content
        refusal = refusal or refused
    elif not tool_calls and refusal is None:
        content = ""  # clients send back an answer without text
    reasoning = fields.text(source, "reasoning_content", f"{path}.reasoning_content")
    return chat.AssistantMessage(content, refusal, reasoning or thoughts, tool_calls, name)


def _assistant_content(
    source: Mapping[str, object], path: str
) -> tuple[str | tuple[chat.TextPart, ...] | None, str | None, str | None]:
    """Return text, refusal and thoughts. OpenAI allows parts of the first two kinds in an assistant's message.

    Clients send back parts of the answers of other APIs. All but thoughts are left out, and named by `unread_fields`.
    """
    value = source["content"]
    if not isinstance(value, list) or not value:
        return _content(source, path, _text_part), None, None
    texts: list[chat.TextPart] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    for position, entry in enumerate(value):
        place = f"{path}.content[{position}]"
        if isinstance(entry, dict) and entry.get("type") == "refusal":
            refusals.append(fields.text(entry, "refusal", f"{place}.refusal") or "")
        elif isinstance(entry, dict) and isinstance(kind := entry.get("type"), str) and kind not in PARTS:
            if kind in THOUGHTS:
                thoughts.append(_thought(entry.get(kind)))
        else:
            texts.append(_text_part(entry, place))
    return tuple(texts) or None, "".join(refusals) or None, "".join(thoughts) or None


def _thought(value: object) -> str:
    """Return the text of a thought: a string, or a list of parts of text, as Mistral has it."""
    parts = value if isinstance(value, list) else [{"text": value}]
    return "".join(one for one in (as_map(part).get("text") for part in parts) if isinstance(one, str))


def _tool_call(value: object, path: str) -> chat.ToolCall:
    source = fields.mapping(value, path)
    kind = source.get("type") or "function"
    if kind == "custom":
        raise UnsupportedFeature("custom_tools", f"`{path}` calls a custom tool; {USE_A_FUNCTION}", f"{path}.type")
    if kind != "function":
        raise InvalidRequest(f"`{path}.type` must be 'function'", f"{path}.type")
    outward = fields.needed_text(source, "id", f"{path}.id")
    function = fields.mapping(fields.present(source, "function", f"{path}.function"), f"{path}.function")
    name = fields.needed_text(function, "name", f"{path}.function.name")
    arguments = fields.arguments_text(function, "arguments", f"{path}.function.arguments")
    call_id, signature = split_call_id(outward)
    return chat.ToolCall(call_id, name, arguments, signature)


def _check_tool_loop(messages: list[chat.Message]) -> None:
    """Check that the tool messages after each call answer it, and that every tool message answers a call.

    Results that come after another message of their turn are brought to their calls, as most vendors require.
    """
    open_calls: Counter[str] = Counter()
    for position in range(len(messages)):
        if open_calls and not isinstance(messages[position], chat.ToolMessage):
            _bring_results(messages, position, open_calls)
        message = messages[position]
        if isinstance(message, chat.ToolMessage):
            if message.tool_call_id not in open_calls:
                path = f"messages[{position}].tool_call_id"
                raise InvalidRequest(f"`{path}` answers no open call of the assistant message before it", path)
            open_calls[message.tool_call_id] -= 1
            if not open_calls[message.tool_call_id]:
                del open_calls[message.tool_call_id]
            continue
        if open_calls:
            path = f"messages[{position}]"
            problem = f"`{path}`: the tool calls before it have no answer yet"
            raise InvalidRequest(f"{problem} (ids: {_ids_in(open_calls)})", path, log_message=problem)
        if isinstance(message, chat.AssistantMessage):
            open_calls = Counter(call.id for call in message.tool_calls)
    if open_calls:
        problem = "`messages` ends with tool calls that have no answer"
        raise InvalidRequest(f"{problem} (ids: {_ids_in(open_calls)})", "messages", log_message=problem)


def _ids_in(calls: Counter[str]) -> str:
    return ", ".join(calls.elements())[:200]


def _bring_results(messages: list[chat.Message], position: int, calls: Collection[str]) -> None:
    """Move the results of the calls to the beginning of the turn that begins here."""
    rest = islice(messages, position, None)
    turn = list(takewhile(lambda message: not isinstance(message, chat.AssistantMessage), rest))
    turn.sort(key=lambda message: not (isinstance(message, chat.ToolMessage) and message.tool_call_id in calls))
    messages[position : position + len(turn)] = turn
