"""Run the conformance kit in this process, without pytest, until its first failure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from providers.conformance import test_answers, test_errors, test_garbage, test_purity, test_requests, test_streams
from providers.conformance.selection import Selection

_MODULES = (test_requests, test_errors, test_answers, test_streams, test_garbage)
# These take seconds each and check the readers of bytes, which the other tests also use.
_LONG = (
    *("random", "endless", "every_split", "byte_by_byte", "one_wrong_value", "deep_or_huge", "truncated"),
    *("any_body", "first_event", "in_the_middle"),
)


def first_failure(selection: Selection, only: str = "") -> str | None:
    """Return the first test of the kit that fails, with its message, or None. Long tests run last.

    With `only`, the test with this name runs alone.
    """
    for test, arguments in _calls(selection, only):
        try:
            test(**arguments)
        except BaseException as error:  # `pytest.fail` raises a BaseException
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return f"{test.__name__}: {error}"
    return None


def _calls(selection: Selection, only: str) -> Iterator[tuple[Callable[..., None], dict[str, Any]]]:
    tests = [
        test
        for module in ((*_MODULES, test_purity) if only else _MODULES)
        for name, test in vars(module).items()
        if name.startswith("test_") and only in ("", name) and inspect.getmodule(test) is module
    ]
    assert tests, f"there is no test {only}"
    for test in sorted(tests, key=lambda one: any(word in one.__name__ for word in _LONG)):
        axes = [[{name: one} for one in values] for name, values in _parameters(test, selection).items()]
        for mark in getattr(test, "pytestmark", ()):
            names, values = mark.args[:2]
            names = [one.strip() for one in names.split(",")] if isinstance(names, str) else list(names)
            axes.append([_named(names, getattr(value, "values", value)) for value in values])
        for chosen in product(*axes):
            yield test, {name: value for part in chosen for name, value in part.items()}


def _parameters(test: Callable[..., None], selection: Selection) -> dict[str, Any]:
    # Hypothesis leaves only the arguments that it does not fill in the signature.
    return dict(selection.parameters(frozenset(inspect.signature(test).parameters)))


def _named(names: list[str], value: Any) -> dict[str, Any]:
    if len(names) == 1 and not (isinstance(value, tuple) and len(value) == 1):
        return {names[0]: value}
    return dict(zip(names, value, strict=True))
