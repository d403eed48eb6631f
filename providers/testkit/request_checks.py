"""Read the parts of a request that several simulators share: required fields, texts, and the order of roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.failures import InvalidRequest
from providers.json_values import as_list, as_map, read_str


def find_alternation_error(roles: Sequence[str]) -> int | None:
    """Return the index of the first message that breaks the alternation of user and assistant, or None.

    Consecutive tool results are allowed.
    """
    last_turn = ""
    for index, role in enumerate(roles):
        if role in ("system", "developer"):
            continue
        turn = "assistant" if role == "assistant" else "user"
        if turn == last_turn and not (role == "tool" and roles[index - 1] == "tool"):
            return index
        last_turn = turn
    return None


def required_text(source: Mapping[str, object], name: str) -> str:
    """Return the string at `name`. Raises InvalidRequest if it is missing or empty."""
    if not (text := read_str(source, name)):
        raise InvalidRequest(f"{name}: Field required", name)
    return text


def required_objects(source: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """Return the objects of the array at `name`. Raises InvalidRequest if there are none."""
    if not (entries := as_list(source.get(name))):
        raise InvalidRequest(f"{name}: at least one entry is required", name)
    return [as_map(entry) for entry in entries]


def texts_of(content: object) -> list[str]:
    """Return the texts of a content: a string is one, and so is each object with a member `text`."""
    if isinstance(content, str):
        return [content]
    return [text for entry in as_list(content) if (text := read_str(as_map(entry), "text")) is not None]
