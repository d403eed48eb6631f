"""Compile keys of deployments: limits of calls at once, pinned sites, cloud projects and forms of credentials."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.problems import dotted
from gateway.model.deployment import Concurrency, Deployment
from providers.auth import apply
from providers.territories import ANYWHERE, parse_places
from providers.wire import WireRequest
from tests.kit.config_cases import SOUND, compiled, edited, more, rejected, sections, with_deployment
from tests.kit.google_account import ACCOUNT

X = "x: {provider: openai-compatible, model: m, endpoint: 'https://llm.example', stores: DE, processes: DE"


def with_x(keys: str) -> str:
    return sections(deployments=more("deployments", f"{X}, {keys}}}"))


@pytest.mark.parametrize(
    ("written", "meant"), [("50", Concurrency(50)), ("{limit: 50, queue: 0, wait: 500ms}", Concurrency(50, 0, 0.5))]
)
def test_concurrency_limit_is_compiled(written: str, meant: Concurrency) -> None:
    assert compiled(with_x(f"concurrency: {written}")).config.deployments["x"].concurrency == meant


def test_deployment_without_concurrency_has_no_limit() -> None:
    table = compiled(sections()).config
    assert {section.concurrency for section in table.deployments.values()} == {None}


US = parse_places(["US"])


def pinned(line: str) -> Deployment:
    text = with_deployment(f"{line}, api_key: '${{US_KEY}}'")
    return compiled(text).config.deployments["x"]


def test_model_that_supports_the_pin_stays_in_its_territory() -> None:
    x = pinned("provider: anthropic, model: claude-opus-5-5, endpoint: us, attests: [us-workspace]")
    assert (x.residency.stores, x.residency.processes, x.unmet) == (US, US, ())
    assert x.target.pins == {"inference_geo": "us"}
    assert x.origin == "https://api.anthropic.com"


def test_promise_of_the_pin_requires_an_attested_workspace() -> None:
    x = pinned("provider: anthropic, model: claude-opus-5-5, endpoint: us")
    assert x.unmet == ("us-workspace",)


@pytest.mark.parametrize("model", ["claude-opus-4-5", "claude-haiku-4-5-20251001", "some-model"])
def test_model_without_the_pin_has_no_known_residency(model: str) -> None:
    x = pinned(f"provider: anthropic, model: {model}, endpoint: us, attests: [us-workspace], capabilities: []")
    assert (x.residency.stores, x.residency.processes) == (ANYWHERE, ANYWHERE)


def test_url_of_the_host_is_the_site_without_a_promise() -> None:
    x = pinned("provider: anthropic, model: claude-opus-5-5, endpoint: 'https://api.anthropic.com'")
    assert (x.site, x.residency.processes, dict(x.target.pins)) == ("global", ANYWHERE, {})


def test_a_route_to_the_site_without_a_promise_does_not_compile_for_a_boundary() -> None:
    line = 'x: {provider: anthropic, model: claude-opus-5-5, endpoint: global, api_key: "${US_KEY}"}'
    text = sections(
        deployments=more("deployments", line), assistants=edited(SOUND["assistants"], ("us: [chatgpt-us]", "us: [x]"))
    )
    assert any("outside the boundary of region 'us'" in problem.message for problem in rejected(text))


EU = parse_places(["@EU"])
NEW = "provider: vertex, model: gemini-3.5-flash, api_key: '${KEY}'"


def deployment(text: str, key: str = "ya29.made-up") -> Deployment:
    return compiled(with_deployment(text), {"KEY": key}).config.deployments["x"]


def refused(text: str, key: str = "ya29.made-up") -> list[str]:
    problems = rejected(with_deployment(text), {"KEY": key})
    return [f"{dotted(problem.path[2:])}: {problem.message}" for problem in problems if problem.severity == "error"]


def test_the_project_is_a_part_of_the_path() -> None:
    x = deployment(f"{NEW}, endpoint: eu, project: my-project")
    assert x.origin == "https://aiplatform.eu.rep.googleapis.com"
    assert x.target.base_path == "/v1/projects/my-project/locations/eu"
    assert (x.residency.stores, x.residency.processes) == (EU, EU)


def test_only_models_that_a_location_serves_itself_stay_there() -> None:
    old = deployment("provider: vertex, model: gemini-2.5-flash, endpoint: eu, project: p, api_key: '${KEY}'")
    assert (old.residency.stores, old.residency.processes) == (EU, ANYWHERE)
    everywhere = deployment(f"{NEW}, endpoint: global, project: p")
    assert (everywhere.residency.stores, everywhere.residency.processes) == (ANYWHERE, ANYWHERE)
    region = deployment(f"{NEW}, endpoint: europe-west4, project: p")
    assert (region.residency.stores, region.residency.processes) == (parse_places(["NL"]), ANYWHERE)


def test_a_url_of_the_host_brings_its_own_project() -> None:
    host = "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations"
    x = deployment(f"{NEW}, endpoint: '{host}/eu'")
    assert (x.site, x.target.base_path) == ("eu", "/v1/projects/p/locations/eu")


def test_key_in_a_wrong_form_is_an_error() -> None:
    key = json.dumps({"type": "service_account", "client_email": "secret-name@x"})
    found = refused(f"{NEW}, endpoint: eu, project: p", key)
    assert found == ["api_key: KEY is not a service account's key: it lacks private_key"]


def test_a_key_file_may_have_lines(tmp_path: Path) -> None:
    """A service account's key as Google gives it out: JSON over several lines."""
    file = tmp_path / "key.json"
    file.write_text(json.dumps(ACCOUNT, indent=2) + "\n")
    x = deployment(edited(f"{NEW}, endpoint: eu, project: p", ("${KEY}", f"${{file:{file}}}")))
    (secret,) = x.credentials
    assert json.loads(secret.reveal()) == ACCOUNT
    wire = apply(x.adapter.auth, WireRequest("POST", "/x", (), b""), x.origin, secret, 1_795_000_000.0)
    assert dict(wire.headers)["authorization"].count(".") == 2


def test_a_workspace_is_a_part_of_the_host() -> None:
    qwen = "provider: dashscope, model: qwen3.7-plus, api_key: '${KEY}'"
    x = deployment(f"{qwen}, endpoint: frankfurt, project: llm-abc")
    assert (x.site, x.origin) == ("frankfurt", "https://llm-abc.eu-central-1.maas.aliyuncs.com")
    assert deployment(f"{qwen}, endpoint: frankfurt, project: LLM-Abc").origin == x.origin
    by_url = deployment(f"{qwen}, endpoint: 'https://llm-abc.eu-central-1.maas.aliyuncs.com/api/v1'")
    assert (by_url.site, by_url.origin, by_url.target) == (x.site, x.origin, x.target)
    assert by_url.residency == x.residency


SIMULATED = """
import sys, time
from providers.auth import apply
from providers.registry import load_registry
from providers.testkit.simulator import IncomingRequest, load_simulators
from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import ChatRequest, UserMessage
from gateway.config.credentials import SIMULATED_KEY

sys.modules["botocore"] = None
for name, adapter in load_registry().adapters.items():
    if not adapter.sites:
        continue
    print(name)
    site = min(adapter.sites.values(), key=lambda one: one.name)
    target = Target("any-model", site.base_path or "/v1", UNKNOWN_MODEL)
    wire = adapter.build_request(ChatRequest("any-model", (UserMessage("Hi"),)), target)
    wire = apply(adapter.auth, wire, "http://127.0.0.1:8000", SIMULATED_KEY, time.time())
    headers = {"host": "127.0.0.1:8000", **{key.lower(): value for key, value in wire.headers}}
    query = "&".join(f"{key}={value}" for key, value in wire.query)
    load_simulators().simulators[name].read_request(IncomingRequest(wire.method, wire.path, query, headers, wire.body))
"""


@pytest.mark.slow("imports the gateway in a new process")
def test_simulated_providers_accept_their_keys_without_a_signing_library() -> None:
    done = subprocess.run([sys.executable, "-c", SIMULATED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1] + done.stderr
    assert len(done.stdout.splitlines()) > 20
