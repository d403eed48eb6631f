"""A use that is not chat has all its places: each row of the table is complete."""

import pytest

from gateway.api.inputs import INPUT_DIALECTS, google_input_dialect
from gateway.config.input_routes import _LACKS
from gateway.config.schema.routing import AssistantSection
from gateway.model.served import INPUTS, USES
from providers.conformance.test_inputs import ANSWERS
from providers.stated_uses import StatedUses


def test_paths_of_the_uses_are_those_of_the_dialects() -> None:
    assert [path for row in INPUTS.values() for path in row.paths] == [*INPUT_DIALECTS]
    methods = [method for row in INPUTS.values() for method in row.methods]
    assert all(google_input_dialect(method, "assistant") is not None for method in methods)


@pytest.mark.parametrize("use", INPUTS)
def test_use_has_its_key_its_words_and_its_checks(use: str) -> None:
    assert use in USES
    assert use in AssistantSection.model_fields
    assert use in _LACKS
    assert use == "moderations" or hasattr(StatedUses, use)
    assert use == "speech" or use in ANSWERS  # speech is a stream, which `test_audio.py` of the kit checks
