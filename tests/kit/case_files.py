"""Cases of a test as data: the rows of a YAML file in `cases/`, next to the test. `tables_of` has other tables of a test.

The file has the name of the test's module without `test_`, and the rows of each test, by its name without `test_`: a
list of them, or a mapping that has them by their names. A row is a list of the values of the arguments, or the value of
the only one.
"""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import pytest
import yaml

_Test = TypeVar("_Test", bound=Callable[..., Any])


def cases(*names: str) -> Callable[[_Test], _Test]:
    """Run a test once for each of its rows. A value has the type that the test states for its argument.

    A text is the bytes of its UTF-8 where the test states `bytes`.

    Args:
        names: The names of the arguments, in the order of the values of a row.
    """

    def with_rows(test: _Test) -> _Test:
        path, hints = Path(inspect.getfile(test)), get_type_hints(test)
        folder = path.parent / "cases"
        rows = rows_in(folder / f"{path.stem.removeprefix('test_')}.yaml")[test.__name__.removeprefix("test_")]
        ids = [*rows] if isinstance(rows, dict) else None
        values = [
            [_typed(value, hints[name]) for name, value in zip(names, row if len(names) > 1 else [row], strict=True)]
            for row in (rows.values() if isinstance(rows, dict) else rows)
        ]
        return pytest.mark.parametrize(names, values, ids=ids)(test)

    return with_rows


def _typed(value: Any, hint: Any) -> Any:
    return value.encode() if hint is bytes else msgspec.convert(value, hint)


def tables_of(module: str) -> dict[str, Any]:
    """Return the tables next to a module: those of the YAML file that has its name without `test_`.

    Args:
        module: The `__file__` of the module.
    """
    path = Path(module)
    return rows_in(path.with_name(f"{path.stem.removeprefix('test_')}.yaml"))


@cache
def rows_in(path: Path) -> dict[str, list[Any] | dict[str, Any]]:
    """Return the rows in a file of cases, by the name of the test."""
    rows: dict[str, list[Any] | dict[str, Any]] = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
    return rows
