"""A public kit judges the four dialects, and the schemas of its standards judge each event of a stream.

The kit is llm-comply. It skips its cases of reasoning by the name of the model, so the assistants are called as the
models are. The acceptance suite of Open Responses is written in another language. Its HTTP cases stand here by their
ids and by what they ask.
"""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.kit.case_files import tables_of
from tests.kit.event_grammar.responses import read_stream
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
ROOT = Path(__file__).parents[2]
SPECS = Path(kit.__file__).parent / "specs"
MODELS = {"gpt-5": "openai", "claude-opus-4-5": "anthropic", "gemini-3.5-flash": "gemini"}
NOT_OFFERED = frozenset({"compact-response"})
"""The cases that take the 404 of an endpoint that the gateway does not have as passed, with a warning."""
ASK: Any = {"type": "message", "role": "user", "content": "Say hello in three words."}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 32).decode()


_TABLES = tables_of(__file__)
SUITE: dict[str, Any] = _TABLES["suite"]
"""The HTTP cases of the acceptance suite of Open Responses 2026-04-24 by their ids, with what each asks.

The suite judges its own schema in one case without a request. Two cases are about compaction, which is not offered.
"""
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
    loader = schema.SpecLoader(file and str(SPECS / file))
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


@pytest.mark.parametrize("page", ["README.md", "README.zh-Hans.md", "docs/use/responses.md"])
def test_page_names_the_version_of_the_kit(page: str) -> None:
    assert f"llm-comply {VERSION}" in (ROOT / page).read_text("utf-8")


def test_each_case_of_the_suite_is_decided() -> None:
    """A new case of a later kit or suite fails here until a developer decides about it."""
    assert {it.id for it in cases.get_tests("open-responses")} == {*SUITE, *OF_THE_KIT}


@pytest.mark.parametrize("name", [name for name, body in SUITE.items() if body is not None])
def test_case_of_the_suite_gets_a_complete_and_valid_answer(gateway: GatewayProcess, name: str) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    answer = httpx.post(f"{gateway.url}/v1/responses", json={"model": "gpt-5", **SUITE[name]}, headers=headers)
    assert answer.status_code == 200, answer.text
    loader = schema.SpecLoader(str(SPECS / "openresponses.json"))
    response = read_stream(answer.content).response if "stream" in SUITE[name] else answer.json()
    assert loader.validate(response, "ResponseResource") == []
    assert (response["status"], bool(response["output"])) == ("completed", True)
    kinds = {item["type"] for item in response["output"]}
    assert "function_call" in kinds if name == "tool-calling" else "message" in kinds


@pytest.mark.parametrize("body", [{"model": "gpt-5", "input": [ASK]}, {"input": [ASK]}])
def test_compaction_is_not_offered(gateway: GatewayProcess, body: Any) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    answer = httpx.post(f"{gateway.url}/v1/responses/compact", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "shorten it in the client" in answer.json()["error"]["message"]
