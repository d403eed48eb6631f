"""How a plain dataclass describes a section of the config file, so that pydantic can validate into it.

A section that needs no resolving has one form: a frozen dataclass of this package, whose fields have their keys, bounds
and meanings as metadata. Workers use these classes and do not load pydantic. Therefore this module implements protocols
of pydantic without importing it, and returns core schemas in their documented form, as mappings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

from providers.value import Value

_T = TypeVar("_T")


class UnitError(ValueError):
    """A value of the config file that cannot be parsed: what is wrong, and how to fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class PlainSection:
    """Base of a section that is used as it is. Lets pydantic make it from a mapping where other types are strict."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(source) | {"strict": False}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        # Older versions of pydantic leave these two out for a plain dataclass.
        json_schema = handler(schema)
        handler.resolve_ref_schema(json_schema).update(description=cls.__doc__, additionalProperties=False)
        return json_schema


def key(
    meaning: str,
    *,
    default: Any = MISSING,
    name: str | None = None,
    written: Any = MISSING,
    repr: bool = True,
    kw_only: bool = False,
    **rules: Any,
) -> Any:
    """Return the field of a key of a plain section.

    Args:
        meaning: The description in the JSON Schema and on the page of config keys.
        default: The value without the key. A key without a default is required.
        name: The key in the file, where it differs from the name of the field.
        written: The default as the file would have it, where it has another form there. None if it cannot be written.
        repr: Whether the value is shown in a `repr`.
        kw_only: Whether it is a keyword of the class only, as a required key after keys with defaults must be.
        rules: Bounds that pydantic knows, such as `ge` and `pattern`.
    """
    named = {"alias": name} if name is not None else {}
    shown = {"json_schema_extra": {"default": written}} if written is not MISSING else {}
    return field(
        default=default, repr=repr, kw_only=kw_only, metadata={"description": meaning, **named, **shown, **rules}
    )


@dataclass_transform(frozen_default=True, field_specifiers=(key,))
def section(cls: type[_T]) -> type[_T]:
    """Make a subclass of `PlainSection` a frozen dataclass."""
    return dataclass(frozen=True, slots=True)(cls)


def members_of(value: PlainSection) -> dict[str, Any]:
    """Return the members of a section by their names, for a value that has them and what was resolved."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def default_as_written(value: Any) -> Any:
    """Return a default as the file would have it. A section that is a default has the default of each of its fields.

    A key whose default depends on another key is left out.
    """
    if not isinstance(value, PlainSection):
        return value
    written = {
        field.metadata.get("alias", field.name): field.metadata.get("json_schema_extra", {}).get(
            "default", default_as_written(getattr(value, field.name))
        )
        for field in fields(value)
    }
    return {name: default for name, default in written.items() if default is not None}


@dataclass(frozen=True, eq=False)
class FileForm:
    """In `Annotated[type, FileForm(…)]`: how the file writes a value of the type, and its JSON Schema.

    has_pattern_error: pydantic compares the text with the pattern of the schema, and `parse` cannot fail.
    """

    parse: Callable[[Any], Any]
    schema: Mapping[str, Any]
    has_pattern_error: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        parse = _made_by(self.parse)
        if self.has_pattern_error:
            text = {"type": "str", "pattern": self.schema["pattern"]}
            return {"type": "function-after", "function": parse, "schema": text}
        return {"type": "function-plain", "function": parse}

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return dict(self.schema)


@dataclass(frozen=True, eq=False)
class Listed:
    """In `Annotated[tuple[item, ...], Listed()]`: the file has a list. A value that is compiled is immutable.

    least: The least number of items.
    """

    least: int = 0

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        listed = {"type": "list", "items_schema": handler.generate_schema(get_args(source)[0])}
        return {
            "type": "function-after",
            "function": _made_by(get_origin(source)),
            "schema": _at_least(self.least, listed),
        }


@dataclass(frozen=True, eq=False)
class Entries:
    """In `Annotated[tuple[tuple[name, value], ...], Entries()]`: the file has a mapping, kept in its order.

    least: The least number of entries.
    """

    least: int = 0

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        names, values = map(handler.generate_schema, get_args(get_args(source)[0]))
        mapping = {"type": "dict", "keys_schema": names, "values_schema": values}
        function = _made_by(lambda entries: tuple(entries.items()))
        return {"type": "function-after", "function": function, "schema": _at_least(self.least, mapping)}


def word_of(words: type[StrEnum], meaning: str) -> FileForm:
    """Return the form of a value that is one of these words. `meaning`: what they are, for the error."""
    names = [*map(str, words)]

    def parse(value: object) -> StrEnum:
        if isinstance(value, str) and value in names:
            return words(value)
        raise UnitError(f"must be {meaning}", f"one of {', '.join(names)}")

    return FileForm(parse, {"enum": names})


def _made_by(function: Callable[[Any], Any]) -> dict[str, Any]:
    return {"type": "no-info", "function": function}


def _at_least(least: int, schema: dict[str, Any]) -> dict[str, Any]:
    return schema | ({"min_length": least} if least else {})


def _one_or_two(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    texts = [item for item in items if isinstance(item, str)]
    if not 1 <= len(texts) == len(items) <= 2:
        raise UnitError("must be a text, or a list of one or two texts", "write the new one first, then the former one")
    return texts


_TEXT = {"type": "string"}
ONE_OR_TWO = FileForm(_one_or_two, {"anyOf": [_TEXT, {"items": _TEXT, "maxItems": 2, "minItems": 1, "type": "array"}]})
"""In `Annotated[list[str], ONE_OR_TWO]`: a secret, or its new and its former version."""


class Sensitive(Value, frozen=True):
    """In `Annotated[type, Sensitive(…)]`: a key whose value is a secret or may be a reference, or that no plan shows.

    At a section, it is also the rule of its unknown keys.
    """

    words: str = ""
    """The name in the message about a reference at another place. Empty if its value cannot be a reference."""
    is_secret: bool = True
    """Whether the history must not store the value in plain text."""
    is_shown: bool = False
    """Whether a plan shows a value that is not a reference."""


@dataclass(frozen=True)
class OrOff:
    """In `Annotated[section | None, OrOff()]`: the file has a mapping, or a word (`off` or false), which is None.

    The example is a mapping with one of its keys.
    """

    off: Literal["off", False] = "off"
    example: str = "{failures: 5}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:
        return {"type": "function-before", "function": _made_by(self._parse), "schema": handler(source)}

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:
        choices = handler(schema)["anyOf"]
        off = {"const": self.off, "type": "string" if self.off else "boolean"}
        return {"anyOf": [off if it == {"type": "null"} else it for it in choices]}

    def _parse(self, value: object) -> object:
        if value is self.off or (self.off and value == self.off):
            return None
        if isinstance(value, dict | PlainSection):
            return value
        word = "the word off" if self.off else "false"
        raise UnitError(f"must be a mapping of its keys, or {word}", f"write `{word.split()[-1]}`, or {self.example}")
