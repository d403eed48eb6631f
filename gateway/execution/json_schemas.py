"""Check an answer by a client's JSON Schema (draft 2020-12), with bounded work.

The validator is the library `jsonschema`. A client's schema can make it need exponential work, so its work is counted:
each keyword, each subschema, and the sizes of what they look at. Little work is done at once, other work by a thread,
which pauses often, because it shares the interpreter with all requests.

`pattern`, `patternProperties` and `format` are not checked, because a pattern can need exponential time in one call.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from providers.failures import InvalidRequest
from providers.json_values import dumps

MOST_BYTES = 64 * 1024
MOST_DEPTH = 32
MOST_WORK = 100_000
"""The work for one schema or one answer: about a second. A unit takes about 6 microseconds."""
PAUSE_AFTER = 200
"""The work that a thread does without a pause."""
AT_ONCE = 500
"""The work that is done without a thread: about three milliseconds."""
_THREADS = 4
_PAUSE_S = 0.001
_MOST_CHARACTERS = 512 * 1024
_SMALL_CHARACTERS = 4096
_MESSAGE_CHARACTERS = 500
_QUOTED_CHARACTERS = 100
_QUOTED_ELEMENTS = 20
_MOST_KNOWN = 64
_UNCHECKED = frozenset({"pattern", "patternProperties", "format"})
_MAPS = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset(
    "items additionalProperties contains if then else not propertyNames unevaluatedItems unevaluatedProperties".split()
)
_AT_A_TIME = 16
"""The elements of a list or members of an object that count as one unit."""
_FIELD = "response_format"
_T = TypeVar("_T")


class TooMuchWork(Exception):
    """The schema or the answer needs more work than is allowed."""


class WorkLimit:
    """The work that is left for one schema or one answer, and what is done."""

    def __init__(self, most: int, pause: Callable[[], None] | None = None) -> None:
        """Allow `most` units, with a `pause` after each `PAUSE_AFTER` of them."""
        self.done = 0
        self._most, self._pause, self._pauses_at = most, pause, PAUSE_AFTER
        self._choices: dict[int, frozenset[str]] = {}

    def take(self, units: int = 1) -> None:
        """Count; raise TooMuchWork if it is more than is left."""
        self.done += units
        if self.done > self._most:
            raise TooMuchWork
        if self._pause is not None and self.done >= self._pauses_at:
            self._pauses_at = self.done + PAUSE_AFTER
            self._pause()

    def choices(self, values: list[Any]) -> frozenset[str]:
        """Return the values of an `enum`, which is alive as long as this object, as JSON."""
        if (known := self._choices.get(id(values))) is None:
            known = self._choices[id(values)] = frozenset([_comparable(one) for one in values])
        return known


class AnswerSchema:
    """A client's schema, ready to check answers. A JSON mode requires that every valid answer is an object.

    The keywords that are `unchecked` are passed on.
    """

    def __init__(self, data: bytes, work: WorkLimit) -> None:
        """Read a schema. Raises TooMuchWork, or InvalidRequest: it is too deep, refers elsewhere or is not a schema."""
        self.text = data.decode()
        reader = _SchemaReader(work)
        try:
            schema = msgspec.json.decode(data)
            self._checked = reader.read(schema, "#", 1)
            reader.check_references()
            problem = _problem_of(_meta_schema(), self._checked, work)
        except RecursionError:
            raise TooMuchWork from None
        if problem is not None:
            raise _refused(f"is not a schema of draft 2020-12: {problem}")
        self.unchecked = frozenset(reader.unchecked)
        self.is_object = schema.get("type") == "object"

    async def problem_of(self, text: str, share: int = 1) -> str | None:
        """Return why a text does not match, for the model, or None. A text that is not JSON is a problem too.

        `share`: how many texts share the work of an answer.
        """
        if len(text) > _MOST_CHARACTERS:
            return f"the answer cannot be checked: it has {len(text)} characters, and {_MOST_CHARACTERS} are accepted"
        try:
            return await _done(lambda work: self.problem_within(text, work), len(text), MOST_WORK // share)
        except TooMuchWork:
            return "the answer cannot be checked: it needs too much work"

    def problem_within(self, text: str, work: WorkLimit) -> str | None:
        """See `problem_of`. Raises TooMuchWork."""
        try:
            value = msgspec.json.decode(text)
        except ValueError as error:
            return f"it is not valid JSON: {error}"
        except RecursionError:
            raise TooMuchWork from None
        try:
            return _problem_of(self._checked, _quotable(value, work), work)
        except RecursionError:
            raise TooMuchWork from None


_known: dict[bytes, AnswerSchema] = {}
_threads = ThreadPoolExecutor(_THREADS, "json-schemas")
_loading = threading.Lock()
_running = threading.local()


async def answer_schema(schema: Mapping[str, object]) -> AnswerSchema:
    """Return a schema, ready to check answers. The last ones are kept. Raises InvalidRequest."""
    try:
        data = dumps(schema)
    except TypeError:  # deeper than the library goes
        raise _refused(f"is nested more than {MOST_DEPTH} levels deep") from None
    if len(data) > MOST_BYTES:
        raise _refused(f"has {len(data)} bytes, and {MOST_BYTES} are accepted")
    if (known := _known.get(data)) is None:
        try:
            known = await _done(lambda work: AnswerSchema(data, work), len(data), MOST_WORK)
        except TooMuchWork:
            raise _refused("needs too much work to check") from None
        while len(_known) >= _MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[data] = known
    return known


async def _done(job: Callable[[WorkLimit], _T], size: int, most: int) -> _T:
    """Return the result of a job: at once if it is small and the library is loaded, else from a thread."""
    if size <= _SMALL_CHARACTERS and _validator.cache_info().currsize:
        with suppress(TooMuchWork):
            return job(WorkLimit(min(AT_ONCE, most)))
    limit = WorkLimit(most, lambda: time.sleep(_PAUSE_S))
    return await asyncio.get_running_loop().run_in_executor(_threads, _in_thread, job, limit)


def _in_thread(job: Callable[[WorkLimit], _T], limit: WorkLimit) -> _T:
    _load()
    return job(limit)


def _load() -> None:
    """Import the library, in one thread at a time: two that import a package and a part of it at once can both fail."""
    with _loading:
        _meta_schema()
        _validator()


def prepare() -> None:
    """Begin to import the library, which takes a second, so that the first request needs not wait for it."""
    _threads.submit(_load)


def _refused(problem: str) -> InvalidRequest:
    return InvalidRequest(f"the schema of `{_FIELD}` {problem}", _FIELD)


class _Object(dict[str, Any]):
    """An object that is short in messages, which the library makes for each error."""

    def __repr__(self) -> str:
        return "{…}"


class _Array(list[Any]):
    """An array that is short in messages."""

    def __repr__(self) -> str:
        shown = ["[…]" if isinstance(one, list) else repr(one) for one in self[:_QUOTED_ELEMENTS]]
        return f"[{', '.join(shown)}{', …' if len(self) > _QUOTED_ELEMENTS else ''}]"


class _Text(str):
    """A text that messages do not quote: a part of it may be a part of a value, which no redaction finds."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def _quotable(value: Any, work: WorkLimit) -> Any:
    """Return a value whose parts are short in messages."""
    if isinstance(value, str):
        return value if len(value) <= _QUOTED_CHARACTERS else _Text(value)
    if isinstance(value, dict):
        members = _paced(value.items(), work)
        return _Object({_quotable(key, work): _quotable(one, work) for key, one in members})
    if isinstance(value, list):
        return _Array([_quotable(one, work) for one in _paced(value, work)])
    return value


def _paced(values: Iterable[_T], work: WorkLimit) -> Iterator[_T]:
    for at, one in enumerate(values):
        if at % 4 == 0:
            work.take()
        yield one


class _SchemaReader:
    """Reads the part of a schema that is checked, and collects the keywords that are left out."""

    def __init__(self, work: WorkLimit) -> None:
        self.unchecked: set[str] = set()
        self._work = work
        self._places: set[str] = set()
        self._references: set[str] = set()

    def read(self, schema: Any, place: str, depth: int) -> Any:
        """Return the checked part of a subschema.

        Where `patternProperties` is left out, it is not known which properties are additional ones. `$schema` goes,
        because the library takes another validator for it, whose work is not counted.
        """
        self._work.take()
        if depth > MOST_DEPTH:
            raise _refused(f"is nested more than {MOST_DEPTH} levels deep")
        self._places.add(place)
        if not isinstance(schema, dict):
            return _Object() if schema is True else schema  # the library looks at `true` without a call that is counted
        left_out = _UNCHECKED & schema.keys()
        self.unchecked |= left_out
        if "patternProperties" in left_out:
            left_out |= {"additionalProperties", "unevaluatedProperties"}
        part = _Object()
        for name, value in schema.items():
            own = f"{place}/{name}"
            is_inner_id = name == "$id" and depth > 1  # that of the whole changes no reference that is followed
            if is_inner_id or (name == "$schema" and not _is_read_alike(value)):
                raise _refused(f"has `{name}`, which is not supported: leave it out")
            if name in left_out or name in ("$schema", "$id"):
                continue
            if name in ("$ref", "$dynamicRef"):
                self._references.add(_local(value))
            if name in _MAPS and isinstance(value, dict):
                read = {key: self.read(one, f"{own}/{_escaped(key)}", depth + 1) for key, one in value.items()}
                part[name] = _Object(read)
            elif name in _LISTS and isinstance(value, list):
                part[name] = _Array([self.read(one, f"{own}/{at}", depth + 1) for at, one in enumerate(value)])
            elif name in _SINGLE:
                part[name] = self.read(value, own, depth + 1)
            else:
                part[name] = _quotable(value, self._work)
        return part

    def check_references(self) -> None:
        """Raise InvalidRequest for a reference to a place that has no subschema."""
        for reference in sorted(self._references - self._places):
            shown = reference[:_MESSAGE_CHARACTERS]
            raise _refused(f"refers to {shown!r}, where it has no subschema: use a JSON pointer such as #/$defs/NAME")


def _is_read_alike(dialect: object) -> bool:
    return isinstance(dialect, str) and ("2020-12" in dialect or "draft-07" in dialect)


def _local(reference: object) -> str:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _refused("refers to another document with `$ref`, and only references inside it are followed")
    return unquote(reference)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _problem_of(schema: Any, value: object, work: WorkLimit) -> str | None:
    """Return the first problem of a value. Raises TooMuchWork."""
    from jsonschema.exceptions import best_match, relevance

    def counted_relevance(error: Any) -> Any:
        work.take()
        return relevance(error)

    _running.work = work
    first = next(_validator()(schema).iter_errors(value), None)
    if first is None:
        return None
    best = best_match([first], key=counted_relevance) or first  # of a choice, the branch that fits best
    path = "".join(f"[{part!r}]" for part in best.absolute_path)
    problem = f"{best.message} (at ${path})"
    # It is not cut, because it may quote a value.
    return problem if len(problem) <= _MESSAGE_CHARACTERS else f"it does not match {best.validator!r}"


@cache
def _meta_schema() -> Any:
    """Return the schema of schemas as one document: its own form, with dynamic references, takes longer."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    merged: dict[str, Any] = {"type": ["object", "boolean"], "properties": {}, "$defs": {}}
    for name in ("core", "applicator", "unevaluated", "validation", "meta-data"):
        part = REGISTRY.contents(f"https://json-schema.org/draft/2020-12/meta/{name}")
        merged["properties"] |= part["properties"]
        merged["$defs"] |= part.get("$defs", {})
    merged["properties"]["definitions"] = merged["properties"]["$defs"]
    schema = json.loads(json.dumps(merged).replace('"$dynamicRef": "#meta"', '"$ref": "#"'))
    return _SchemaReader(WorkLimit(MOST_WORK)).read(schema, "#", 1)


@cache
def _validator() -> Any:
    """Return the library's validator, with counted work."""
    from jsonschema import Draft202012Validator, validators

    def counted(function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            work: WorkLimit = _running.work
            work.take(1 + (_length(value) + _length(instance)) // _AT_A_TIME)
            for error in function(validator, value, instance, schema) or ():
                work.take()
                yield error

        return keyword

    keywords: dict[str, Any] = {name: counted(function) for name, function in Draft202012Validator.VALIDATORS.items()}
    keywords["multipleOf"] = counted(_multiple_of)
    keywords |= {"uniqueItems": _unique_items, "enum": _enum, "const": _const}  # they count by themselves
    keywords |= dict.fromkeys(_UNCHECKED, lambda *_: None)  # they are left out, and a pattern must never run
    kind: Any = validators.extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]

    def counted_method(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            _running.work.take()
            return method(*arguments, **options)

        return call

    kind.evolve, kind.is_valid = counted_method(kind.evolve), counted_method(kind.is_valid)
    return kind


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _multiple_of(_: Any, divisor: Any, instance: Any, __: Any) -> Iterator[Any]:
    """Compare decimal numbers as they are written. As binary ones, 19.99 is not a multiple of 0.01."""
    is_number = isinstance(instance, int | float) and not isinstance(instance, bool)
    if is_number and _exact(instance) % _exact(divisor):
        yield _error(f"{instance!r} is not a multiple of {divisor!r}")


def _exact(number: float) -> Fraction:
    return Fraction(number if isinstance(number, int) else repr(number))


# The library compares each element with each, and all values of an `enum` at each place.


def _unique_items(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[Any]:
    if wanted and isinstance(instance, list) and len({_comparable(one) for one in instance}) < len(instance):
        yield _error("the array has equal elements, and `uniqueItems` forbids them")


def _enum(_: Any, values: Any, instance: Any, __: Any) -> Iterator[Any]:
    if _comparable(instance) not in _running.work.choices(values):
        yield _error(f"{instance!r} is not one of {values!r}")


def _const(_: Any, value: Any, instance: Any, __: Any) -> Iterator[Any]:
    if _comparable(instance) != _comparable(value):
        yield _error(f"{value!r} was expected")


def _error(message: str) -> Exception:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _comparable(value: object) -> str:
    """Return JSON that is equal for equal values: 1 and 1.0 are equal, 1 and true are not."""
    return json.dumps(_with_integers(value), sort_keys=True)


def _with_integers(value: object) -> object:
    _running.work.take()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(one) for one in value]
    if isinstance(value, dict):
        return {key: _with_integers(one) for key, one in value.items()}
    return value
