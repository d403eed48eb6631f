"""A misspelled standard field of a request is found, and no field that a provider knows is taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.failures import InvalidRequest
from providers.matching.requirements import PARAMETERS, moves_data
from providers.openai_json import decode_request
from providers.openai_json.decode_request import CHECKS
from providers.openai_json.misspelled_fields import FIELDS, meant_field, refuse_misspelled
from providers.registry import load_registry

LETTERS = "abcdefghijklmnopqrstuvwxyz_"
ALSO_FIELDS = frozenset({"top_k", "top_a", "k", "p"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_token", "max_tokens"),
        ("messsages", "messages"),
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("max-tokens", "max_tokens"),
        ("top_p_", "top_p"),
        ("sto", "stop"),
        ("tool", "tools"),
        ("top_k", None),
        ("top_a", None),
        ("top_p", None),
        ("maxtoken", None),
        ("stop_sequences", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_name_with_one_wrong_letter_means_the_standard_field(name: str, meant: str | None) -> None:
    assert meant_field(name) == meant


@given(st.sampled_from(sorted(FIELDS)), st.integers(0, 30), st.sampled_from(LETTERS), st.sampled_from("+-="))
def test_every_change_of_one_letter_is_found(field: str, at: int, letter: str, change: str) -> None:
    at %= len(field)
    name = field[:at] + ("" if change == "-" else letter) + field[at + (change != "+") :]
    meant = meant_field(name)
    if len(name) < 3 or name in FIELDS or name in ALSO_FIELDS:
        assert meant is None
    else:
        assert meant is not None
        assert abs(len(meant) - len(name)) <= 1


def test_list_of_standard_fields_is_complete() -> None:
    assert CHECKS.keys() <= FIELDS
    assert PARAMETERS - {"strict_tools", "message_name", "image_detail", "blank_stop", "top_k"} <= FIELDS


def test_every_field_of_a_provider_and_every_data_moving_field_is_accepted() -> None:
    known = frozenset().union(*(it.capabilities.parameters for it in load_registry().adapters.values()))
    refuse_misspelled(known | moves_data(), known)


def test_field_that_a_deployment_passes_on_is_accepted() -> None:
    refuse_misspelled(["max_token"], {"max_token"})


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"model": "m", "messsages": []}, "messsages"),
        ({"mode": "m", "messages": []}, "mode"),
        ({"model": "m", "messages": None, "message": "Hello!"}, "message"),
    ],
)
def test_misspelled_required_field_is_named(body: Any, name: str) -> None:
    with pytest.raises(InvalidRequest, match="did you mean") as raised:
        decode_request(body)
    assert raised.value.param == name


@pytest.mark.parametrize("body", [{"models": ["m"], "messages": []}, {"model": "m", "messsages": None}])
def test_field_that_is_not_misspelled_does_not_explain_a_missing_one(body: Any) -> None:
    with pytest.raises(InvalidRequest, match="is required"):
        decode_request(body)
