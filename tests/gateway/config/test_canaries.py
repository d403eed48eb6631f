"""Compile schedules and shadows, and their warnings. Errors are in `test_broken_configs`."""

import re

import pytest

from gateway.features.shadow.model import Shadow
from gateway.model.schedule import Schedule, Stage, StopRule
from tests.kit.config_cases import SOUND, compiled, edited, messages_about, more, sections

X = "x: {provider: openai, model: gpt-6-sol, endpoint: us, api_key: '${US_KEY}'}"


def written(*lines: str, routes: str = "us: [{chatgpt-us: 90, x: 10}], cn: [qwen-cn]", **others: str) -> str:
    text = "\n".join(["assistants:", "  a:", f"    routes: {{{routes}}}", *(f"    {line}" for line in lines)])
    return sections(**{"assistants": text, "deployments": more("deployments", X)} | others)


def scheduled(schedule: str, **others: str) -> Schedule:
    table = compiled(written(f"schedules: {{us: {{candidate: x, {schedule}}}}}", **others)).config
    return table.assistants["a"].schedules["us"]


@pytest.mark.parametrize(
    ("text", "stages", "stop"),
    [
        ("steps: 100%", (Stage(1.0, None),), StopRule(0.02, 0.5, 200)),
        ("steps: '5% for 10m, 25% for 2h, 100%'", (Stage(0.05, 600), Stage(0.25, 7200), Stage(1.0, None)), StopRule()),
        (
            "steps: '5% for 1m, 50%', stop_on: {error_rate: 7%, latency_p95: '+20%', min_requests: 30}",
            (Stage(0.05, 60), Stage(0.5, None)),
            StopRule(0.07, 0.2, 30),
        ),
        ("steps: 100%, stop_on: {error_rate: off}", (Stage(1.0, None),), StopRule(None, 0.5)),
        ("steps: 100%, stop_on: {latency_p95: off}", (Stage(1.0, None),), StopRule(0.02, None)),
    ],
)
def test_a_schedule_as_it_is_compiled(text: str, stages: tuple[Stage, ...], stop: StopRule) -> None:
    schedule = scheduled(text)
    assert (schedule.candidate, schedule.stages, schedule.stop) == ("x", stages, stop)


def test_schedule_identity_changes_with_its_text_or_its_candidate() -> None:
    steps = "steps: '5% for 10m, 100%'"
    first = scheduled(steps).identity
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert scheduled(steps, routes="us: [{chatgpt-us: 50, x: 50}]").identity == first
    other = more("deployments", edited(X, ("gpt-6-sol", "gpt-6-luna")))
    changed = [scheduled(steps, deployments=other), scheduled("steps: '5% for 11m, 100%'")]
    changed.append(scheduled(f"{steps}, stop_on: {{min_requests: 30}}"))
    assert len({first, *(each.identity for each in changed)}) == 4


def test_assistant_without_schedules_and_shadows_has_none() -> None:
    assistant = compiled(written()).config.assistants["a"]
    assert (assistant.schedules, assistant.route_parts) == ({}, {})


def test_a_shadow_as_it_is_compiled() -> None:
    text = written(
        "shadow: {us: {deployment: x, share: 20%}, eu: {deployment: chatgpt-eu, keep_text: true}}",
        routes="us: [chatgpt-us], eu: [chatgpt-eu]",
    )
    table = compiled(text).config
    shadows = {region: parts.of(Shadow) for region, parts in table.assistants["a"].route_parts.items()}
    assert shadows["us"] == Shadow(table.deployments["x"], 0.2, False)
    assert (shadows["eu"].deployment, shadows["eu"].keep_text) == (table.deployments["chatgpt-eu"], True)


@pytest.mark.parametrize("line", ["schedules: {us: {candidate: x, steps: 100%}}", "shadow: {us: {deployment: x}}"])
def test_invalid_route_causes_no_errors_about_its_schedule(line: str) -> None:
    (error,) = messages_about("assistants", written(line, routes="us: 5, cn: [qwen-cn]"))
    assert error.startswith("assistants.a.routes.us: must be a list")


def about_shadow(keys: str, **others: str) -> list[str]:
    """Return the messages about a shadow whose deployment has these keys."""
    deployments = more("deployments", edited(X, ("endpoint: us", f"endpoint: us, {keys}" if keys else "endpoint: us")))
    text = written("shadow: {us: {deployment: x}}", deployments=deployments, **others)
    place = "assistants.a.shadow.us.deployment: "
    return [it.removeprefix(place) for it in messages_about("assistants", text) if it.startswith(place)]


RECORD = "approvals: [{region: %s, authority: A, kind: registration, number: N, model_name: M}]"


@pytest.mark.parametrize(
    ("approvals", "required", "is_reported"),
    [
        ("", True, True),
        ("", False, False),
        (RECORD % "cn", True, True),
        (RECORD % "us", True, False),
        (f"{(RECORD % 'cn')[:-1]}, {(RECORD % 'us').partition('[')[2]}", True, False),
    ],
)
def test_shadow_without_a_required_approval_is_a_warning(approvals: str, required: bool, is_reported: bool) -> None:
    boundary = f"boundary: [US], approvals: {'required' if required else 'none'}"
    regions = edited(SOUND["regions"], ("boundary: [US]", boundary))
    message = "'x' has no approval for region 'us': it is skipped here"
    assert (message in about_shadow(approvals, regions=regions)) is is_reported


@pytest.mark.parametrize(("consent", "is_reported"), [("", False), ("consent: {mode: standing}", True)])
def test_shadow_that_requires_consent_is_a_warning(consent: str, is_reported: bool) -> None:
    message = "'x' requires consent, which shadow traffic never has: it is skipped here"
    assert (message in about_shadow(consent)) is is_reported
