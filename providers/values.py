"""Frozen values that are cheap to make: what a request makes by the dozen.

A frozen dataclass writes each of its fields through `object.__setattr__`, which costs ten times a plain assignment.
Here the object is of a thawed twin class for as long as it takes to assign the fields, and frozen ever after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, ParamSpec, TypeVar

__all__ = ["changer", "maker", "quick"]

_T = TypeVar("_T")
_P = ParamSpec("_P")
# `object.__setattr__(self, "__class__", …)` without the way there.
_thaw: Callable[[object, type], None] = object.__dict__["__class__"].__set__


def quick(cls: type[_T]) -> type[_T]:
    """The class with a cheaper `__init__`: `@quick` above `@dataclass(frozen=True, slots=True)`.

    It pays from two fields on; with fewer the two changes of class cost what they save.
    """
    made = _function(cls, "__init__", "self", "_thaw(self, _thawed)", "self.__class__ = _frozen")
    made.__doc__, made.__annotations__ = cls.__init__.__doc__, cls.__init__.__annotations__
    cls.__init__ = made  # type: ignore[method-assign]  # that is what it is for
    return cls


def maker(cls: Callable[_P, _T]) -> Callable[_P, _T]:
    """The constructor of a frozen class with slots as a plain function, for what every request makes: `cls(…)` at half
    the price, since a class is called through C and a function isn't."""
    made: Callable[_P, _T] = _function(cls, "make", None, "self = _thawed()", "self.__class__ = _frozen; return self")
    return made


def changer(cls: Callable[..., _T]) -> Callable[..., _T]:
    """`dataclasses.replace` for the values of a frozen class with slots, at a sixth of the price for many fields."""
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # a dataclass, as for the others
    copied = "\n ".join(f"self.{name} = value.{name}" for name in names)
    scope: dict[str, Any] = {"_thawed": _thawed(cls), "_frozen": cls}
    exec(  # noqa: S102  # of the class's own field names, as in `_function`
        f"def change(value, /, **changes):\n self = _thawed()\n {copied}\n"
        " for name in changes: setattr(self, name, changes[name])\n self.__class__ = _frozen\n return self",
        scope,
    )
    change: Callable[..., _T] = scope["change"]
    return change


def _thawed(cls: Any) -> type:
    # Same slots, so that an object may be the one and the other; no kin, whose `__setattr__` would be the slow one.
    return type(cls.__name__, (), {"__slots__": tuple(field.name for field in fields(cls))})


def _function(cls: Any, title: str, first: str | None, begin: str, end: str) -> Any:
    """A function of the class's fields that begins so, assigns them, and ends so."""
    scope: dict[str, Any] = {"_thaw": _thaw, "_thawed": _thawed(cls), "_frozen": cls}
    parameters, lines = [first] if first is not None else [], [begin]
    for field in fields(cls):
        name = value = field.name
        if field.default_factory is not MISSING:
            scope[f"_made_{name}"] = field.default_factory
            scope[f"_default_{name}"] = MISSING
            value = f"_made_{name}() if {name} is _default_{name} else {name}"
        else:
            scope[f"_default_{name}"] = field.default
        required = field.default is MISSING and field.default_factory is MISSING
        parameters.append(name if required else f"{name}=_default_{name}")
        lines.append(f"self.{name} = {value}")
    # As the standard library's dataclasses do it: the names are those of the class's own fields.
    exec(f"def {title}({', '.join(parameters)}):\n " + "\n ".join([*lines, end]), scope)  # noqa: S102  # as said above
    made = scope[title]
    made.__qualname__ = f"{cls.__qualname__}.{title}"
    return made
