"""A value that is quick to make is the value that the slow way makes, and as frozen."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.record import AttemptRecord
from providers.chat import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChoiceFinish,
    Failed,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    SystemMessage,
    ToolCall,
    ToolCallDelta,
    Usage,
    UserMessage,
)
from providers.values import changer, maker, quick
from providers.wire import WireRequest, WireResponse

QUICK = (
    *(AssistantMessage, ChatCompletion, ChatRequest, Choice, ToolCall, ToolCallDelta, Usage),
    *(ChoiceFinish, Failed, Opened, ReasoningDelta, RefusalDelta),
    *(SystemMessage, UserMessage, WireRequest, WireResponse, AttemptRecord),
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


make_quick, make_slow = maker(Quick), maker(Slow)


def values(value: object) -> list[object]:
    return [getattr(value, item.name) for item in fields(value)]  # type: ignore[arg-type]


@given(
    st.lists(st.integers(), max_size=4),
    st.fixed_dictionaries({}, optional={name: st.integers() for name in ("first", "second", "third", "fourth")}),
)
def test_it_takes_and_refuses_the_same_arguments(arguments: list[int], named: dict[str, int]) -> None:
    def made(make: Callable[..., object]) -> object:
        try:
            return values(make(*arguments, **named))
        except TypeError:
            return None

    assert made(Quick) == made(Slow) == made(make_quick) == made(make_slow)


def test_a_default_that_is_made_is_made_anew() -> None:
    one, other, third = Quick(1), Quick(1), make_quick(1)
    assert one == other == third
    assert len({id(made.third) for made in (one, other, third)}) == 3


@pytest.mark.parametrize("by", [lambda cls: cls, maker], ids=["class", "maker"])
@pytest.mark.parametrize("cls", QUICK, ids=lambda cls: cls.__name__)
def test_it_is_frozen_and_slotted(cls: type, by: Callable[[type], Callable[..., Any]]) -> None:
    needed = [item for item in inspect.signature(cls).parameters.values() if item.default is item.empty]
    made = by(cls)(*["x"] * len(needed))
    assert type(made) is cls
    assert made == cls(*["x"] * len(needed))
    name = fields(made)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, "y")
    with pytest.raises(FrozenInstanceError):
        delattr(made, name)
    assert not hasattr(made, "__dict__")
    assert replace(made) == made == copy.copy(made) == pickle.loads(pickle.dumps(made))  # noqa: S301
    assert repr(made).startswith(f"{cls.__qualname__}(")


@given(st.fixed_dictionaries({}, optional={name: st.integers() for name in ("first", "second", "third", "fourth")}))
def test_it_is_changed_as_any_dataclass_is(changes: dict[str, Any]) -> None:
    one = Quick(1, "c", [2], "d")
    changed = changer(Quick)(one, **changes)
    assert type(changed) is Quick
    assert values(changed) == values(replace(one, **changes))
    assert values(one) == [1, "c", [2], "d"]
    with pytest.raises(FrozenInstanceError):
        changed.first = 2  # type: ignore[misc]


def test_a_field_that_there_is_not_is_no_change() -> None:
    with pytest.raises(AttributeError):
        changer(Quick)(Quick(1), fifth=1)


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
