"""Check an answer by a client's JSON Schema (draft 2020-12), with bounded work.

The validator is the library `jsonschema`, whose keywords are counted here: a schema of a client can need exponential
work. `pattern`, `patternProperties` and `format` are not checked, because a pattern can need exponential time in one
call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from providers.failures import InvalidRequest
from providers.json_values import dumps

MOST_BYTES = 64 * 1024
MOST_DEPTH = 32
_MOST_STEPS = 100_000
"""The keywords that are evaluated for one answer: about a second."""
_AT_ONCE_STEPS = 500
"""With so many, an answer is checked without a thread: about two milliseconds."""
_SMALL_BYTES = 4096
_MESSAGE_CHARACTERS = 500
_UNCHECKED = frozenset({"pattern", "patternProperties", "format"})
_MAPS = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset(
    "items additionalProperties contains if then else not propertyNames unevaluatedItems unevaluatedProperties".split()
)
_FIELD = "response_format"


class _TooMuchWork(Exception):
    """The answer needs more steps than are allowed."""


class AnswerSchema:
    """A client's schema, ready to check answers.

    Attributes:
        text: The schema as JSON, for the model.
        is_object: Whether every valid answer is an object, which a JSON mode requires.
        unchecked: The keywords of the schema that are passed on and not checked.
    """

    def __init__(self, schema: Mapping[str, object]) -> None:
        """Read a schema. Raises InvalidRequest if it is too large or deep, refers elsewhere or is not a schema."""
        try:
            data = dumps(schema)
        except TypeError:  # deeper than the library goes
            raise _refused(f"is nested more than {MOST_DEPTH} levels deep") from None
        if len(data) > MOST_BYTES:
            raise _refused(f"has {len(data)} bytes, and {MOST_BYTES} are accepted")
        self.text = data.decode()
        found: set[str] = set()
        checked = _checked_part(dict(schema), found, 1)
        self.unchecked = frozenset(found)
        self.is_object = schema.get("type") == "object"
        _check_references(checked)
        from jsonschema.exceptions import SchemaError

        steps = _Steps(_MOST_STEPS)
        try:
            _meta_validator()(steps).check(checked)
        except SchemaError as error:
            raise _refused(f"is not a schema of draft 2020-12: {_short(error.message)}") from None
        except (_TooMuchWork, RecursionError):
            raise _refused("needs too much work") from None
        self._checked = checked

    async def problem_of(self, text: str) -> str | None:
        """Return why a text does not match, for the model, or None. A text that is not JSON is a problem too."""
        if len(text) <= _SMALL_BYTES:
            try:
                return self._problem(text, _AT_ONCE_STEPS)
            except _TooMuchWork:
                pass
        try:
            return await asyncio.to_thread(self._problem, text, _MOST_STEPS)
        except _TooMuchWork:
            return "the answer cannot be checked: it needs too much work"

    def _problem(self, text: str, steps: int) -> str | None:
        try:
            value = json.loads(text, parse_constant=_no_constant)
            errors = _validator()(_Steps(steps)).errors(self._checked, value)
            first = next(errors, None)
        except ValueError as error:
            return f"it is not valid JSON: {error}"
        except RecursionError:
            raise _TooMuchWork from None
        if first is None:
            return None
        path = "".join(f"[{part!r}]" for part in first.absolute_path)
        return _short(f"{first.message} (at ${path})")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARACTERS else f"{text[:_MESSAGE_CHARACTERS]}…"


def _refused(problem: str) -> InvalidRequest:
    return InvalidRequest(f"the schema of `{_FIELD}` {problem}", _FIELD)


def _checked_part(schema: object, unchecked: set[str], depth: int) -> Any:
    """Return the part of a schema that is checked, and note the other keywords.

    Where `patternProperties` is left out, it is not known which properties are additional ones.
    """
    if depth > MOST_DEPTH:
        raise _refused(f"is nested more than {MOST_DEPTH} levels deep")
    if not isinstance(schema, dict):
        return schema
    left_out = _UNCHECKED & schema.keys()
    unchecked |= left_out
    if "patternProperties" in left_out:
        left_out |= {"additionalProperties", "unevaluatedProperties"}
    part: dict[str, Any] = {}
    for name, value in schema.items():
        if name in left_out:
            continue
        if name in _MAPS and isinstance(value, dict):
            part[name] = {key: _checked_part(one, unchecked, depth + 1) for key, one in value.items()}
        elif name in _LISTS and isinstance(value, list):
            part[name] = [_checked_part(one, unchecked, depth + 1) for one in value]
        elif name in _SINGLE:
            part[name] = _checked_part(value, unchecked, depth + 1)
        else:
            part[name] = value
    return part


def _check_references(schema: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a reference to another document, or to nothing."""
    for reference in _references(schema):
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _refused("refers to another document with `$ref`, and only references inside it are followed")
        if reference.startswith("#/") or reference == "#":
            place: Any = schema
            for part in reference[2:].split("/") if len(reference) > 1 else ():
                key = part.replace("~1", "/").replace("~0", "~")
                if isinstance(place, list) and key.isdigit() and int(key) < len(place):
                    place = place[int(key)]
                elif isinstance(place, dict) and key in place:
                    place = place[key]
                else:
                    raise _refused(f"refers to {_short(reference)}, which it does not have")


def _references(schema: object) -> Iterator[object]:
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef"):
                yield value
            elif name == "$id" or (name == "$schema" and "2020-12" not in str(value) and "draft-07" not in str(value)):
                raise _refused(f"has `{name}`, which is not supported: leave it out")
            elif name not in ("const", "enum", "default", "examples"):
                yield from _references(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)


class _Steps:
    """Counts evaluated keywords."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, count: int = 1) -> None:
        """Count; raise _TooMuchWork if none is left."""
        self.left -= count
        if self.left < 0:
            raise _TooMuchWork


class _Counted:
    """A validator whose keywords are counted."""

    def __init__(self, base: Any, steps: _Steps) -> None:
        from jsonschema import validators

        def counted(function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
            def keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
                steps.take()
                yield from function(validator, value, instance, schema) or ()

            return keyword

        def unique(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[Any]:
            """Compare the elements by their JSON: the library compares each with each."""
            if not wanted or not isinstance(instance, list):
                return
            steps.take(len(instance))
            seen = {json.dumps(_comparable(one), sort_keys=True) for one in instance}
            if len(seen) < len(instance):
                from jsonschema.exceptions import ValidationError

                yield ValidationError("the array has equal elements, and `uniqueItems` forbids them")

        keywords = {name: counted(function) for name, function in base.VALIDATORS.items()}
        keywords["uniqueItems"] = unique
        self._kind: Any = validators.extend(base, keywords)  # type: ignore[no-untyped-call]

    def check(self, schema: Mapping[str, Any]) -> None:
        """Raise SchemaError if it is not a schema."""
        from jsonschema.exceptions import SchemaError, best_match

        meta = self._kind(self._kind.META_SCHEMA)
        error = best_match(meta.iter_errors(schema))
        if error is not None:
            raise SchemaError(error.message)

    def errors(self, schema: Mapping[str, Any], value: object) -> Iterator[Any]:
        """Yield the errors of a value."""
        yield from self._kind(schema).iter_errors(value)


def _comparable(value: object) -> object:
    """Return a value whose JSON is equal for equal values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    if isinstance(value, dict):
        return {key: _comparable(one) for key, one in value.items()}
    return value


@cache
def _validator() -> Callable[[_Steps], _Counted]:
    from jsonschema import Draft202012Validator

    return lambda steps: _Counted(Draft202012Validator, steps)


_meta_validator = _validator
