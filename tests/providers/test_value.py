"""A value behaves like a frozen dataclass, although it is not one, and never shows a key or a prompt."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.record import AttemptRecord
from providers import chat
from providers.value import Value
from providers.value import replace as change
from providers.wire import WireRequest, WireResponse

QUICK = (
    *(
        chat.AssistantMessage,
        chat.ChatCompletion,
        chat.ChatRequest,
        chat.Choice,
        chat.ToolCall,
        chat.ToolCallDelta,
        chat.Usage,
    ),
    *(chat.ChoiceFinish, chat.Failed, chat.Opened, chat.ReasoningDelta, chat.RefusalDelta),
    *(chat.SystemMessage, chat.UserMessage, WireRequest, WireResponse, AttemptRecord),
)


@dataclass(frozen=True, slots=True)
class Slow:
    """A value with every kind of field."""

    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)
    fourth: str | None = None


class Quick(Value, frozen=True):
    """The same fields as a frozen dataclass."""

    first: int
    second: str = "b"
    third: list[int] = []  # noqa: RUF012  # msgspec makes a list for each object
    fourth: str | None = None


def values(value: object) -> list[object]:
    return [getattr(value, item.name) for item in fields(value)]  # type: ignore[arg-type]


@given(
    st.lists(st.integers(), max_size=4),
    st.fixed_dictionaries({}, optional={name: st.integers() for name in ("first", "second", "third", "fourth")}),
)
def test_value_class_accepts_the_same_arguments_as_a_dataclass(arguments: list[int], named: dict[str, int]) -> None:
    def made(make: Callable[..., object]) -> object:
        try:
            return values(make(*arguments, **named))
        except TypeError:
            return None

    assert made(Quick) == made(Slow)


def test_default_factory_makes_a_new_value_each_time() -> None:
    one, other, third = Quick(1), Quick(1), replace(Quick(1), second="b")
    assert one == other == third
    assert one.third is not other.third


@pytest.mark.parametrize("cls", QUICK, ids=lambda cls: cls.__name__)
def test_value_class_is_frozen_and_slotted(cls: type) -> None:
    needed = [item for item in inspect.signature(cls).parameters.values() if item.default is item.empty]
    made: Any = cls(*["x"] * len(needed))
    assert type(made) is cls
    assert made == cls(*["x"] * len(needed))
    name = fields(made)[0].name
    with pytest.raises(AttributeError):
        setattr(made, name, "y")
    with pytest.raises(AttributeError):
        delattr(made, name)
    assert not hasattr(made, "__dict__")
    assert replace(made) == made == copy.copy(made) == pickle.loads(pickle.dumps(made))  # noqa: S301
    assert repr(made).startswith(f"{cls.__qualname__}(")


def test_an_error_of_a_frozen_dataclass_is_an_attribute_error_too() -> None:
    assert issubclass(FrozenInstanceError, AttributeError)


@given(st.fixed_dictionaries({}, optional={name: st.integers() for name in ("first", "second", "third", "fourth")}))
def test_value_is_replaced_like_a_dataclass(changes: dict[str, Any]) -> None:
    one = Quick(1, "c", [2], "d")
    changed = change(one, **changes)
    assert type(changed) is Quick
    assert values(changed) == values(replace(one, **changes)) == values(replace(Slow(1, "c", [2], "d"), **changes))
    assert values(one) == [1, "c", [2], "d"]
    with pytest.raises(AttributeError):
        changed.first = 2  # type: ignore[misc]


@pytest.mark.parametrize("by", [change, replace], ids=["change", "replace"])
def test_unknown_field_of_a_change_is_refused(by: Callable[..., object]) -> None:
    with pytest.raises(TypeError):
        by(Quick(1), fifth=1)


def test_dataclass_functions_accept_a_value() -> None:
    quick, slow = Quick(1, third=[2]), Slow(1, third=[2])
    assert is_dataclass(quick)
    assert is_dataclass(Quick)
    assert asdict(quick) == asdict(slow)
    assert [(item.name, item.default) for item in fields(quick)] == [(item.name, item.default) for item in fields(slow)]
    assert [item.default_factory is MISSING for item in fields(Quick)] == [True, True, False, True]
    assert fields(quick)[0] is fields(Quick)[0], "made once for each class"


def test_positional_patterns_match() -> None:
    match Quick(1, "c"):
        case Quick(first, second):
            assert (first, second) == (1, "c")
        case _:
            pytest.fail("no match")


def test_a_subclass_is_not_turned_into_its_base() -> None:
    class Wider(Quick, frozen=True):
        sixth: int = 0

    assert type(Wider(1)) is Wider
    assert type(change(Wider(1), sixth=2)) is type(replace(Wider(1), sixth=2)) is Wider
    assert [item.name for item in fields(Wider)] == ["first", "second", "third", "fourth", "sixth"]
    assert len(fields(Quick)) == 4


def test_a_wire_request_shows_neither_its_headers_nor_its_body() -> None:
    shown = repr(WireRequest("POST", "/v1/x", (("authorization", "Bearer sk-secret"),), b'{"prompt":1}', (("a", "b"),)))
    assert "secret" not in shown
    assert "prompt" not in shown
    assert all(word in shown for word in ("POST", "/v1/x", "'a', 'b'"))
