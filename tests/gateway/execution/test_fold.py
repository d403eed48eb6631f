"""An answer that is folded out of a stream: where it breaks off, whose fault that was."""

from __future__ import annotations

import pytest

from gateway.execution.deadline import Deadline
from gateway.execution.fold import whole_of
from providers.failures import FailureKind, ProviderFailed
from tests.gateway.execution.test_stream import WHOLE, chunk, live


@pytest.mark.parametrize(
    ("left_s", "kind"),
    [(5.0, FailureKind.INTERRUPTED), (0.0005, FailureKind.DEADLINE), (-1.0, FailureKind.DEADLINE)],
)
async def test_a_time_that_was_over_is_no_providers_failure(left_s: float, kind: FailureKind) -> None:
    stream, pieces = live(chunk("a"))
    await stream.begin()
    with pytest.raises(ProviderFailed) as raised:
        await whole_of(stream, Deadline(100.0, 110.0, 101.0, lambda: 110.0 - left_s))
    assert raised.value.failure.kind is kind
    assert pieces.closed >= 1


async def test_a_whole_answer_is_one_however_late_it_is() -> None:
    stream, _ = live(*WHOLE)
    await stream.begin()
    completion = await whole_of(stream, Deadline(100.0, 110.0, 101.0, lambda: 111.0))
    assert completion.choices[0].message.content == "ab"
