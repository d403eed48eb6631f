"""A value that is quick to make is the value that the slow way makes, and as frozen."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.attempt import Attempt
from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, Choice, ToolCall, ToolCallDelta, Usage
from providers.values import quick
from providers.wire import WireRequest, WireResponse

QUICK = (
    *(AssistantMessage, ChatCompletion, ChatRequest, Choice, ToolCall, ToolCallDelta, Usage),
    *(WireRequest, WireResponse, Attempt),
)


@dataclass(frozen=True, slots=True)
class Slow:
    """Every kind of field."""

    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)
    fourth: str | None = field(default=None, repr=False, compare=False)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    """The same."""

    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)
    fourth: str | None = field(default=None, repr=False, compare=False)


def values(value: object) -> list[object]:
    return [getattr(value, item.name) for item in fields(value)]  # type: ignore[arg-type]


@given(
    st.lists(st.integers(), max_size=4),
    st.fixed_dictionaries({}, optional={name: st.integers() for name in ("first", "second", "third", "fourth")}),
)
def test_it_takes_and_refuses_the_same_arguments(arguments: list[int], named: dict[str, int]) -> None:
    def made(cls: type) -> object:
        try:
            return values(cls(*arguments, **named))
        except TypeError as error:
            return str(error).partition("__init__")[2]

    assert made(Quick) == made(Slow)


def test_a_default_that_is_made_is_made_anew() -> None:
    one, other = Quick(1), Quick(1)
    assert one == other
    assert one.third is not other.third


@pytest.mark.parametrize("cls", QUICK, ids=lambda cls: cls.__name__)
def test_it_is_frozen_and_slotted(cls: type) -> None:
    needed = [item for item in inspect.signature(cls).parameters.values() if item.default is item.empty]
    made = cls(*["x"] * len(needed))
    assert type(made) is cls
    name = fields(made)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, "y")
    with pytest.raises(FrozenInstanceError):
        delattr(made, name)
    assert not hasattr(made, "__dict__")
    assert replace(made) == made == copy.copy(made) == pickle.loads(pickle.dumps(made))  # noqa: S301
    assert repr(made).startswith(f"{cls.__qualname__}(")


def test_positional_patterns_match() -> None:
    match Quick(1, "c"):
        case Quick(first, second):
            assert (first, second) == (1, "c")
        case _:
            pytest.fail("no match")


def test_a_subclass_is_refused_rather_than_turned_into_its_base() -> None:
    class Wider(Quick):
        pass

    with pytest.raises(TypeError):
        Wider(1)
