"""A provider gets the same bytes for the tools, the system and the earlier messages of a conversation in each turn."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from providers.testkit.prefix_cache import blocks_of
from tests.gateway.prompt_bytes import BROKEN, CAPPED, DEPLOYMENTS, PREFILLED
from tests.kit.dialect_clients import DIALECT_CLIENTS

_SEED, _CONVERSATIONS = "7", "2"
_THINKING = ("thinking", "reasoning", "reasoning_effort", "output_config")


@pytest.mark.slow("starts two processes with whole gateways")
def test_prompt_of_a_turn_is_the_beginning_of_the_next_one_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.gateway.prompt_bytes", _SEED, _CONVERSATIONS]
    started = [
        subprocess.Popen(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in started)
    assert first == second, "another PYTHONHASHSEED gives other bytes"
    before: dict[tuple[Any, ...], list[bytes]] = {}
    thinking: dict[tuple[Any, ...], list[object]] = {}
    compared = resumed = 0
    caps, prefilled = set(), set()
    for line in first.decode().splitlines():
        sent = json.loads(line)
        body = json.loads(sent["body"])
        # A deployment that cannot continue an answer gives way to the next one of its route, which has another model.
        place = sent["conversation"], sent["dialect"], sent["deployment"], body.get("model")
        blocks = [block for block, _ in blocks_of(body)]
        if broken := [at for at, block in enumerate(blocks) if BROKEN.encode() in block]:
            # A continuation begins as the turn does, and goes on with the answer's message, whose head is one block.
            blocks, resumed = blocks[: broken[0] - 1], resumed + 1
        if begun := [at for at, block in enumerate(blocks) if PREFILLED.encode() in block]:
            # The new messages begin with the one that the client has begun: its head is one block.
            blocks = blocks[: begun[0] - 1]
            prefilled.add(sent["dialect"])
        settings = [value for name, value in sorted(body.items()) if name in _THINKING]
        settings.append(body.get("generationConfig", {}).get("thinkingConfig"))
        assert thinking.setdefault(place, settings) == settings, "another setting of thinking"
        if sent["deployment"].startswith(CAPPED):
            caps.add(body.get("max_tokens") or body.get("generationConfig", {}).get("maxOutputTokens"))
        if (earlier := before.get(place)) is not None:
            assert blocks[: len(earlier)] == earlier, (place, sent["turn"])
            compared += 1
        before[place] = blocks
    asked = {(dialect, deployment.partition(" ")[0]) for _, dialect, deployment, _ in before}
    assert {(dialect, name) for dialect in DIALECT_CLIENTS for name in DEPLOYMENTS} <= asked
    assert compared > len(asked)
    assert prefilled, "no conversation ended with the beginning of an answer"
    assert resumed > len(DIALECT_CLIENTS)
    assert len(caps - {None}) > 2, "no budget capped an answer"
