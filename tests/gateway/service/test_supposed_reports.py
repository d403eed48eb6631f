"""The reports that `explain --from` assumes, and the note if no real caller can send them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.policy.location import SIGNALS
from gateway.service.explain import reports_from, why_not_supposed
from tests.kit.location_signals import NAMES, listing, registered, trial, with_only


@pytest.mark.parametrize("name", NAMES)
def test_territory_can_be_supposed_exactly_for_the_signals_that_suppose_it(name: str) -> None:
    has_effect = SIGNALS[name].suppose("DE") is not None
    assert (why_not_supposed(with_only(name), "DE") == "") == has_effect


@pytest.mark.parametrize(
    ("listed", "can", "reason"),
    [
        (["trial"], True, ""),
        (["edge_header", "trial"], True, ""),
        (["trial"], False, "`trial` (`may_assert: [store]`) is not set up"),
        (["api_key"], True, "`edge_header` or `trial` is not among `location.signals`"),
    ],
)
def test_trial_signal_is_supposed_if_it_is_listed_and_set_up(listed: list[str], can: bool, reason: str) -> None:
    with registered(replace(trial(can_locate=can), client_right="store")):
        assert reports_from("DE").get("trial") is not None
        assert why_not_supposed(listing(*listed), "DE") == reason
