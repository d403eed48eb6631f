"""Compile routes, and warn of routes without an available deployment. Errors are in `test_broken_configs`."""

import pytest

from gateway.config.routes import ineligible_now
from gateway.model.approval import days_at
from gateway.model.route import WeightedSet
from tests.kit.config_cases import ENVIRON, SOUND, compiled, edited, messages_about, more, sections

DAYS = days_at(1_800_000_000.0)


def routed(routes: str, **others: str) -> str:
    return sections(assistants=f"assistants:\n  a: {{routes: {routes}}}", **others)


def changed(old: str, new: str) -> str:
    return edited(SOUND["deployments"], (old, new))


@pytest.mark.parametrize(
    ("deployments", "environ", "route", "why"),
    [
        (changed("endpoint: us,", "endpoint: us, enabled: false,"), ENVIRON, "us: [chatgpt-us]", "chatgpt-us: disabled"),
        (SOUND["deployments"], {**ENVIRON, "US_KEY": ""}, "us: [chatgpt-us]", "chatgpt-us: no credential"),
        (changed(" attests: [zdr],", ""), ENVIRON, "eu: [chatgpt-eu]", "chatgpt-eu: not attested: mam or zdr"),
        (
            changed("endpoint: us,", "endpoint: us, enabled: false,") + "  x: {provider: openai, model: gpt-6-sol, endpoint: us}\n",
            ENVIRON,
            "us: [{chatgpt-us: 1, x: 1}]",
            "chatgpt-us: disabled; x: no credential",
        ),
    ],
)  # fmt: skip
def test_route_without_available_deployment_is_a_warning(
    deployments: str, environ: dict[str, str], route: str, why: str
) -> None:
    text = routed(f"{{{route}}}", deployments=deployments)
    region = route.partition(":")[0]
    assert messages_about("assistants", text, environ) == [
        f"assistants.a.routes.{region}: no deployment of this route is available now ({why})"
    ]


def test_available_deployment_has_no_reason_to_be_skipped() -> None:
    table = compiled(
        sections(regions=edited(SOUND["regions"], ("boundary: [US]", "boundary: [US], approvals: required")))
    ).config
    deployment = table.deployments["chatgpt-us"]
    assert ineligible_now(deployment, table.regions["us"], None) == ""
    assert ineligible_now(deployment, table.regions["eu"], DAYS) == ""
    assert ineligible_now(deployment, None, DAYS) == ""
    assert ineligible_now(deployment, table.regions["us"], DAYS) != ""
    approved = "endpoint: us, approvals: [{region: us, authority: A, kind: registration, number: N, model_name: M}],"
    regions = edited(SOUND["regions"], ("boundary: [US]", "boundary: [US], approvals: required"))
    table = compiled(sections(regions=regions, deployments=changed("endpoint: us,", approved))).config
    assert ineligible_now(table.deployments["chatgpt-us"], table.regions["us"], DAYS) == ""


def test_a_weighted_step_has_its_members_with_their_weights() -> None:
    other = "x: {provider: openai, model: gpt-6-sol, endpoint: us, api_key: '${US_KEY}'}"
    table = compiled(routed("{us: [{chatgpt-us: 100, x: 0}, x]}", deployments=more("deployments", other))).config
    ours, theirs = table.deployments["chatgpt-us"], table.deployments["x"]
    assert table.assistants["a"].routes["us"] == (WeightedSet(((ours, 100.0), (theirs, 0.0))), theirs)
