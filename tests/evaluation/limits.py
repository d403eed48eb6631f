"""Run evaluations whose candidates fail, or whose spending is limited, against simulated servers.

    .venv/bin/python -m tests.evaluation.limits --runs 20

- A candidate that answers 503 to everything is given up once for the whole run and soon, and a sound one does not wait.
- A limit of tokens or of money is not exceeded during a load step: counted from the requests that the server received.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.candidate_client import CandidateClient
from evaluation.measurement import Evaluation
from evaluation.run import create_budget
from evaluation.run_store import RunStore
from evaluation.suite import Suite
from evaluation.work_queue import SpendReached
from gateway.execution.transport import PoolTransport
from providers.chat import AssistantMessage, ChatCompletion, Choice, Usage
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.evaluation_candidates import BANK, LOAD, QuietProgress, servers, suite_in, table_for

DOWN = Scenario(capacity=Capacity(rps=0.0001, concurrent=None, beyond=503))
_GIVEN_UP_WITHIN_S = 45.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an evaluation: the candidates that were given up, and how long it took."""

    given_up: Mapping[str, str]
    took_s: float


async def evaluate(suite: Suite, out: Path, thread: SimulatorThread, *names: str) -> Ended:
    """Run the suite with a candidate for each server, and store its rows in `out`."""
    table = table_for({name: thread[name].origin for name in names})
    client = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())
    store = RunStore(out, {"suite": "limits"})
    candidates = tuple(table.deployments.values())
    given_up: Mapping[str, str] = {}
    began = time.monotonic()
    try:
        budget = create_budget(suite, store, candidates)
        given_up = await Evaluation(suite, client, candidates, None, store, budget, QuietProgress()).run()
    except SpendReached:
        pass  # the end that a limit is for
    finally:
        store.close()
        await client.aclose()
    return Ended(given_up, time.monotonic() - began)


async def _time_until(condition: Callable[[], bool]) -> float:
    """Return the seconds until the condition holds."""
    began = time.monotonic()
    while not condition():  # noqa: ASYNC110  # the server counts in another thread
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def problems_of_503(folder: Path) -> list[str]:
    """Return what is wrong if one of two candidates answers 503 to every request."""
    counts = "accept: 40, refuse: 40, answer: 40, consistency: 20"
    text = f"performance: {{sets: [{{name: a, file: many.yaml}}]}}\ncompliance: {{bank: {BANK}, {counts}}}\n{LOAD}"
    suite = suite_in(folder, text, items=60)
    wanted = len(suite.performance) + len(suite.compliance) + len(suite.consistency)
    with servers({"sound": Scenario(text="x"), "down": DOWN}) as thread:
        running = asyncio.create_task(evaluate(suite, folder / "out", thread, "sound", "down"))
        sound_s = await _time_until(lambda: thread["sound"].received >= wanted or running.done())
        ended = await running
    found: list[str] = []
    if list(ended.given_up) != ["down"]:
        found.append(f"given up: {dict(ended.given_up)}")
    if ended.took_s > _GIVEN_UP_WITHIN_S:
        found.append(f"the run took {ended.took_s:.0f} s")
    if sound_s > ended.took_s / 2:
        found.append(f"the sound candidate waited: {sound_s:.0f} s of {ended.took_s:.0f} s")
    store = RunStore(folder / "out", {"suite": "limits"})
    try:
        if list(store.rows("down", "compliance")) or store.load_step("down", 0) is not None:
            found.append("the failing candidate was asked again on a further axis")
        answered = sum(len(store.answered("sound", axis)) for axis in ("performance", "compliance"))
        if answered != len(suite.performance) + len(suite.compliance) or store.load_step("sound", 1) is None:
            found.append(f"the sound candidate answered {answered} questions, and has no complete load test")
    finally:
        store.close()
    return found


async def problems_of_limit(folder: Path, seed: int) -> list[str]:
    """Return what is wrong with a random limit during a load step with a random rate, answer length and speed."""
    drawn = random.Random(seed)
    max_tokens, prompt_tokens = drawn.choice([16, 64, 128]), drawn.randint(1, 10)
    tokens = drawn.randint(1, max_tokens)
    load = f"rates: [{drawn.randint(20, 150)}], step: 1500ms, recovery: 300ms, prompt: hi, max_tokens: {max_tokens}"
    limit = drawn.randint(4, 30) * (max_tokens + 20)
    prices = "prices: {currency: CNY, deployments: {one: {input: 1000000, output: 1000000}}}\n"
    spend = drawn.choice([f"spend: {{tokens: {limit}}}\n", f"{prices}spend: {{cost: {limit}}}\n"])
    suite = suite_in(folder, f"{spend}scalability: {{{load}}}\n")
    breaks = drawn.choice([(), ((Cut(after_events=3), 0.3),)])
    choice = Choice(AssistantMessage("x " * tokens), "stop")
    answer = ChatCompletion("a", "m", 0, (choice,), Usage(prompt_tokens, tokens))
    server = Scenario(completion=answer, latency_s=drawn.choice([0.0, 0.5]), faults=breaks, seed=seed)
    with servers({"one": server}) as thread:
        await evaluate(suite, folder / "out", thread, "one")
        received = thread["one"].received
    store = RunStore(folder / "out", {"suite": "limits"})
    spent = sum(store.load_tokens("one"))
    store.close()
    found = [f"seed {seed}: {spent} tokens are counted of {limit}"] if spent > limit else []
    of_one = prompt_tokens + tokens
    if received * of_one > limit:
        found.append(f"seed {seed}: {received} requests of {of_one} tokens were sent, the limit is {limit}")
    return [*found, *([f"seed {seed}: nothing was sent"] if not received else [])]


async def main_async(runs: int) -> list[str]:
    """Run the experiments, print their results, and return the problems."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        wrong = await problems_of_503(Path(folder))
        print(f"{'FAILED' if wrong else 'ok    '} a candidate that answers 503 is given up once", flush=True)
        found += wrong
    exceeded: list[str] = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            exceeded += await problems_of_limit(Path(folder), seed)
    print(f"{'FAILED' if exceeded else 'ok    '} a spending limit holds during a load step, in {runs} runs", flush=True)
    return found + exceeded


def main() -> int:
    """Run the experiments. Return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="the number of runs with a spending limit (default: 40)")
    problems = asyncio.run(main_async(parser.parse_args().runs))
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
