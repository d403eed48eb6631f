"""The changes that a reload reports."""

import pytest

from gateway.changes.activation import changes_between
from gateway.changes.pickling import pack, unpack
from gateway.model.status import Changes
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, table_of

TABLE = table_of(BASE)


CANARY = BASE.merge("""
assistants:
  assistant:
    routes: {default: [{gemini: 95, qwen-intl: 5}]}
    schedules: {default: {candidate: qwen-intl, steps: "5% for 1h, 100%"}}
""")
OTHER = "deployments: {other: {provider: dashscope, model: m, endpoint: cn-beijing, api_key: k}}"


def assistant(patch: str) -> str:
    """Return a patch of the assistant."""
    return f"assistants: {{assistant: {patch}}}"


@cases("patch")
def test_change_of_weight_or_schedule_is_a_change_of_the_route(patch: str) -> None:
    changes = changes_between(table_of(CANARY), table_of(CANARY.merge(assistant(patch))))
    assert changes == Changes(routes=("assistant/default",))


@pytest.mark.parametrize(
    ("patches", "changes"),
    [
        (["blocked: [AQ, CU, IR, KP, SY]"], Changes(sections=("blocked",))),
        ([assistant("{aliases: [gpt-5]}")], Changes(sections=("aliases",))),
        ([assistant("{routes: {cn: [qwen-cn, other]}}"), OTHER], Changes(added=("other",), routes=("assistant/cn",))),
        ([assistant("{routes: {us: null}}")], Changes(routes=("assistant/us",))),
        (["deployments: {qwen-cn: {model: qwen3.7-plus}}"], Changes(changed=("qwen-cn",))),
        (["deployments: {gemini: {api_key: '${OPENAI_US_API_KEY}'}}"], Changes(changed=("gemini",))),
        (["deployments: {chatgpt-eu: {enabled: false}}"], Changes(changed=("chatgpt-eu",))),
        (["clients: {backend: {may_assert: []}}"], Changes(sections=("clients",))),
        ([assistant("{routes: {default: [{gemini: 1, qwen-intl: 1}]}}")], Changes(routes=("assistant/default",))),
        ([assistant("{shadow: {default: {deployment: qwen-intl}}}")], Changes(routes=("assistant/default",))),
        (["resilience: {idle: 7s}"], Changes(sections=("resilience",))),
    ],
)
def test_changes_name_each_part_that_differs(patches: list[str], changes: Changes) -> None:
    assert changes_between(TABLE, table_of(BASE.merge(*patches))) == changes


def test_changes_name_a_removed_deployment() -> None:
    removed = BASE.merge("deployments: {gemini: null}", assistant("{routes: {default: [qwen-intl]}}"))
    assert changes_between(TABLE, table_of(removed)) == Changes(removed=("gemini",), routes=("assistant/default",))


def test_changed_secret_is_a_change_and_is_not_shown() -> None:
    changes = changes_between(TABLE, table_of(BASE, {**KEYS, "GEMINI_API_KEY": "another"}))
    assert changes == Changes(changed=("gemini",))


def test_config_version_from_another_process_has_no_changes() -> None:
    assert changes_between(TABLE, unpack(pack(table_of(BASE)))) == Changes()
