"""JSON in and out, and readers that take only what is there: the border at which `Any` ends.

A provider's answer is read leniently: an absent member, null, or a member of another type are all "not there".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

import orjson

__all__ = [
    "JsonError",
    "as_list",
    "as_map",
    "dumps",
    "dumps_text",
    "dumps_texts",
    "embed_object",
    "holds_beside_texts",
    "loads",
    "loads_strictly",
    "loads_text",
    "mend_surrogates",
    "object_above",
    "read_count",
    "read_float",
    "read_int",
    "read_list",
    "read_map",
    "read_str",
    "split_high_surrogate",
    "unrounded",
]

_EMPTY: Mapping[str, object] = {}
# The log probabilities of a long answer are some of it.
_MOST_BESIDE_TEXTS_BYTES = 16 * 1024 * 1024
_INT64 = 2**63
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAYBE_BEYOND_64_BITS = re.compile(rb"[0-9]{20}")


class JsonError(ValueError):
    """The bytes are not JSON."""


def loads(data: bytes | bytearray | memoryview | str) -> object:
    """The parsed value of a provider's JSON; raises JsonError, also for one of millions of values.

    Falls back to the standard library for what vendors do send and orjson refuses: a surrogate pair that was split
    over two events; NaN or Infinity (vLLM's log probabilities), which become null, as does a number beyond every
    float; and a byte order mark, which a reader may pass over (RFC 8259, section 8.1).
    """
    if len(data) > _MOST_BESIDE_TEXTS_BYTES and holds_beside_texts(data, _MOST_BESIDE_TEXTS_BYTES):
        raise JsonError("too many values")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            text = data if isinstance(data, str) else bytes(data).decode("utf-8-sig")
            return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise JsonError("not valid JSON") from error


def unrounded(value: Mapping[str, object], data: bytes) -> Mapping[str, object]:
    """The object that `loads` read of these bytes, its whole numbers beyond 64 bits as they are written there: the fast
    way makes floats of them. What can be read in no other way stays, and what `loads` has refused, nothing of it."""
    if not value or not _MAYBE_BEYOND_64_BITS.search(data):
        return value
    try:
        return as_map(json.loads(data, parse_constant=lambda _: None, parse_float=_finite)) or value
    except (ValueError, RecursionError):
        return value


def holds_beside_texts(data: bytes | bytearray | memoryview | str, most: int) -> bool:
    """Whether JSON has more than so many bytes that stand in none of its strings, each string counted as two.

    Images and long texts are a few large strings. Of anything else each third byte may become an object of 64 bytes:
    32 MB of `[],[],` become a gigabyte, and keep everybody waiting for seconds.
    """
    if len(data) <= most:
        return False
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    if b"\\" in data:
        # In pairs, as they are read: what is left of a run tells whether the quote behind it ends the string.
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    pieces = data.split(b'"', most)
    return len(pieces) + sum(map(len, pieces[::2])) > most


loads_strictly = orjson.loads
"""The value of JSON as the standard has it, without lone surrogates; raises ValueError, also for what is no bytes."""


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def dumps(value: object) -> bytes:
    """Compact UTF-8 JSON; keys keep their order. The value must hold no lone surrogates."""
    return orjson.dumps(value)


def dumps_text(value: object) -> str:
    """The JSON text of a value that `loads` gave, whatever it holds; raises JsonError if it is nested too deeply.

    Where the fast way gives up (lone surrogates, numbers beyond 64 bits), characters are escaped.
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        try:
            return json.dumps(value, separators=(",", ":"))
        except (ValueError, RecursionError) as error:
            raise JsonError("can't be written as JSON") from error


def dumps_texts(texts: list[str], between: bytes) -> bytes:
    """The insides of these texts as JSON strings, with this between them, written in one go. No lone surrogates.

    Each is written on a line of its own, since no JSON string holds a line break. `","` would be no seam: a text that
    ends with a quote and a comma ends with it.
    """
    return orjson.dumps(texts, option=orjson.OPT_INDENT_2)[5:-3].replace(b'",\n  "', between)


def embed_object(text: str) -> object | None:
    """The JSON object that stands in a string (tool arguments), to be set into a value for `dumps`; else None.

    It is checked, and then written as it is: no number is rounded, and its depth doesn't matter.
    """
    try:
        data = text.encode("utf-8")
        return orjson.Fragment(data) if isinstance(orjson.loads(data), dict) else None
    except ValueError:
        return None


def loads_text(text: str) -> object:
    """Like `loads`, for JSON that stands in a string (tool arguments)."""
    return loads(text)


def as_map(value: object) -> Mapping[str, object]:
    """The object, or an empty one if it is something else."""
    return value if isinstance(value, dict) else _EMPTY


def as_list(value: object) -> Sequence[object]:
    """The array, or an empty one if it is something else."""
    return value if isinstance(value, list) else ()


def read_str(source: Mapping[str, object], key: str) -> str | None:
    """The string at `key`, or None. An empty string is a string."""
    value = source.get(key)
    return value if isinstance(value, str) else None


def read_int(source: Mapping[str, object], key: str) -> int | None:
    """The whole number at `key` (also written `3.0` or `"3"`) if it has at most 63 bits, or None."""
    value = source.get(key)
    if type(value) is int and 0 <= value < _INT64:
        return value
    number = _whole(value)
    return number if number is not None and -_INT64 <= number < _INT64 else None


def read_count(source: Mapping[str, object], key: str) -> int:
    """How many there are by the whole number at `key`; 0 where there is none, or one that counts nothing.

    Below 2**53, so that sums of them can be written, and are read by everybody (RFC 8259, section 6).
    """
    number = read_int(source, key)
    return number if number is not None and not number >> 53 else 0


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else None


def read_float(source: Mapping[str, object], key: str) -> float | None:
    """The number at `key` if a float can hold it, or None."""
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def read_map(source: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The object at `key`, or an empty one."""
    return as_map(source.get(key))


def object_above(source: Mapping[str, object], place: str) -> tuple[Mapping[str, object], str]:
    """The object that a dotted place lies in, or an empty one, and the name there."""
    *above, last = place.split(".")
    for name in above:
        source = read_map(source, name)
    return source, last


def read_list(source: Mapping[str, object], key: str) -> Sequence[object]:
    """The array at `key`, or an empty one."""
    return as_list(source.get(key))


def mend_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD, so that it can be encoded."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_high_surrogate(text: str) -> tuple[str, str]:
    """The text without a trailing high surrogate, and that surrogate: its other half may come in the next piece."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""
