"""A provider that wants the operator's cloud project in its path: with it, without it, and where it doesn't belong."""

import json
from pathlib import Path

from gateway.config.problems import dotted
from gateway.model.deployment import Deployment
from providers.auth import apply
from providers.territories import ANYWHERE, parse_places
from providers.wire import WireRequest
from tests.kit.config_cases import compiled, edited, rejected, with_deployment
from tests.kit.google_account import ACCOUNT

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
