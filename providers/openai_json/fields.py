"""Read typed values from a client's JSON. Errors name the path, such as `messages[3].content`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from providers.chat.messages import CacheTime
from providers.failures import InvalidRequest
from providers.json_values import repair_escapes


def describe(value: object) -> str:
    """Return the JSON type of a value, for an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def _wrong(path: str, expected: str, value: object) -> InvalidRequest:
    if not path:
        return InvalidRequest(f"the body must be a JSON object, not {describe(value)}")
    return InvalidRequest(f"`{path}` must be {expected}, not {describe(value)}", path)


_FORMS = {
    "messages": "`/v1/chat/completions`",
    "input": "`/v1/responses`",
    "contents": "`/v1beta/models/MODEL:generateContent`",
    "prompt": "`/v1/completions`",
}


def belongs_elsewhere(source: Mapping[str, object], key: str) -> str | None:
    """Return the field by which a body without `key` belongs to another API, or None."""
    return next((name for name in _FORMS if source.get(name) is not None), None) if key in _FORMS else None


def present(source: Mapping[str, object], key: str, path: str) -> object:
    """Return the value at `key`. Raises InvalidRequest if it is absent or null; it names the API that the body fits."""
    value = source.get(key)
    if value is None:
        other = belongs_elsewhere(source, key)
        hint = f": a body with `{other}` belongs to {_FORMS[other]}" if other else ""
        raise InvalidRequest(f"`{path}` is required{hint}", path)
    return value


def mapping(value: object, path: str) -> Mapping[str, object]:
    """Return the value if it is an object. Raises InvalidRequest. Without a path it is the whole body."""
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    return value


def items(value: object, path: str, *, at_most: int | None = None) -> list[object]:
    """Return the value if it is an array of at most `at_most` entries. Raises InvalidRequest."""
    if not isinstance(value, list):
        raise _wrong(path, "an array", value)
    if at_most is not None and len(value) > at_most:
        raise InvalidRequest(f"`{path}` has {len(value)} entries; at most {at_most} are accepted", path)
    return value


def text(source: Mapping[str, object], key: str, path: str) -> str | None:
    """Return the string at `key`, or None if it is absent or null. Raises InvalidRequest."""
    value = source.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _wrong(path, "a string", value)


def needed_text(source: Mapping[str, object], key: str, path: str) -> str:
    """Return the string at `key`. Raises InvalidRequest, also if it is absent, null or empty."""
    value = source.get(key)
    if value and isinstance(value, str):
        return value
    raise InvalidRequest(f"`{path}` is required", path) if value in (None, "") else _wrong(path, "a string", value)


BREAKPOINT = "prompt_cache_breakpoint"
"""The member by which OpenAI's API marks a part for a cache (openai 3.57, read 2026-11-29)."""
_CACHE_OPTIONS = {"mode": ("implicit", "explicit"), "ttl": ("30m", "12h")}
"""The words of options of a cache, first the usual one."""


def breakpoint_of(time: CacheTime | None) -> dict[str, object]:
    """Return the member that marks a part at OpenAI. A time has no place in it."""
    return {} if time is None else {BREAKPOINT: {"mode": "explicit"}}


def part_mark(source: Mapping[str, object], path: str) -> CacheTime | None:
    """Return how long the prompt up to this part may be cached, as Anthropic or OpenAI define it."""
    if source.get(BREAKPOINT) is not None:
        place = f"{path}.{BREAKPOINT}"
        mark = mapping(source[BREAKPOINT], place)
        choice(mark.get("mode"), f"{place}.mode", ("explicit",))
        if mark.get("ttl") is not None:
            choice(mark["ttl"], f"{place}.ttl", _CACHE_OPTIONS["ttl"])
        return cache_mark(source, path) or "5m"
    return cache_mark(source, path)


def lost_time(source: Mapping[str, object], path: str) -> str:
    """Return the name of the time of a mark that no deployment can be asked for, or an empty text."""
    mark = source.get(BREAKPOINT)
    return f"{path}.{BREAKPOINT}.ttl" if isinstance(mark, dict) and mark.get("ttl") == "12h" else ""


def check_cache_options(source: Mapping[str, object], name: str) -> bool:
    """Check the options of a cache, of which nothing is sent. Raises InvalidRequest, also if no answer is wanted."""
    options = mapping(source[name], name)
    for member, words in _CACHE_OPTIONS.items():
        if options.get(member) is not None:
            choice(options[member], f"{name}.{member}", words)
    if boolean(options, "prewarm", place := f"{name}.prewarm"):
        raise InvalidRequest(f"`{place}: true` would be a paid answer: leave it out, or use a WebSocket", place)
    return False


def lost_cache_options(options: Mapping[str, object]) -> Iterator[str]:
    """Yield the names of the options that ask for more than the usual."""
    usual = {name: words[0] for name, words in _CACHE_OPTIONS.items()}
    for name, value in options.items():
        if value not in (None, False, usual.get(name)):
            yield f"prompt_cache_options.{name}"


def cache_mark(source: Mapping[str, object], path: str) -> CacheTime | None:
    """Return how long the prompt up to here may be cached (`cache_control`), as Anthropic and OpenRouter define it."""
    if source.get("cache_control") is None:
        return None
    mark = mapping(source["cache_control"], f"{path}.cache_control")
    return "1h" if mark.get("ttl") == "1h" else "5m"


def arguments_text(source: Mapping[str, object], key: str, path: str) -> str:
    """Return the arguments of a call in the history, `{}` if there are none. Raises InvalidRequest.

    They are taken as they are: a model may have written arguments that are cut off or not JSON, and a client repeats
    them in every later turn. Half a surrogate pair, which no vendor reads, is replaced.
    """
    arguments = text(source, key, path) or ""
    return repair_escapes(arguments, last=True)[0] if arguments.strip() else "{}"


def boolean(source: Mapping[str, object], key: str, path: str) -> bool | None:
    """Return the boolean at `key`, or None if it is absent or null. Raises InvalidRequest."""
    value = source.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise _wrong(path, "a boolean", value)


def integer(source: Mapping[str, object], key: str, path: str, low: int, high: int) -> int | None:
    """Return the integer at `key`, or None if it is absent or null. Raises InvalidRequest outside the bounds."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, float):
            raise InvalidRequest(f"`{path}` must be a whole number, not {value:g}", path)
        raise _wrong(path, "a whole number", value)
    if not low <= value <= high:
        raise InvalidRequest(f"`{path}` must be between {low} and {high}", path)
    return value


def number(source: Mapping[str, object], key: str, path: str, low: float, high: float) -> float | None:
    """Return the number at `key`, or None if it is absent or null. Raises InvalidRequest outside the bounds."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(path, "a number", value)
    if not low <= value <= high:
        raise InvalidRequest(f"`{path}` must be between {low:g} and {high:g}", path)
    return value


def choice(value: object, path: str, allowed: tuple[str, ...]) -> str:
    """Return the value if it is one of the allowed words. Raises InvalidRequest."""
    if isinstance(value, str) and value in allowed:
        return value
    words = ", ".join(repr(word) for word in allowed)
    raise InvalidRequest(f"`{path}` must be one of {words}", path)
