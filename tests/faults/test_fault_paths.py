"""Each fault of the table at every other path that accepts a prompt: one clear error, or a complete answer."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.conftest import AT_ONCE, FaultGateway, FaultGateways, mark_of
from tests.kit.fault_table import FAULTS
from tests.kit.prompt_paths import ASKING_FORMS, Outcome, PromptForm

pytestmark = pytest.mark.slow("many faults end with a time limit")


CASES = {
    f"{fault.name}.{'stream' if stream else 'json'}.alone{mark_of(form)}": (fault, form, stream)
    for fault in FAULTS
    for form in ASKING_FORMS
    for stream in form.shapes
    if form.name != "chat" and (fault.streams if stream else fault.json)
}
"""Each fault with each form and its shapes, by the assistant that is asked. Chat is tested in `test_faults`."""


@pytest.fixture(scope="module")
def answers(gateways: FaultGateways) -> dict[str, tuple[int, str, Outcome]]:
    def ask(assistant: str) -> tuple[int, str, Outcome]:
        fault, form, stream = CASES[assistant]
        return asked(gateways.of(fault, alone=True), form, assistant, stream)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(CASES, pool.map(ask, CASES), strict=True))


def asked(setup: FaultGateway, form: PromptForm, assistant: str, stream: bool) -> tuple[int, str, Outcome]:
    """Return the status, the id and the content of an answer."""
    path, body = form.write(assistant, "Hi", stream)
    request_id = uuid.uuid4().hex
    with setup.client.stream("POST", path, json=body, headers={"x-request-id": request_id}) as response:
        kind, text, is_read = response.headers["content-type"], "", False
        for line in response.iter_lines():
            text += f"{line}\n"
            # A stream as one array is JSON only at its end.
            if (not is_read and kind.startswith("text/event-stream") and form.outcome_of(text, kind).text) or (
                not is_read and stream and '"text":"' in line
            ):
                is_read = True
                setup.faulty.has_been_read(assistant.replace(".", "/"))
        return response.status_code, request_id, form.outcome_of(text, kind)


@pytest.mark.parametrize("assistant", CASES)
def test_client_without_a_fallback_gets_a_complete_answer_or_one_clear_error(
    gateways: FaultGateways, answers: dict[str, tuple[int, str, Outcome]], assistant: str
) -> None:
    fault, _, stream = CASES[assistant]
    status, request_id, outcome = answers[assistant]
    assert (status, outcome.code) == fault.alone[stream]
    assert outcome.done == (outcome.code is None), "only a complete answer has an end"
    line = gateways.of(fault, alone=True).line_of(request_id)
    assert (line["status"], line.get("code")) == (status, outcome.code)
