"""Parse and write JSON, and read typed values from parsed JSON. No `Any` exists beyond this module.

A provider's answer is read leniently: an absent member, null and a member of another type all count as missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import orjson

_EMPTY: Mapping[str, object] = {}
# Large enough for the log probabilities of a long answer.
_MAX_BYTES_OUTSIDE_STRINGS = 16 * 1024 * 1024
_INT64 = 2**63
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPES = re.compile(
    rf"{_HIGH}{_LOW}|(?P<open>(?:{_HIGH})?\\(?:u[0-9a-fA-F]{{0,3}})?\Z|{_HIGH}\Z)|(?P<half>{_HIGH}|{_LOW})"
    r"|\\(?:u[0-9a-fA-F]{4}|.)",
    re.DOTALL,
)
"""The escapes of JSON text. `half` is half a surrogate pair, and `open` is an escape that the next piece may end."""
_FENCE = "```"
_FENCE_LINE = re.compile(r"```[ \t]{0,4}\w{0,20}[^\S\n]*\n")
_SURROGATE = re.compile("[\ud800-\udfff]")
Parsed = TypeVar("Parsed")
_MAYBE_BEYOND_64_BITS = re.compile(rb"[0-9]{20}")


class JsonError(ValueError):
    """A text is not valid JSON, or a value cannot be written as JSON."""


def loads(data: bytes | bytearray | memoryview | str) -> object:
    """Parse the JSON of a provider.

    Some vendors send JSON that orjson refuses. The standard library then reads: a surrogate pair that was split over
    two events; NaN and Infinity (in vLLM's log probabilities) and numbers too large for a float, which become None; and
    a byte order mark, which a reader may skip (RFC 8259, section 8.1). Raises JsonError if the text is not valid JSON,
    or contains millions of values.
    """
    if len(data) > _MAX_BYTES_OUTSIDE_STRINGS and exceeds_outside_strings(data, _MAX_BYTES_OUTSIDE_STRINGS):
        raise JsonError("too many values")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            text = data if isinstance(data, str) else bytes(data).decode("utf-8-sig")
            return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise JsonError("not valid JSON") from error


def with_exact_integers(value: Parsed, data: bytes, mark: bytes = b"") -> Parsed:
    """Return the value that `loads` parsed from these bytes, with exact integers above 64 bits if they have the mark.

    orjson rounds them to floats. If the standard library cannot parse the bytes, the value is returned unchanged.
    """
    if not value or mark not in data or not _MAYBE_BEYOND_64_BITS.search(data):
        return value
    try:
        exact = json.loads(data, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return value
    return exact if type(exact) is type(value) else value


def exceeds_outside_strings(data: bytes | bytearray | memoryview | str, most: int) -> bool:
    """Return whether JSON has more than `most` bytes outside its strings. Each string counts as two bytes.

    Images and long texts are a few large strings. Outside strings, every third byte may become an object of 64 bytes:
    32 MB of `[],[],` become 1 GB and block the process for seconds.
    """
    if len(data) <= most:
        return False
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    if b"\\" in data:
        # Backslashes are removed in pairs, as a parser reads them. A remaining one escapes the quote after it.
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    pieces = data.split(b'"', most)
    return len(pieces) + sum(map(len, pieces[::2])) > most


loads_strictly = orjson.loads
"""Parse standard JSON without lone surrogates. Raises ValueError, also for an argument of another type."""


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def dumps(value: object) -> bytes:
    """Write a value without lone surrogates as compact UTF-8 JSON. Keys keep their order.

    Raises TypeError if the value cannot be written as JSON.
    """
    return orjson.dumps(value)


def dumps_text(value: object) -> str:
    """Write any value that `loads` has returned as JSON text.

    A value with lone surrogates or integers above 64 bits is written with escaped characters. Raises JsonError if the
    value is nested too deeply.
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        try:
            return json.dumps(value, separators=(",", ":"))
        except (ValueError, RecursionError) as error:
            raise JsonError("the value can't be written as JSON") from error


def dumps_texts(texts: list[str], between: bytes) -> bytes:
    """Return the texts as contents of JSON strings, joined with `between`. They must not contain lone surrogates.

    All are written in one call, one on each line, and split at the line breaks, which no JSON string contains. `","`
    would not be a safe separator, because a text may end with a quote and a comma.
    """
    return orjson.dumps(texts, option=orjson.OPT_INDENT_2)[5:-3].replace(b'",\n  "', between)


def embed_object(text: str) -> object | None:
    """Return the JSON object in a text (tool arguments) for use inside a value for `dumps`, or None if it is not one.

    The text is checked and then written unchanged: no number is rounded, and any depth of nesting is possible.
    """
    try:
        data = text.encode("utf-8")
        return orjson.Fragment(data) if isinstance(orjson.loads(data), dict) else None
    except ValueError:
        return None


def verbatim(text: str) -> object:
    """Return text that is known to be JSON, for use inside a value for `dumps`. It is written unchanged."""
    return orjson.Fragment(text)


def unquoted_object(text: str) -> str:
    """Return the JSON object in a JSON string, or else the text: some models and clients encode arguments twice."""
    if not text.lstrip().startswith('"'):
        return text
    try:
        inner = loads(text)
    except JsonError:
        return text
    return inner if isinstance(inner, str) and is_json_object(inner) else text


def unfenced(text: str) -> str:
    """Return a text without white space around it, and without the code fence that models put around JSON."""
    bare = text.strip()
    opening = _FENCE_LINE.match(bare) if bare.endswith(_FENCE) else None
    return bare if opening is None else bare[opening.end() : -len(_FENCE)].strip()


def loads_text(text: str) -> object:
    """Parse JSON in a string, such as the arguments of a tool call. Raises JsonError if the text is not valid JSON."""
    return loads(text)


def is_json_object(text: str) -> bool:
    """Return whether a text is exactly one JSON object (RFC 8259), which any JSON parser accepts.

    Unlike `loads`, it accepts no NaN and no byte order mark. White space around the object does not matter, and a lone
    surrogate in an escape is valid JSON.
    """
    if exceeds_outside_strings(text, _MAX_BYTES_OUTSIDE_STRINGS):
        return False
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        try:
            return isinstance(json.loads(text, parse_constant=refuse_constant), dict)
        except (ValueError, RecursionError):
            return False


def refuse_constant(word: str) -> None:
    """Raise ValueError. For `json.loads`, which would accept NaN and Infinity."""
    raise ValueError(word)


def unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the members of an object. For `json.loads`, whose callers sign or verify what they read.

    Raises ValueError if a member occurs twice, so that two readers may take different values.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice")
    return members


def as_map(value: object) -> Mapping[str, object]:
    """Return a parsed value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else _EMPTY


def as_list(value: object) -> Sequence[object]:
    """Return a parsed value if it is an array, else an empty one."""
    return value if isinstance(value, list) else ()


def read_str(source: Mapping[str, object], key: str) -> str | None:
    """Return the string of a member, which may be empty, or None if it is not a string."""
    value = source.get(key)
    return value if isinstance(value, str) else None


def read_int(source: Mapping[str, object], key: str) -> int | None:
    """Return an integer of at most 63 bits, or None if the member is not one. `3.0` and `"3"` count as integers."""
    value = source.get(key)
    if type(value) is int and 0 <= value < _INT64:
        return value
    number = _whole(value)
    return number if number is not None and -_INT64 <= number < _INT64 else None


def read_count(source: Mapping[str, object], key: str) -> int:
    """Return a count, such as a number of tokens, or 0 if it is missing, negative, too large or not an integer.

    Counts are below 2**53, so that every reader of JSON reads their sums exactly (RFC 8259, section 6).
    """
    number = read_int(source, key)
    return number if number is not None and not number >> 53 else 0


def are_counts(source: Mapping[str, object], *keys: str) -> bool:
    """Return whether each named member is missing, null, or a number that `read_count` does not change.

    A text does not count here.
    """
    for key in keys:
        value = source.get(key)
        if value is not None and (type(value) is str or (number := _whole(value)) is None or number >> 53):
            return False
    return True


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else None


def read_float(source: Mapping[str, object], key: str) -> float | None:
    """Return the number of a member as a float, or None if it is not a number or too large for a float."""
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def read_map(source: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return the object of a member, or an empty one if it is not an object."""
    return as_map(source.get(key))


def parent_object(source: Mapping[str, object], path: str) -> tuple[Mapping[str, object], str]:
    """Return the object that contains a dotted path, or an empty one, and the last name of the path."""
    *outer, last = path.split(".")
    for name in outer:
        source = read_map(source, name)
    return source, last


def read_list(source: Mapping[str, object], key: str) -> Sequence[object]:
    """Return the array of a member, or an empty one if it is not an array."""
    return as_list(source.get(key))


def repair_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates by U+FFFD, so that the text can be encoded."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def repair_escapes(text: str, *, last: bool = False) -> tuple[str, str]:
    r"""Replace escapes of half a surrogate pair in a piece of JSON text by that of U+FFFD.

    The piece begins where an escape may begin. The second text belongs to the next piece: an escape that is not whole,
    or the first half of a pair. `last`: no other piece follows.

    Examples:
        >>> repair_escapes(r'"\ud83d\ude00 \ud83d!"', last=True)[0] == r'"\ud83d\ude00 \ufffd!"'
        True
    """
    if "\\" not in text:
        return text, ""
    held = ""
    if not last:
        held = next((one[0] for one in _ESCAPES.finditer(text) if one["open"]), "")
    return _ESCAPES.sub(_whole_escape, text[: len(text) - len(held)]), held


def _whole_escape(escape: re.Match[str]) -> str:
    if escape["half"]:
        return r"\ufffd"
    # At the end of a text, the first half of a pair may stand before an escape that is cut off.
    return rf"\ufffd{escape[0][6:]}" if len(escape["open"] or "") >= 6 else escape[0]


def split_high_surrogate(text: str) -> tuple[str, str]:
    """Return the text without a trailing high surrogate, and that surrogate. The next piece may have its other half."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""
