"""Sites at one host with different pins: each has its own facts, and a URL selects the site without a promise."""

import pytest

from gateway.model.deployment import Deployment
from providers.territories import ANYWHERE, parse_places
from tests.kit.config_cases import SOUND, compiled, edited, more, rejected, sections, with_deployment

US = parse_places(["US"])


def deployment(line: str) -> Deployment:
    text = with_deployment(f"{line}, api_key: '${{US_KEY}}'")
    return compiled(text).config.deployments["x"]


def test_model_that_supports_the_pin_stays_in_its_territory() -> None:
    x = deployment("provider: anthropic, model: claude-opus-5-5, endpoint: us, attests: [us-workspace]")
    assert (x.residency.stores, x.residency.processes, x.unmet) == (US, US, ())
    assert x.target.pins == {"inference_geo": "us"}
    assert x.origin == "https://api.anthropic.com"


def test_promise_of_the_pin_requires_an_attested_workspace() -> None:
    x = deployment("provider: anthropic, model: claude-opus-5-5, endpoint: us")
    assert x.unmet == ("us-workspace",)


@pytest.mark.parametrize("model", ["claude-opus-4-5", "claude-haiku-4-5-20251001", "some-model"])
def test_model_without_the_pin_has_no_known_residency(model: str) -> None:
    x = deployment(f"provider: anthropic, model: {model}, endpoint: us, attests: [us-workspace], capabilities: []")
    assert (x.residency.stores, x.residency.processes) == (ANYWHERE, ANYWHERE)


def test_url_of_the_host_is_the_site_without_a_promise() -> None:
    x = deployment("provider: anthropic, model: claude-opus-5-5, endpoint: 'https://api.anthropic.com'")
    assert (x.site, x.residency.processes, dict(x.target.pins)) == ("global", ANYWHERE, {})


def test_a_route_to_the_site_without_a_promise_does_not_compile_for_a_boundary() -> None:
    line = 'x: {provider: anthropic, model: claude-opus-5-5, endpoint: global, api_key: "${US_KEY}"}'
    text = sections(
        deployments=more("deployments", line), assistants=edited(SOUND["assistants"], ("us: [chatgpt-us]", "us: [x]"))
    )
    assert any("outside the boundary of region 'us'" in problem.message for problem in rejected(text))
