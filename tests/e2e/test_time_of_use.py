"""The time of users in real processes: workers share it, and it survives `kill -9`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.gateway_command import in_this_process
from tests.kit.metered_provider import APP_KEY
from tests.kit.reloading_gateway import Operator, config, operated

COUNTED = {
    "clients": {"app": {"keys": [key_hash(APP_KEY)], "may_assert": ["user"]}},
    "regions": {"default": {"use": {}, "age_bands": {"child": {"use": {"session": "1h"}}}, "age_missing": "child"}},
}


def chat(operator: Operator, *, stream: bool) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}", "x-gateway-user": "anna"}
    answer = operator.client.post(CHAT, json=body(stream=stream), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-use"].endswith("; session-limit=3600")


def exported(state: Path) -> Any:
    done = in_this_process("subject", "export", "--user", "anna", "--state", str(state))
    assert done.returncode == 0, done.stderr
    [record] = json.loads(done.stdout)["use"]
    return record


@pytest.mark.slow("starts two gateways")
def test_workers_share_the_time_of_a_user_which_survives_a_kill(tmp_path: Path, pair: SimulatorThread) -> None:
    path, state = config(pair, "a", 0, COUNTED).write(tmp_path), tmp_path / "state"
    with operated(path, 2, GATEWAY_STATE_DIR=str(state)) as operator:
        chat(operator, stream=False)
        first = exported(state)
        for number in range(6):
            operator.reconnect()  # the next connection may reach the other worker
            chat(operator, stream=number % 2 == 0)
        operator.gateway.process.kill()
        operator.gateway.process.wait()
    last = exported(state)
    assert (first["client"], last["began"], last["seen"] > first["seen"]) == ("app", first["began"], True)
    with operated(path, GATEWAY_STATE_DIR=str(state)) as operator:
        chat(operator, stream=False)
        chat(operator, stream=True)
        # This process may have them only in memory.
        again = exported(state)
        assert (again["began"], again["seen"] > last["seen"]) == (first["began"], True)
        assert in_this_process("subject", "erase", "--yes", "--user", "anna", "--state", str(state)).returncode == 0
        chat(operator, stream=False)
    assert exported(state)["began"] > again["seen"]
