"""The reports that `explain --from` assumes, and the note if no real caller can send them."""

from dataclasses import replace

import httpx
import pytest

from gateway.policy.location import SIGNALS
from gateway.service.explain import reports_from, why_not_supposed
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, key_hash
from tests.kit.input_gateway import InputGateway
from tests.kit.location_signals import EXAMPLES, NAMES, listing, registered, trial, with_only


@pytest.mark.parametrize("name", NAMES)
def test_territory_can_be_supposed_exactly_for_the_signals_that_suppose_it(name: str) -> None:
    has_effect = SIGNALS[name].suppose("DE") is not None
    assert (why_not_supposed(with_only(name), "DE") == "") == has_effect


@cases("listed", "can", "reason")
def test_trial_signal_is_supposed_if_it_is_listed_and_set_up(listed: list[str], can: bool, reason: str) -> None:
    with registered(replace(trial(can_locate=can), client_right="store")):
        assert reports_from("DE").get("trial") is not None
        assert why_not_supposed(listing(*listed), "DE") == reason


@pytest.mark.parametrize(
    "signals", [["assertion"], ["edge_header"], ["api_key", "claim"], ["assertion", "edge_header"]]
)
@pytest.mark.parametrize(("place", "region"), [("SG", "default"), ("CN", "cn"), ("DE", "eu"), ("CU", None)])
def test_capabilities_of_another_place_are_those_of_this_place(
    signals: list[str], place: str, region: str | None
) -> None:
    location = {"signals": signals, "unknown": "us", "claim": EXAMPLES["claim"]}
    config = BASE.merge({"clients": {"backend": {"keys": [key_hash("gk-1")]}}, "location": location})
    gateway = InputGateway(lambda _: httpx.Response(500), config, KEYS)
    asked = gateway.get(f"/v1/capabilities?assistant=assistant&territory={place}", {"authorization": "Bearer gk-1"})
    body = asked.json()
    assert body.get("region") == region, body
    assert (asked.status_code == 200) == (region is not None)
    refused = gateway.get("/v1/capabilities?assistant=assistant&territory=Atlantis", {"authorization": "Bearer gk-1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "territory")
