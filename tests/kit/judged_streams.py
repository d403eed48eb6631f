"""Chats that judges moderate on a loop with virtual time: models and judges follow scripts and nothing waits."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from gateway.execution import judging
from gateway.execution.deadline import Deadline
from gateway.model.config_version import ConfigVersion
from gateway.usage.accounting import Accounting
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.virtual_time import Act, Client, GatewaySetup, TurningLoop

__all__ = ["HARM", "WINDOW", "JudgedRun", "judged_table", "passed_text", "run_judged", "verdict"]

HARM = "harm"
WINDOW, HOLD = 8, 24
_CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [a, b]}}}
regions:
  default:
    territories: ["*"]
    boundary: ["*"]
    moderation: {output: [j], on_failure: closed, window_chars: 8, hold_chars: 24}
location: {unknown: default}
resilience:
  {first_token: 5s, commit: 20s, total: 600s, idle: 3s, keep_alive: 1s, breaker: "off", retry_budget: "off"}
""").merge({"clients": {"app": {"keys": [key_hash("gk-app")]}}})


def judged_table(*patches: str | Mapping[str, Any]) -> ConfigVersion:
    """Compile a config with the models `a` and `b` and the judges `j` and `k`."""
    facts = {"provider": "openai-compatible", "model": "m", "stores": "any", "processes": "any", "api_key": "${K}"}
    facts["capabilities"] = ["logprobs", "n"]
    deployments = {name: {**facts, "endpoint": f"https://{name}.example/v1"} for name in "abjk"}
    return table_of(_CONFIG.merge({"deployments": deployments}, *patches), {"K": "sk-secret"})


def verdict(texts: list[str], delay_s: float = 0.0) -> Act:
    """Return the answer of a judge who flags each text with `harm`."""
    results = [{"flagged": HARM in text, "categories": {"violence": HARM in text}} for text in texts]
    return Act(head_s=delay_s, document={"results": results})


@dataclass
class JudgedRun(GatewaySetup):
    """A gateway with models, whose acts are in `scripts`, and judges.

    Attributes:
        judge: Returns what a judge does with texts.
        judged: The texts that judges were asked about, in order, and whether each passed.
        bodies: The requests that the models received.
        began_at: The virtual time at which the request began.
    """

    judge: Callable[[str, list[str]], Act] = lambda _, texts: verdict(texts)
    judged: list[tuple[str, bool]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    began_at: float = 0.0

    def __post_init__(self) -> None:
        """Give the judges the clock of the loop too."""
        super().__post_init__()
        self.began_at = self.loop.time()
        timed = type("", (), {"start": partial(Deadline.start, clock=self.loop.time)})
        self.monkeypatch.setattr(judging, "Deadline", timed)

    def act_of(self, name: str, body: Any) -> Act:
        """See GatewaySetup."""
        if name not in "jk":
            self.bodies.append(body)
            return super().act_of(name, body)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        act = self.judge(name, texts)
        results = act.document.get("results") if isinstance(act.document, dict) else None
        is_verdict = isinstance(results, list) and len(results) == len(texts)
        for index, text in enumerate(texts):
            self.judged.append((text, is_verdict and not results[index]["flagged"]))
        return act


def run_judged(
    table: ConfigVersion,
    scripts: dict[str, list[Act]],
    judge: Callable[[str, list[str]], Act] | None = None,
    *,
    leaves_at: int | None = None,
    accounting: Accounting | None = None,
    stream: bool = True,
    **fields: Any,
) -> tuple[JudgedRun, Client]:
    """Send one chat, and return the gateway with its client. `leaves_at`: the turn at which the client leaves."""
    loop = TurningLoop()
    with closing(loop), pytest.MonkeyPatch.context() as monkeypatch:
        run = JudgedRun(loop, table, scripts, monkeypatch)
        if judge is not None:
            run.judge = judge
        run.runner.accounting = accounting
        asking = Client(run, stream=stream, **fields)
        if leaves_at is not None:
            loop.acts[loop.turns + leaves_at] = asking.line.lose

        async def ask() -> dict[str, object]:
            await asyncio.gather(asking.run(), return_exceptions=leaves_at is not None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return run.left_behind()

        left = loop.run_until_complete(ask())
        assert not left, left
    return run, asking


def passed_text(run: JudgedRun) -> str:
    """Return the text that the verdicts passed, by what the judges were asked: each has the end of the last one."""
    passed = ""
    for asked, is_passed in run.judged:
        tail = passed[-WINDOW:]
        assert asked.startswith(tail), (asked, tail)
        if not is_passed:
            break
        passed += asked[len(tail) :]
    return passed
