"""Which keys of the configuration are a secret or may be a reference, and what is stored and shown of their values.

The fields of the schema state it (`Sensitive`). `make generate` lists them in a file, because no process that serves
loads the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

from gateway.config.problems import KeyPath, dotted
from gateway.model.section import Sensitive
from providers.value import Value

_PASSWORD_IN_URL = re.compile(r"://[^/?#:]*:[^/?#]+@")
_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_NOT_SHOWN_WORD = "(not shown)"


class SensitiveKey(Value, frozen=True):
    """A key with a rule. In its path, `*` stands for any name, and indexes of lists are left out."""

    path: tuple[str, ...]
    rule: Sensitive

    def matches(self, path: KeyPath) -> bool:
        """Return whether this is the key of a value at the path."""
        names = [part for part in path if not isinstance(part, int)]
        return len(names) == len(self.path) and all(
            part in ("*", name) for part, name in zip(self.path, names, strict=True)
        )


@cache
def sensitive_keys() -> tuple[SensitiveKey, ...]:
    """Return every key with a rule, in the order of the schema."""
    rows = json.loads(resources.files("gateway.config").joinpath("data", "sensitive_keys.json").read_text("utf-8"))
    return tuple(SensitiveKey(tuple(path.split(".")), Sensitive(**rule)) for path, rule in rows.items())


def secret_names() -> tuple[str, ...]:
    """Return the keys of the section `secrets`, and of the file that `secrets.file` names."""
    return tuple(key.path[1] for key in sensitive_keys() if key.path[0] == "secrets" and key.rule.is_secret)


def may_refer(path: KeyPath) -> bool:
    """Return whether a reference `${…}` at this path is resolved."""
    return any(key.rule.words and key.matches(path) for key in sensitive_keys())


def places_of_references() -> str:
    """Return the places where references are resolved, for a message."""
    *words, last = dict.fromkeys(key.rule.words for key in sensitive_keys() if key.rule.words)
    return f"{', '.join(words)} and {last}"


def secrets_in_clear(values: Mapping[str, object]) -> list[str]:
    """Return the keys of the configuration that have a secret as plain text instead of a `${…}` reference."""
    return sorted({dotted(path) for path in _written((), values)})


def _written(path: KeyPath, value: object) -> Iterator[KeyPath]:
    """Yield the path of each secret that is written as text. An item of a list of secrets has the path of the list."""
    match value:
        case dict():
            for key, item in value.items():
                yield from _written((*path, str(key)), item)
        case list():
            for index, item in enumerate(value):
                yield from _written((*path, index), item)
        case str() if "${" not in value and any(key.rule.is_secret and key.matches(path) for key in sensitive_keys()):
            yield path[:-1] if isinstance(path[-1], int) else path


def without_secrets(path: KeyPath, value: object) -> object:
    """Return the value of a key with a word in place of each secret or hash of a key. References are kept."""
    if isinstance(value, dict):
        return {key: without_secrets((*path, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(path, item) for item in value]
    if isinstance(value, str) and _PASSWORD_IN_URL.search(_REFERENCE.sub("", value)):
        return _NOT_SHOWN_WORD
    is_hidden = any(not key.rule.is_shown and key.matches(path) for key in sensitive_keys())
    return _NOT_SHOWN_WORD if is_hidden and not (isinstance(value, str) and "${" in value) else value
