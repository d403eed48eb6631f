"""Read vendors' lists of models and their ends: bytes in, values out. `model_lists.toml` has a row for each vendor.

Of a list only names, days and known states are read, because its text is not to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache

from providers.catalogue import FactsFile
from providers.json_values import JsonError, as_list, as_map, loads, read_str
from providers.value import Value

_FIRST_YEAR, _LAST_YEAR = 2015, 2100
_MOST_MARK = 1000


class ModelList(Value, frozen=True):
    """How a vendor lists its models. The file describes the keys."""

    path: str
    single: str = ""
    host: str = ""
    headers: tuple[str, ...] = ()
    entries: str = "data"
    name: str = "id"
    prefix: str = ""
    aliases: str = ""
    end: str = ""
    dearer: str = ""
    state: str = ""
    states: Mapping[str, str] = {}
    size: str = ""
    after: str = ""
    next: str = ""
    more: str = ""
    unlisted: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()

    def listed_name(self, model: str) -> str:
        """Return the name of a deployment's model as the list has it."""
        label, _, rest = model.partition(".")
        return rest if label in self.cut else model


class ListedModel(Value, frozen=True):
    """The statements of a list about a model."""

    state: str = ""
    """Its state: `gone`, `leaving`, `other`, or empty if none is stated."""
    on: date | None = None
    """The day of its end in UTC, or None."""
    is_unreadable: bool = False
    """One of its days is stated, and is not from 2015 to 2100."""
    dearer_on: date | None = None
    """The day in UTC from which on it costs more, or None."""


@cache
def model_lists() -> Mapping[str, ModelList]:
    return FactsFile(__package__, "model_lists").read_as(dict[str, ModelList])


def read_page(body: bytes, row: ModelList) -> tuple[dict[str, ListedModel], str]:
    """Return the models of a page by name, and the mark of the next page, or an empty text.

    An alias never replaces a name. Raises JsonError if the body is not a list of models.
    """
    page = as_map(loads(body))
    names, aliases = dict[str, ListedModel](), dict[str, ListedModel]()
    entries = page.get(row.entries)
    if not isinstance(entries, list):
        raise JsonError("no list of models")
    for entry in entries:
        model = read_model(entry, row)
        names[str(as_map(entry)[row.name]).removeprefix(row.prefix)] = model
        aliases.update((str(alias), model) for alias in as_list(as_map(entry).get(row.aliases)))
    is_last = not row.next or (row.more != "" and page.get(row.more) is not True)
    mark = "" if is_last else read_str(page, row.next) or ""
    if len(mark) > _MOST_MARK:
        raise JsonError("the mark of the next page is too long")
    return aliases | names, mark


def read_model(entry: object, row: ModelList) -> ListedModel:
    """Return what an entry states about its model. Raises JsonError if it has no name."""
    if not read_str(as_map(entry), row.name):
        raise JsonError("no model")
    word = _member(entry, row.state)
    state = row.states.get(word, "other") if isinstance(word, str) and word else ""
    try:
        dearer_on = _day(_member(entry, row.dearer))
        return ListedModel(state, _day(_member(entry, row.end)), dearer_on=dearer_on)
    except (ValueError, OverflowError, OSError):
        return ListedModel(state, is_unreadable=True)


def _member(value: object, path: str) -> object:
    for name in path.split("."):
        value = as_map(value).get(name)
    return value if path else None


def _day(value: object) -> date | None:
    """Return the UTC day of a day or time in text (ISO 8601) or of Unix seconds. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        moment = datetime.fromtimestamp(value, UTC)
    else:
        raise ValueError("no time")
    day = (moment.astimezone(UTC) if moment.tzinfo is not None else moment).date()
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise ValueError("no time of a model")
    return day
