"""Each fault of the table at every other path that accepts a prompt: one clear error, or a complete answer."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.conftest import FaultGateway, FaultGateways, mark_of
from tests.kit.fault_table import FAULTS, Fault
from tests.kit.prompt_paths import ASKING_FORMS, Outcome, PromptForm

pytestmark = pytest.mark.slow("many faults end with a time limit")


def shapes() -> Iterator[Any]:
    """Yield each fault with each form and its shapes. Chat is tested in `test_faults`."""
    for fault in FAULTS:
        for form in ASKING_FORMS:
            for stream in form.shapes:
                if form.name != "chat" and (fault.streams if stream else fault.json):
                    yield pytest.param(fault, form, stream, id=f"{fault.name}-{form}-{'stream' if stream else 'json'}")


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


@pytest.mark.parametrize(("fault", "form", "stream"), list(shapes()))
def test_client_without_a_fallback_gets_a_complete_answer_or_one_clear_error(
    gateways: FaultGateways, fault: Fault, form: PromptForm, stream: bool
) -> None:
    setup = gateways.of(fault, alone=True)
    assistant = f"{fault.name}.{'stream' if stream else 'json'}.alone{mark_of(form)}"
    status, request_id, outcome = asked(setup, form, assistant, stream)
    assert (status, outcome.code) == fault.alone[stream]
    assert outcome.done == (outcome.code is None), "only a complete answer has an end"
    line = setup.gateway.wait_for("request", request_id=request_id)
    assert (line["status"], line.get("code")) == (status, outcome.code)
