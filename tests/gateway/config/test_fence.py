"""For random configs: what compiles keeps every step of every route inside its boundary, and nothing else compiles."""

from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.config.compile import Compiled
from gateway.config.problems import ConfigRejected
from providers.registry import load_registry
from providers.sites import Site
from providers.territories import Places, parse_places
from tests.kit.config_cases import compiled
from tests.kit.example_counts import examples

REGISTRY = load_registry()
WORDS = ["CN", "HK", "US", "US-CA", "DE", "FR", "CH", "SG", "@EU", "@EEA", "*", "!CN", "!US-CA", "any"]
SITES = [(name, site) for name, adapter in sorted(REGISTRY.adapters.items()) for site in sorted(adapter.sites)]
MODELS = ["gpt-6-luna", "qwen-plus", "qwen-plus-us", "gemini-3.8-flash"]
URLS = [
    "https://llm.example",
    "https://LLM.example./v1",
    "https://us.api.openai.com",
    "https://ws.us-east-1.maas.aliyuncs.com",
]

places = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)
models = st.sampled_from(MODELS)
sited = st.builds(
    lambda site, model: {"provider": site[0], "endpoint": site[1], "model": model}, st.sampled_from(SITES), models
)
own = st.builds(
    lambda provider, url, facts: {"provider": provider, "endpoint": url, "model": "m"} | facts,
    st.sampled_from(["openai-compatible", "openai", "dashscope"]),
    st.sampled_from(URLS[:2]),
    st.sampled_from([{"stores": ["US"], "processes": ["US"]}] * 3 + [{"stores": ["DE"], "processes": ["@EU"]}]),
)
bare = st.fixed_dictionaries(
    {"provider": st.just("openai-compatible"), "endpoint": st.sampled_from(URLS[2:]), "model": models}
)
contradicting = st.fixed_dictionaries(
    {"provider": st.just("openai-compatible"), "endpoint": st.sampled_from(URLS), "model": models}
    | {"stores": places, "processes": st.just(["US"])}
)
boundaries = st.sampled_from([["*"], ["*", "!CN"], ["US"], ["CN"], ["@EEA", "CH"]]) | places
names = st.sampled_from(["d0", "d1", "d2"])


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    regions = {
        "r0": {"territories": ["CN", "HK"], "boundary": draw(boundaries)},
        "r1": {"territories": ["*"], "boundary": draw(boundaries)},
    }
    return {
        "version": 1,
        "assistants": {"a": {"routes": {name: draw(st.lists(names, min_size=1, max_size=3, unique=True)) for name in regions}}},
        "regions": regions,
        "deployments": {name: draw(sited | sited | own | bare | contradicting) for name in ("d0", "d1", "d2")},
    }  # fmt: skip


def compile_values(config: dict[str, Any]) -> Compiled:
    return compiled(yaml.safe_dump(config))


def truth(config: dict[str, Any], name: str) -> tuple[Places, Places]:
    """Return where a deployment stores and processes, computed independently: by its host alone if a vendor owns it."""
    section = config["deployments"][name]
    sites: dict[str, Site] = {
        site.origin: site for adapter in REGISTRY.adapters.values() for site in adapter.sites.values()
    }
    if not section["endpoint"].startswith("https"):
        site = REGISTRY.adapters[section["provider"]].sites[section["endpoint"]]
    elif "aliyuncs" in section["endpoint"]:
        site = sites["https://dashscope-us.aliyuncs.com"]
    elif section["endpoint"] in sites:
        site = sites[section["endpoint"]]
    else:
        return parse_places(section["stores"]), parse_places(section["processes"])
    residency = site.residency_of(section["model"])
    return residency.stores, residency.processes


@pytest.mark.slow("compiles each example")
@settings(max_examples=examples(300), deadline=None)
@given(configs())
def test_compiled_routes_stay_inside_their_boundaries(config: dict[str, Any]) -> None:
    try:
        table = compile_values(config).config
    except ConfigRejected as rejection:
        event(f"rejected: {'fence' if 'outside the boundary' in str(rejection) else 'before it'}")
        return
    event("compiled")
    for name, route in config["assistants"]["a"]["routes"].items():
        boundary = parse_places(config["regions"][name]["boundary"])
        assert [step.name for step in table.assistants["a"].routes[name]] == route
        for step in route:
            stores, processes = truth(config, step)
            assert stores.within(boundary)
            assert processes.within(boundary)
            assert table.deployments[step].residency.stores == stores
            assert table.deployments[step].residency.processes == processes


@settings(max_examples=examples(200), deadline=None)
@given(configs())
def test_route_that_leaves_its_boundary_is_an_error(config: dict[str, Any]) -> None:
    for region in config["regions"].values():
        region["boundary"] = ["BR"]  # where no site and no server of these configs is
    try:
        compile_values(config)
    except ConfigRejected as rejection:
        fenced = [problem for problem in rejection.problems if "outside the boundary" in problem.message]
        other = [problem for problem in rejection.problems if problem.severity == "error" and problem not in fenced]
        assert len(fenced) + len(other) > 0
        if not other:
            assert len(fenced) == sum(map(len, config["assistants"]["a"]["routes"].values()))
    else:
        raise AssertionError("a config that leaves every boundary was accepted")
