"""Barriers in a configuration: where they are shown. `patches/barriers.yaml` has where they may stand."""

from typing import Any

from gateway.changes.plan import deployments_prompted, plan_of
from gateway.config.check_report import render_matrix
from tests.kit.barriers import CONFIG, barrier
from tests.kit.configs import table_of

ENVIRON = {"CONSENT_KEY": "k" * 40}


def routes(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"assistants": {"assistant": {"routes": {"default": list(steps)}, **more}}}


def test_barrier_is_shown_in_plan_and_check() -> None:
    without, with_it = table_of(CONFIG.merge(routes("house", "cloud")), ENVIRON), table_of(CONFIG, ENVIRON)
    (change,) = plan_of(without, with_it).routes
    assert change.before == ("house", "cloud")
    assert change.after == ("house", "hand_off (capability, context, failure; conversation)", "cloud")
    assert [it.name for it in deployments_prompted(with_it.assistants["assistant"], "default")] == ["house", "cloud"]
    last = table_of(CONFIG.merge(barrier("capability", "context", "failure", share="last_turn")), ENVIRON)
    (change,) = plan_of(with_it, last).routes
    assert change.after[1] == "hand_off (capability, context, failure; last_turn)"
    lines = [line.strip() for line in render_matrix(with_it, None, now_s=0.0).splitlines()]
    after = lines[lines.index("barrier: hand_off (capability, context, failure; conversation)") + 1]
    assert after.startswith("2. cloud: ")
