"""Which assistant a client means, and which names it is told where there is none such."""

from __future__ import annotations

import pytest

from gateway.service.journey import not_found


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("assistent", ("assistant",)),
        ("ASSISTANT", ("assistant",)),
        ("openai/assistant", ("assistant",)),
        ("GPT-4o", ("gpt-4o",)),
        ("siri", ("Siri",)),
        ("SIR", ("Siri",)),
        ("nothing like it", ()),
        ("", ()),
        ("x" * 100_000, ()),
    ],
)
def test_the_nearest_names_are_told_whatever_their_case(name: str, nearest: tuple[str, ...]) -> None:
    error = not_found(name, ["gpt-4o", "assistant", "Siri"])
    assert (error.nearest, error.param) == (nearest, "model")
