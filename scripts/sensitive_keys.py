"""List the keys of the config schema, and generate the file of those whose values are secrets or references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator

from gateway.config.sensitive_keys import SensitiveKey
from gateway.features.configuration import GatewayFile
from gateway.model.section import PlainSection, Sensitive


@dataclass(frozen=True, slots=True)
class SchemaKey:
    """A key of the schema.

    Attributes:
        path: Its path without the indexes of lists. `*` stands for any name.
        is_hidden: Whether its value is left out of `repr`.
        rule: The rule that its field states, if any.
    """

    path: tuple[str, ...]
    is_hidden: bool
    rule: Sensitive | None


def sensitive_keys_json() -> str:
    """Return gateway/config/data/sensitive_keys.json."""
    rows = {".".join(key.path): asdict(key.rule) for key in sensitive_keys_of(GatewayFile)}
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def sensitive_keys_of(model: type) -> list[SensitiveKey]:
    """Return the keys of a section with a rule, in the order of the schema."""
    return [SensitiveKey(key.path, key.rule) for key in keys_of(model) if key.rule is not None]


def keys_of(model: type, path: tuple[str, ...] = ()) -> Iterator[SchemaKey]:
    """Yield each key of a section that has no keys of its own, or that has a rule."""
    if issubclass(model, BaseModel):
        named = {name: (info.alias or name, not info.repr) for name, info in model.model_fields.items()}
    else:
        named = {it.name: (it.metadata.get("alias", it.name), not it.repr) for it in fields(model)}  # type: ignore[arg-type]
    hints = get_type_hints(model, include_extras=True)
    for name, (key, is_hidden) in named.items():
        rules = [it for it in getattr(hints[name], "__metadata__", ()) if isinstance(it, Sensitive)]
        here = (*path, key, "*") if _has_names(hints[name]) else (*path, key)
        sections = dict.fromkeys(_sections(hints[name]))
        if rules and sections:
            yield SchemaKey((*here, "*"), is_hidden, rules[0])
        if not sections or (rules and _has_short_form(hints[name])):
            yield SchemaKey(here, is_hidden, rules[0] if rules else None)
        for section in sections:
            yield from keys_of(section, here)


def _has_names(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(map(_has_names, get_args(annotation)))


def _has_short_form(annotation: Any) -> bool:
    """Return whether a section in a list may be written as a text."""
    return isinstance(annotation, BeforeValidator) or any(
        map(_has_short_form, (*get_args(annotation), *getattr(annotation, "__metadata__", ())))
    )


def _sections(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or (is_dataclass(annotation) and issubclass(annotation, PlainSection))
    ):
        yield annotation
    else:
        for each in get_args(annotation):
            yield from _sections(each)
