"""The assistants that a client may ask for by name, and the error for a name that is not among them."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion

ANY_ENDING = "*"
"""The end of an alias that stands for every name with the same beginning."""
_MAX_NEAREST = 3


class AssistantNotFound(Exception):
    """The client asks for an assistant that it does not have. `nearest` are similar names that it may use.

    `param` is where in the request it sent the name.
    """

    def __init__(self, name: str, nearest: tuple[str, ...], param: str = "model") -> None:
        super().__init__(name)
        self.name = name
        self.nearest = nearest
        self.param = param

    @property
    def question(self) -> str:
        """A question that suggests the nearest names; empty if there are none."""
        return f"did you mean {' or '.join(map(repr, self.nearest))}?" if self.nearest else ""


def assistants_of(config: ConfigVersion, client: Client | None) -> dict[str, Assistant]:
    """Return the assistants that this client may ask for, by every name that is listed.

    Names that only match a pattern such as `claude-*` work too. See `find_assistant`.
    """
    return {
        name: assistant
        for name, assistant in config.assistants.items()
        if not name.endswith(ANY_ENDING) and (client is None or client.may_ask(assistant.name))
    }


def find_assistant(config: ConfigVersion, client: Client | None, name: str, param: str = "model") -> Assistant:
    """Return the assistant of that name or alias, or of the longest alias with a `*` at its end that matches.

    Raises AssistantNotFound, which suggests only assistants of this client.
    """
    assistant = config.assistants.get(name) or _by_pattern(config, name)
    # Most clients have no list, and a look costs less than a call.
    if assistant is not None and (client is None or client.assistants is None or client.may_ask(assistant.name)):
        return assistant
    raise not_found(name, assistants_of(config, client), param)


def _by_pattern(config: ConfigVersion, name: str) -> Assistant | None:
    patterns = (one for one in config.assistants if one.endswith(ANY_ENDING) and name.startswith(one[:-1]))
    longest = max(patterns, key=len, default=None)
    return config.assistants[longest] if longest is not None else None


def not_found(name: str, known: Iterable[str], param: str = "model") -> AssistantNotFound:
    """Return the error for a name that is not among the known ones."""
    from difflib import get_close_matches

    by_letters = {one.casefold(): one for one in sorted(known)}
    nearest = get_close_matches(name[:200].casefold(), by_letters, n=_MAX_NEAREST, cutoff=0.5)
    return AssistantNotFound(name, tuple(by_letters[letters] for letters in nearest), param)
