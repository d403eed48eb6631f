"""Permits: their conditions, and their validity after a config change during a request."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.api.caller.request_headers import headers_of
from gateway.model.caller import RequestHeaders
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Proxy
from gateway.model.permit import Permit
from gateway.policy.fence import judge_still_permitted, prompt_permit, wrapper_of, wrapping_too
from gateway.service.location import locate
from providers.territories import parse_places
from tests.gateway.location_reports import caller_of
from tests.kit.case_files import cases
from tests.kit.configs import BASE, table_of

TABLE = table_of(BASE)


def permit(table: ConfigVersion = TABLE, region: str = "us", deployment: str = "chatgpt-us") -> Permit:
    made = prompt_permit(table, table.regions[region], table.deployments[deployment], 0.0)
    assert made is not None
    return made


def test_fence_repeats_the_check_of_the_compiler() -> None:
    outside = replace(TABLE.regions["us"], boundary=parse_places(["DE"]))
    assert prompt_permit(TABLE, outside, TABLE.deployments["chatgpt-us"], 0.0) is None
    assert prompt_permit(TABLE, TABLE.regions["us"], TABLE.deployments["qwen-cn"], 0.0) is None


def test_permit_names_the_proxy_and_there_is_none_if_it_is_outside_the_boundary() -> None:
    proxy = Proxy("https://proxy.example", parse_places(["US"]))
    deployment = replace(TABLE.deployments["chatgpt-us"], proxy=proxy)
    inside = prompt_permit(TABLE, TABLE.regions["us"], deployment, 0.0)
    assert (inside.origin, inside.proxy) == (deployment.origin, "https://proxy.example")
    outside = replace(deployment, proxy=replace(proxy, territory=parse_places(["DE"])))
    assert prompt_permit(TABLE, TABLE.regions["us"], outside, 0.0) is None


def test_rules_after_a_barrier_and_of_a_former_version_are_kept() -> None:
    rules: Any = SimpleNamespace(key=b"rules", joined=lambda other: (other, "joined"))
    assert wrapper_of(TABLE, TABLE.regions["us"], TABLE.deployments["chatgpt-us"], rules) is rules
    plain = permit()
    assert wrapping_too(plain, None) is plain
    kept = wrapping_too(plain, rules)
    assert (plain.wrapper, kept.wrapper, kept.origin) == (None, rules, plain.origin)
    assert wrapping_too(kept, "more").wrapper == ("more", "joined")


@pytest.mark.parametrize("kind", ["demo", "simulated"])
def test_a_demo_and_a_rehearsal_permit_simulators_and_added_deployments_only(kind: str) -> None:
    demo = replace(TABLE, **{kind: True})
    region, deployment = demo.regions["us"], demo.deployments["chatgpt-us"]
    assert prompt_permit(demo, region, deployment, 0.0) is None
    assert prompt_permit(demo, region, replace(deployment, simulates="us"), 0.0) is not None
    assert prompt_permit(replace(demo, real=frozenset({"chatgpt-us"})), region, deployment, 0.0) is not None


def with_deployment(**changes: Any) -> ConfigVersion:
    return replace(TABLE, deployments={"chatgpt-us": replace(TABLE.deployments["chatgpt-us"], **changes)})


ABSENT, NOT_PERMITTED = "the current config does not have it", "the current config no longer permits it"


@pytest.mark.parametrize(
    ("current", "why"),
    [
        (replace(TABLE, version="another"), None),
        (replace(TABLE, deployments={}), ABSENT),
        (replace(TABLE, regions={}), ABSENT),
        (with_deployment(enabled=False), "disabled in the current config"),
        (with_deployment(model="another"), NOT_PERMITTED),
        (with_deployment(residency=TABLE.deployments["qwen-cn"].residency), NOT_PERMITTED),
    ],
)
def test_a_judge_is_asked_only_if_the_current_config_permits_it_too(current: ConfigVersion, why: str | None) -> None:
    assert judge_still_permitted(permit(), current, 0.0) == why


def _judged_with(*kinds: str) -> ConfigVersion:
    """Return a version in which the region of the judge redacts these kinds of values; none: it redacts nothing."""
    redacts = {"redactions": {"few": {"kinds": kinds}}, "regions": {"us": {"redact": "few"}}} if kinds else {}
    return table_of(BASE.merge(redacts))


@cases("before", "now", "is_kept")
def test_a_judge_that_was_asked_before_is_kept_if_it_gets_no_more_in_clear(
    before: tuple[str, ...], now: tuple[str, ...], is_kept: bool
) -> None:
    why = judge_still_permitted(permit(_judged_with(*before)), _judged_with(*now), 0.0)
    assert why == (None if is_kept else "the current config redacts what it gets")


def sent(*pairs: tuple[bytes, str], more_bytes: int = 0) -> RequestHeaders:
    headers = [(name, value.encode()) for name, value in pairs]
    return headers_of({"headers": [*headers, (b"cookie", b"x" * more_bytes)], "client": ("127.0.0.1", 1)})


@pytest.mark.parametrize("asserted", [("DE",) * 4, ("D" * 160,)])
@pytest.mark.parametrize("more_bytes", [0, 5_000])
def test_location_of_typical_headers_is_cached(asserted: tuple[str, ...], more_bytes: int) -> None:
    table = table_of(BASE)
    request = sent(*((b"x-gateway-territory", value) for value in asserted), more_bytes=more_bytes)
    assert locate(table, caller_of(table, None, request)) is locate(table, caller_of(table, None, request))
    assert len(table.memo) == 1


@pytest.mark.parametrize(
    "request_headers",
    [
        sent((b"x-gateway-territory", "D" * 2_049)),
        sent(*[(b"x-gateway-territory", "DE")] * 1_025),
        sent((b"cf-ipcountry", "DE"), (b"cf-ipcountry", "E" * 60_000)),
        sent((b"cf-ipcountry", "DE"), (b"x-part", "B" * 60_000)),
    ],
    ids=["a long assertion", "many assertions", "a long header", "a long part"],
)
def test_location_of_long_headers_is_not_cached(request_headers: RequestHeaders) -> None:
    table = table_of(
        BASE.merge("location: {edges: [{from: [127.0.0.0/8], country: CF-IPCountry, subdivision: X-Part}]}")
    )
    found = locate(table, caller_of(table, None, request_headers))
    assert found == locate(table, caller_of(table, None, request_headers))
    assert table.memo == {}
    locate(table, caller_of(table, None, sent((b"cf-ipcountry", "DE"))))
    assert len(table.memo) == 1
