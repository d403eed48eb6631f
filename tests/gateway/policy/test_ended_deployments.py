"""A deployment whose vendor has ended its model: routes pass it over from a moment on, and nothing else changes."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.approval import begun_everywhere, days_at
from gateway.model.decision import Decision, RefusalCode
from gateway.policy.routing import decide
from providers.matching.requirements import Requirements
from tests.gateway.decisions import names, place_of, refused
from tests.kit.configs import BASE, table_of

ON = date(2026, 8, 31)
END_S = begun_everywhere(ON)
HOUSE = {"endpoint": "https://h.example/v1", "stores": "DE", "processes": "DE", "api_key": "k"}
OLD = {"provider": "mistral", "model": "mistral-medium-2508", **HOUSE}
NEW = {"provider": "mistral", "model": "mistral-medium-3-5", **HOUSE}


def decided(now_s: float, *route: str, **old: Any) -> Decision:
    table = table_of(
        BASE.merge(
            {
                "deployments": {"old": {**OLD, **old}, "new": NEW},
                "assistants": {"assistant": {"routes": {"eu": [*route]}}},
            }
        )
    )
    location = place_of(table, "DE")
    needs = Requirements(frozenset(), frozenset(), frozenset())
    # The first decision is kept, and must not answer for the other moment.
    for other_s in (0.0, END_S + 1e9, now_s):
        found = decide(table, table.assistants["assistant"], location, needs, {}, other_s)
    return found


@pytest.mark.parametrize(("now_s", "expected"), [(END_S - 1, ["old", "new"]), (END_S, ["new"])])
def test_ended_deployment_is_passed_over_from_the_moment_on(now_s: float, expected: list[str]) -> None:
    found = decided(now_s, "old", "new")
    assert names(found) == expected
    skipped = [(it.deployment, it.reason, it.detail) for it in found.considered if it.reason is not None]
    assert skipped == ([] if len(expected) == 2 else [("old", "ended", "ended by mistral on 2026-08-31")])


def test_route_of_ended_deployments_is_refused_as_one_of_disabled_ones() -> None:
    outcome = refused(decided(END_S, "old"))
    assert outcome.code is RefusalCode.NO_HEALTHY_DEPLOYMENT
    assert outcome.message.endswith("is available: their vendors have ended them")
    assert "kimi" not in outcome.message


def test_deployment_that_is_kept_does_not_end() -> None:
    assert names(decided(END_S + 1e9, "old", "new", accept_ended=True)) == ["old", "new"]


@given(st.dates(date(1990, 1, 1), date(2200, 1, 1)), st.integers(-90_000, 90_000))
def test_a_day_has_begun_everywhere_once_no_place_has_an_earlier_date(day: date, offset_s: int) -> None:
    moment = begun_everywhere(day) + offset_s
    assert (days_at(moment).first >= day.toordinal()) is (offset_s >= 0)
