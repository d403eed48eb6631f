"""Anthropic's official client for Vertex AI against the simulator: its requests are accepted, and it understands the answers."""

from collections.abc import Iterator
from typing import Any

import pytest

from providers.testkit import Scenario, SimulatorServer, SimulatorThread, parse_fault
from providers.vendors.anthropic.simulator import VERTEX
from tests.kit.vendor_checks import CheckedSimulator

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")
pytestmark = [pytest.mark.slow("imports an SDK"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODEL = "claude-opus-4-8@default"
HELLO = [{"role": "user", "content": "Hello!"}]
AT = "/v1/projects/my-project/locations/europe-west1/publishers/anthropic/models"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorServer]:
    with SimulatorThread({"vertex": SimulatorServer(CheckedSimulator(VERTEX), "Claude at europe-west1")}) as thread:
        yield thread["vertex"]


@pytest.fixture
def sdk(simulator: SimulatorServer) -> Iterator[Any]:
    simulator.scenario = Scenario()
    place = {"region": "europe-west1", "project_id": "my-project", "base_url": f"{simulator.origin}/v1"}
    with anthropic.AnthropicVertex(**place, access_token="ya29.made-up", max_retries=0) as client:
        yield client


def test_text_and_path(sdk: Any, simulator: SimulatorServer) -> None:
    answer = sdk.messages.create(model=MODEL, max_tokens=64, messages=HELLO)
    assert answer.content[0].text.startswith("Hello! I am Claude at europe-west1")
    assert simulator.requests[-1].path == f"{AT}/{MODEL}:rawPredict"


def test_stream_is_read(sdk: Any, simulator: SimulatorServer) -> None:
    with sdk.messages.stream(model=MODEL, max_tokens=64, messages=HELLO) as stream:
        assert "".join(stream.text_stream).startswith("Hello! I am Claude")
    assert simulator.requests[-1].path == f"{AT}/{MODEL}:streamRawPredict"


def test_tokens_are_counted_as_the_answer_reports_them(sdk: Any, simulator: SimulatorServer) -> None:
    counted = sdk.messages.count_tokens(model="claude-opus-4-8", messages=HELLO)
    assert simulator.requests[-1].path == f"{AT}/count-tokens:rawPredict"
    assert counted.input_tokens == sdk.messages.create(model=MODEL, max_tokens=64, messages=HELLO).usage.input_tokens
    with pytest.raises(anthropic.BadRequestError, match="is not supported for token counting"):
        sdk.messages.count_tokens(model=MODEL, messages=HELLO)


@pytest.mark.parametrize("fault", ["401", "404", "429", "503"])
def test_errors_have_the_classes_of_the_client(sdk: Any, simulator: SimulatorServer, fault: str) -> None:
    simulator.scenario = Scenario(faults=(parse_fault(fault),))
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(model=MODEL, max_tokens=64, messages=HELLO)
    assert caught.value.status_code == int(fault)
