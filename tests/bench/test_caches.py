"""Each dialect has the direct client's share of cached tokens through the gateway, whatever the scene does."""

from __future__ import annotations

import pytest

from bench.caches import FORMS, SCENES, Form, measure


@pytest.mark.slow("asks whole gateways for each dialect")
@pytest.mark.parametrize(("scene", "form"), [*zip([*SCENES, "two instances"], FORMS, strict=True)], ids=str)
def test_conversations_stay_in_the_caches(scene: str, form: Form) -> None:
    result = measure(scene, form, turns=12)
    assert result.direct.share > 1 / 3
    assert result.is_good, result.fields()
