"""A provider gets the same bytes for the tools, the system and the earlier messages of a conversation in each turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from providers.testkit.prefix_cache import blocks_of
from tests.gateway.prompt_bytes import DEPLOYMENTS
from tests.kit.dialect_clients import DIALECT_CLIENTS

_SEED, _CONVERSATIONS = "7", "2"


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
    compared = 0
    for line in first.decode().splitlines():
        sent = json.loads(line)
        place = sent["conversation"], sent["dialect"], sent["deployment"]
        blocks = [block for block, _ in blocks_of(json.loads(sent["body"]))]
        if (earlier := before.get(place)) is not None:
            assert blocks[: len(earlier)] == earlier, (place, sent["turn"])
            compared += 1
        before[place] = blocks
    asked = {(dialect, deployment.partition(" ")[0]) for _, dialect, deployment in before}
    assert {(dialect, name) for dialect in DIALECT_CLIENTS for name in DEPLOYMENTS} <= asked
    assert compared > len(asked)
