"""Test how a recorded case shares members with the file that it is based on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from providers.conformance.recordings import patch_between, patched

_NAMES = st.sampled_from("abc")
_VALUES = st.recursive(st.integers(0, 2) | st.lists(st.integers(0, 1)), lambda inner: st.dictionaries(_NAMES, inner))
_OBJECTS = st.dictionaries(_NAMES, _VALUES)


@given(base=_OBJECTS, wanted=_OBJECTS)
def test_only_the_difference_is_written_and_gives_the_whole_case(base: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert patched(base, patch_between(base, wanted)) == wanted
    assert patch_between(base, base) == {}
