"""Barriers in a configuration: where they may stand, what they require, and where they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.changes.plan import deployments_prompted, plan_of
from gateway.config.check_report import render_matrix
from tests.kit.barriers import CONFIG, barrier
from tests.kit.config_cases import problems_of, rejected
from tests.kit.configs import Config, table_of

RULE: dict[str, Any] = {"hand_off": {"when": ["failure"]}}
ENVIRON = {"CONSENT_KEY": "k" * 40}


def routes(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"assistants": {"assistant": {"routes": {"default": list(steps)}, **more}}}


def problems(config: Config) -> list[str]:
    return [str(problem) for problem in problems_of(config.text, ENVIRON) if problem.severity == "error"]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    (routes(RULE, "cloud"), "there is no step before the barrier"),
    (routes("house", RULE), "there is no step after the barrier"),
    (routes("house", RULE, "small", RULE, "cloud"), "the route has a barrier already (line "),
    (routes("house", RULE, "cloud", "house"), "'house' is already in this route"),
    (routes({"house": 1, "small": 2}, RULE, {"cloud": 1, "house": 1}), "'house' also stands before the barrier (line "),
    (routes({"house": 1, "small": 2}, RULE, "house"), "'house' also stands before the barrier (line "),
    (routes("house", "hand_off", "cloud"), "a barrier needs `when`"),
    (routes("house", {"hand_off": {}}, "cloud"), "a barrier needs `when`"),
    (routes("house", {"hand_off": {"when": []}}, "cloud"), "a barrier needs `when`"),
    (routes("house", {"hand_off": {"when": ["tired"]}}, "cloud"), "'tired' opens no barrier"),
    (routes("house", {"hand_off": {"when": ["failure"], "share": "all"}}, "cloud"), "`share` of a barrier must be"),
    (routes("house", {"hand_off": {"when": ["failure"], "shares": "x"}}, "cloud"), "a barrier has no key 'shares'"),
    (routes("house", {"hand_off": 5}, "cloud"), "`hand_off` is a barrier"),
    (routes("house", {"hand_off": {"when": ["failure"]}, "cloud": 5}, "cloud"), "`hand_off` is a barrier"),
    (routes("house", {"hand_off": {"when": ["asked"]}}, "cloud", "other"), "other has no `consent`"),
    ({"deployments": {"hand_off": {"provider": "openai", "model": "m"}}}, "`hand_off` is reserved"),
    (routes("house", embeddings={"default": ["house", RULE]}), "must be a string"),
    (
        routes("house", RULE, "cloud", shadow={"default": {"deployment": "cloud2"}}),
        "would get prompts that the barrier",
    ),
    (
        {"regions": {"default": {"moderation": {"input": ["judge"], "on_failure": "closed"}}}},
        "would get prompts that the barrier of assistant/default (line ",
    ),
]
OPENAI: dict[str, Any] = {"provider": "openai", "api_key": "${CONSENT_KEY}", "endpoint": "us", "model": "gpt-6-luna"}
SITES: dict[str, Any] = {"deployments": {"cloud2": OPENAI, "judge": {**OPENAI, "model": "omni-moderation-latest"}}}


@pytest.mark.parametrize(("patch", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistake_is_reported(patch: dict[str, Any], message: str) -> None:
    found = problems(CONFIG.merge(SITES, patch))
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    "patch",
    [
        routes({"house": 1, "small": 2}, RULE, {"cloud": 1, "other": 1}),
        routes("house", "small", {"hand_off": {"when": "failure"}}, "cloud"),
        routes("house", RULE, "cloud", shadow={"default": {"deployment": "house"}}),
        routes("house", RULE, "cloud", shadow={"default": {"deployment": "small"}}),  # at an own URL
        routes(
            {"house": 9, "small": 1},
            RULE,
            "cloud",
            schedules={"default": {"candidate": "small", "steps": "5% for 1h, 100%"}},
        ),
    ],
)
def test_barrier_is_accepted(patch: dict[str, Any]) -> None:
    assert problems(CONFIG.merge(patch)) == []


def warnings(patch: dict[str, Any]) -> str:
    broken = CONFIG.merge(patch, {"deployments": {"cloud": {"model": None}}})
    return "\n".join(map(str, rejected(broken.text, ENVIRON)))


def test_causes_that_can_not_be_seen_are_warned_of() -> None:
    assert "`context` relies on an error of house, whose context is unknown" in warnings(barrier("context"))
    assert "`asked` has no effect" in warnings(barrier("asked", before=("small",)))
    assert "`asked` has no effect" not in warnings(barrier("asked"))


def test_barrier_is_shown_in_plan_and_check() -> None:
    without, with_it = table_of(CONFIG.merge(routes("house", "cloud")), ENVIRON), table_of(CONFIG, ENVIRON)
    (change,) = plan_of(without, with_it).routes
    assert change.before == ("house", "cloud")
    assert change.after == ("house", "hand_off (capability, context, failure; conversation)", "cloud")
    assert [it.name for it in deployments_prompted(with_it.assistants["assistant"], "default")] == ["house", "cloud"]
    last = table_of(CONFIG.merge(barrier("capability", "context", "failure", share="last_turn")), ENVIRON)
    assert [it.after[1] for it in plan_of(with_it, last).routes] == [
        "hand_off (capability, context, failure; last_turn)"
    ]
    lines = [line.strip() for line in render_matrix(with_it, None, now_s=0.0).splitlines()]
    after = lines[lines.index("barrier: hand_off (capability, context, failure; conversation)") + 1]
    assert after.startswith("2. cloud: ")
