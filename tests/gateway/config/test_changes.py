"""What a reload is told to have changed."""

from __future__ import annotations

import pytest

from gateway.changes.activation import changes_between
from gateway.changes.pickling import pack, unpack
from gateway.model.status import Changes
from tests.kit.configs import KEYS, WORLD, table_of

TABLE = table_of(WORLD)


SHADOWED = "default: [gemini, qwen-intl]\n    shadow: {default: {deployment: qwen-intl}}"
CANARY = WORLD.replace(
    "default: [gemini, qwen-intl]",
    'default: [{gemini: 95, qwen-intl: 5}]\n    schedules: {default: {candidate: qwen-intl, steps: "5% for 1h, 100%"}}',
)


@pytest.mark.parametrize(
    ("here", "there"),
    [("gemini: 95", "gemini: 90"), ("5% for 1h", "6% for 1h"), ('1h, 100%"', '1h, 100%", stop_on: {error_rate: off}')],
)
def test_another_weight_or_schedule_is_another_route(here: str, there: str) -> None:
    assert here in CANARY
    changes = changes_between(table_of(CANARY), table_of(CANARY.replace(here, there)))
    assert changes == Changes(routes=("assistant/default",))


@pytest.mark.parametrize(
    ("here", "there", "changes"),
    [
        ("blocked: [CU,", "blocked: [AQ, CU,", Changes(sections=("blocked",))),
        ("aliases: [gpt-4o]", "aliases: [gpt-5]", Changes(sections=("aliases",))),
        ("cn: [qwen-cn]", "cn: [qwen-cn, other]", Changes(added=("other",), routes=("assistant/cn",))),
        ("      us: [chatgpt-us]\n", "", Changes(routes=("assistant/us",))),
        ("model: qwen3-max", "model: qwen-plus", Changes(changed=("qwen-cn",))),
        ("${GEMINI_API_KEY}", "${OPENAI_US_API_KEY}", Changes(changed=("gemini",))),
        ("endpoint: eu,", "endpoint: eu, enabled: false,", Changes(changed=("chatgpt-eu",))),
        ("may_assert: [territory]", "may_assert: []", Changes(sections=("clients",))),
        (
            "default: [gemini, qwen-intl]",
            "default: [{gemini: 1, qwen-intl: 1}]",
            Changes(routes=("assistant/default",)),
        ),
        ("default: [gemini, qwen-intl]", SHADOWED, Changes(routes=("assistant/default",))),
        ("location:", "resilience: {idle: 7s}\nlocation:", Changes(sections=("resilience",))),
    ],
)
def test_what_is_other_is_named(here: str, there: str, changes: Changes) -> None:
    other = "  other: {provider: dashscope, model: m, endpoint: cn-beijing, api_key: k}\n"
    assert here in WORLD
    text = WORLD.replace(here, there)
    if "other]" in there:
        text = text.replace("deployments:\n", f"deployments:\n{other}")
    assert changes_between(TABLE, table_of(text)) == changes


def test_what_is_gone_is_named() -> None:
    gone = WORLD.replace("default: [gemini, qwen-intl]", "default: [qwen-intl]")
    gone = "\n".join(line for line in gone.splitlines() if not line.startswith("  gemini:"))
    assert changes_between(TABLE, table_of(gone)) == Changes(removed=("gemini",), routes=("assistant/default",))


def test_a_secret_that_changed_counts_and_is_not_shown() -> None:
    changes = changes_between(TABLE, table_of(WORLD, {**KEYS, "GEMINI_API_KEY": "another"}))
    assert changes == Changes(changed=("gemini",))


def test_the_same_out_of_another_process_is_the_same() -> None:
    assert changes_between(TABLE, unpack(pack(table_of(WORLD)))) == Changes()
