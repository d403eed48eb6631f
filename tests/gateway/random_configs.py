"""Random configs for the properties of the fence."""

import json
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from gateway.config.problems import ConfigRejected
from gateway.model.config_version import ConfigVersion
from providers.territories import parse_places
from tests.kit.configs import table_of

TERRITORIES = ["CN", "HK", "DE", "FR", "US", "JP"]


BOUNDARIES = [["CN"], ["DE"], ["@EEA"], ["US"], ["*"], ["*", "!CN"], ["CN", "HK"]]


FACTS = ["CN", "DE", "US", "any", "FR", "HK"]


PROVIDERS = ["openai-compatible", "openai", "gemini", "dashscope"]


places = st.sampled_from(BOUNDARIES)


deployment = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(PROVIDERS),
        "stores": st.sampled_from(FACTS),
        "processes": st.sampled_from(FACTS),
        "enabled": st.booleans() | st.just(True),
        "proxy": st.none()
        | st.fixed_dictionaries(
            {
                "url": st.sampled_from(["https://one.proxy", "https://${USER}:${PASSWORD}@two.proxy:3129"]),
                "territory": st.sampled_from([code for code in FACTS if code != "any"]),
                "inspects": st.booleans(),
            }
        ),
    }
).map(lambda facts: {key: value for key, value in facts.items() if value is not None})


def fits(facts: dict[str, Any], boundary: list[str]) -> bool:
    """Return whether a deployment is inside a boundary, computed independently from the written config."""
    seen = [facts["stores"], facts["processes"], *([facts["proxy"]["territory"]] if "proxy" in facts else [])]
    return all(parse_places([words]).within(parse_places(boundary)) for words in seen)


@st.composite
def steps(draw: st.DrawFn, names: list[str]) -> list[str | dict[str, int]]:
    """Draw a route to these deployments: plain steps, optionally after a weighted one."""
    route: list[str | dict[str, int]] = list(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    weights = draw(st.dictionaries(st.sampled_from(names), st.integers(0, 100), max_size=3))
    if not any(weights.values()):
        return route
    return draw(st.sampled_from([[weights], [weights, *route]]))


@st.composite
def configs(draw: st.DrawFn, *, sound: bool = False) -> dict[str, Any]:
    """Draw a config: regions with a boundary each, deployments, and routes between them.

    Routes lead anywhere at random, or, in a sound config, only to deployments inside the boundary.
    """
    names = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True))
    free = draw(st.permutations(TERRITORIES))
    regions = {name: {"territories": [free[i]], "boundary": draw(places)} for i, name in enumerate(names)}
    regions["rest"] = {"territories": ["*"], "boundary": draw(places)}
    deployments = {
        f"d{i}": {"model": f"m{i}", "endpoint": f"https://d{i}.example/v1", "api_key": "${KEY}", **facts}
        for i, facts in enumerate(draw(st.lists(deployment, min_size=1, max_size=4)))
    }
    choices = {
        name: [each for each, facts in sorted(deployments.items()) if not sound or fits(facts, region["boundary"])]
        for name, region in regions.items()
    }
    offered = [name for name in sorted(regions) if choices[name] and draw(st.booleans() | st.just(True))]
    assume(offered)
    routes = {name: draw(steps(choices[name])) for name in offered}
    shadowed = [name for name in offered if draw(st.booleans())]
    shadow = {name: {"deployment": draw(st.sampled_from(choices[name])), "share": "100%"} for name in shadowed}
    return {
        "version": 1,
        "assistants": {"assistant": {"routes": routes, "shadow": shadow}},
        "regions": regions,
        "deployments": deployments,
        "location": {"signals": ["edge_header"], "unknown": draw(st.sampled_from(["refuse", "rest"]))},
    }


def compiled(config: dict[str, Any]) -> ConfigVersion | None:
    try:
        return table_of(json.dumps(config), {"KEY": "k", "USER": "user", "PASSWORD": "password"})
    except ConfigRejected:
        return None
