"""A public kit judges the four dialects, and the schemas of its standards judge each event of a stream.

The kit is llm-comply. It skips its cases of reasoning by the name of the model, so the assistants are called as the
models are. The acceptance suite of Open Responses is written in another language: its HTTP cases are those of the kit
with the same ids, and the judge of their answers is here the same schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_one_region, running_gateway

EXTRA = "make install-sdks installs the kit"
kit = pytest.importorskip("llm_comply", reason=EXTRA)
cli = pytest.importorskip("llm_comply.cli", reason=EXTRA)
config = pytest.importorskip("llm_comply.config", reason=EXTRA)
runner = pytest.importorskip("llm_comply.runner", reason=EXTRA)
schema = pytest.importorskip("llm_comply.schema", reason=EXTRA)
cases = pytest.importorskip("llm_comply.tests", reason=EXTRA)
# The kit resolves references in a way that jsonschema calls old.
pytestmark = [
    pytest.mark.slow("starts a gateway and a server of each vendor"),
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning"),
]
VERSION = "0.5.0"
MODELS = {"gpt-5": "openai", "claude-opus-4-5": "anthropic", "gemini-3.5-flash": "gemini"}
NOT_OFFERED = frozenset({"compact-response"})
"""The cases that take the 404 of an endpoint that the gateway does not have as passed, with a warning."""
SUITE = {
    "basic-response": True,
    "assistant-phase": True,
    "response-output-phase-schema": True,
    "streaming-response": True,
    "system-prompt": True,
    "tool-calling": True,
    "image-input": True,
    "multi-turn": True,
    "compact-response": False,
    "compact-missing-model": False,
}
"""The HTTP cases of the acceptance suite of Open Responses 2026-04-24, and whether the gateway offers them."""
OF_THE_KIT = {"streaming-usage", "reasoning-summary", "error-handling"}
"""The cases of the kit for Open Responses that the suite does not have."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    simulators = load_simulators().simulators
    servers = {model: SimulatorServer(simulators[vendor], f"site {vendor}") for model, vendor in MODELS.items()}
    with SimulatorThread(servers) as thread:
        paths = {"gemini": "/v1beta"}
        written = config_of_one_region({
            model: {"provider": vendor, "model": model, "endpoint": thread[model].origin + paths.get(vendor, "/v1")}
            for model, vendor in MODELS.items()
        })  # fmt: skip
        folder = tmp_path_factory.mktemp("config")
        with running_gateway(written.write(folder), {"KEY": "k"}) as process:
            yield process


def judged(gateway: GatewayProcess, form: str, model: str, path: str = "/v1", **more: Any) -> Mapping[str, Any]:
    """Return the result of each case of a dialect, by its id."""
    asked = config.ComplianceConfig(f"{gateway.url}{path}", APP_KEY, model, **more)
    file = cli._SPEC_FILES[form]
    loader = schema.SpecLoader(file and str(Path(kit.__file__).parent / "specs" / file))
    results = runner.TestRunner(asked, cases.get_tests(form), loader).run_all().results
    for it in results:
        print(f"llm-comply {kit.__version__}, {form}, {it.id}: {it.status.value} {it.errors} {it.warnings}")
    return {it.id: it for it in results}


@pytest.mark.parametrize(("form", "model", "path", "more", "number", "warned"), [
    ("open-responses", "gpt-5", "/v1", {}, 13, NOT_OFFERED),
    ("openai-chat", "gpt-5", "/v1", {}, 9, frozenset()),
    ("anthropic", "claude-opus-4-5", "/v1", {"auth_header": "x-api-key", "use_bearer_prefix": False,
      "extra_headers": {"anthropic-version": "2023-06-01"}}, 9, frozenset()),
    ("google-genai", "gemini-3.5-flash", "", {"auth_header": "x-goog-api-key", "use_bearer_prefix": False}, 9, frozenset()),
])  # fmt: skip
def test_each_case_of_the_kit_passes(
    gateway: GatewayProcess, form: str, model: str, path: str, more: Any, number: int, warned: frozenset[str]
) -> None:
    results = judged(gateway, form, model, path, **more)
    assert (kit.__version__, len(results)) == (VERSION, number)
    assert {id: it.errors for id, it in results.items() if it.status.value != "passed"} == {}
    assert {id for id, it in results.items() if it.warnings} == warned


def test_each_case_of_the_suite_is_decided(gateway: GatewayProcess) -> None:
    """A new case of a later kit or suite fails here until a developer decides about it."""
    assert {it.id for it in cases.get_tests("open-responses")} == {*SUITE, *OF_THE_KIT}
