"""A sentence of a provider's is one, or it is not: words of a client's that an error repeats are none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import WireResponse
from providers.adapters.rows import adapter_named, adapter_of
from providers.failures import FailureKind
from providers.phrases import Phrases
from tests.providers.strategies import unhurried

INVALID, NO_MODEL = FailureKind.INVALID_REQUEST, FailureKind.MODEL_NOT_FOUND
PHRASES = Phrases(
    {
        "No model": NO_MODEL,
        "the model '{model}' is not here (7)": NO_MODEL,
        "{model}?": FailureKind.QUOTA,
        "too long: {asked} > {most}": FailureKind.CONTEXT_LENGTH,
    }
)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("No model", NO_MODEL),
        (" No model\n", NO_MODEL),
        ("the model 'a/B-1.5:free' is not here (7)", NO_MODEL),
        (f"the model '{'m' * 256}' is not here (7)", NO_MODEL),
        ("m?", FailureKind.QUOTA),
        ("too long: 208656 > 200000", FailureKind.CONTEXT_LENGTH),
        ("too long: my secret > 200000", INVALID),
        ("", INVALID),
        ("no model", INVALID),
        ("No model.", INVALID),
        ("No model\nNo model", INVALID),
        ("Invalid name: 'No model'", INVALID),
        ("the model '' is not here (7)", INVALID),
        ("the model 'a b' is not here (7)", INVALID),
        ("the model 'ä' is not here (7)", INVALID),
        (f"the model '{'m' * 257}' is not here (7)", INVALID),
        ("the model 'm' is not here 7", INVALID),
        ("what is the model 'm'?", INVALID),
    ],
)
def test_what_is_said_counts_as_a_whole(message: str, kind: FailureKind) -> None:
    assert PHRASES.kind_of(INVALID, message) is kind


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not INVALID])
def test_what_a_code_or_a_status_says_is_believed(kind: FailureKind) -> None:
    assert PHRASES.kind_of(kind, "No model") is kind


@unhurried
@given(before=st.text(min_size=1), after=st.text(min_size=1))
def test_a_prompt_that_an_error_repeats_blames_nobody_else(before: str, after: str) -> None:
    adapter = adapter_named("deepseek")
    for text in (f"{before}.Model Not Exist", f"Model Not Exist.{after}", f"{before}.Model Not Exist.{after}"):
        body = {"error": {"message": text, "type": "invalid_request_error", "code": "invalid_request_error"}}
        told = adapter.classify_error(WireResponse(400, {}, json.dumps(body).encode(), 0))
        assert told.kind is INVALID


def test_a_row_has_sentences_of_its_own() -> None:
    row = 'name = "acme"\n[dialect]\n[dialect.errors.messages]\nquota = ["{model} has nothing left"]\n'
    failed = adapter_of(row).classify_error(WireResponse(422, {}, b'{"message": "m-1 has nothing left"}', 0))
    assert (failed.kind, failed.detail) == (FailureKind.QUOTA, "m-1 has nothing left")
