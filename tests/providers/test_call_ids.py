"""Test call ids that carry a signature through a client."""

import pytest
from hypothesis import given

from providers.formats.reasoning_state import join_call_id, split_call_id
from tests.kit.chat_strategies import unhurried, words

SEPARATOR = "~sig~"
ids = words.filter(lambda text: SEPARATOR not in text and not text.endswith(("~", "~s", "~si", "~sig")))


@unhurried
@given(ids, words)
def test_joined_call_id_is_split_again(call_id: str, signature: str) -> None:
    outward = join_call_id(call_id, signature)
    assert outward != call_id
    assert split_call_id(outward) == (call_id, signature)


@unhurried
@given(ids)
def test_id_without_a_signature_is_unchanged(call_id: str) -> None:
    assert join_call_id(call_id, None) == call_id
    assert split_call_id(call_id) == (call_id, None)


@pytest.mark.parametrize("outward", [f"{SEPARATOR}s", f"a{SEPARATOR}", SEPARATOR, "", "a~sig", "a~SIG~b"])
def test_id_that_only_looks_joined_is_unchanged(outward: str) -> None:
    assert split_call_id(outward) == (outward, None)


def test_signature_may_contain_the_separator() -> None:
    assert split_call_id(join_call_id("a", f"x{SEPARATOR}y")) == ("a", f"x{SEPARATOR}y")
