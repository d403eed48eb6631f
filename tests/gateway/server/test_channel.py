"""Messages between two processes arrive as they were sent, and the end of a process is noticed."""

import asyncio
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.changes.pickling import ConfigNotPortable, pack, unpack
from gateway.config.loading import load_document
from gateway.features.configuration import compile_config
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.status import WorkerStatus
from gateway.server.channel import Channel
from gateway.server.workers import WorkerSettings
from providers.registry import load_registry
from tests.kit.configs import table_of

EXAMPLE = Path(__file__).parents[3] / "config" / "gateway.yaml"
SECRET = "sk-of-a-vendor"
BY_AMAZON = """
version: 1
assistants: {assistant: {routes: {default: [claude]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  claude: {provider: bedrock, model: m, endpoint: us-east-1, api_key: "${KEY}"}
"""


@pytest.fixture
def table() -> ConfigVersion:
    environ = {**os.environ, "DASHSCOPE_API_KEY": SECRET}
    return compile_config(load_document(EXAMPLE, environ), registry=load_registry()).config


async def test_calls_are_carried_out_in_order_and_answered(table: ConfigVersion) -> None:
    here, there = [await Channel.over(end) for end in socket.socketpair()]
    unwell = {"house": Unavailable("benched: the provider refuses our key", 2.5, True)}
    state = WorkerStatus(1, 2, "abc", 3, False, unwell, store_problems={"valkey": "refused"})
    done: list[object] = []

    async def activate(packed: bytes) -> str:
        done.append(packed)
        return "abc"

    async def serve(end: Channel, functions: dict[str, Any]) -> list[str]:
        return [name async for name in end.calls(functions)]

    functions = {"activate": activate, "look": lambda: (state, b"bytes\nof any kind\0"), "note": done.append}
    serving = asyncio.create_task(serve(there, functions))
    asking = asyncio.create_task(serve(here, {}))
    here.tell("note", 1)
    answers = here.ask("activate", pack(table)), here.ask("look")
    assert await asyncio.gather(*answers) == ["abc", (state, b"bytes\nof any kind\0")]
    assert done == [1, pack(table)]
    last = here.ask("look")
    there.close()
    with pytest.raises(asyncio.CancelledError):
        await last
    here.close()
    assert (await serving)[:3] == ["note", "activate", "look"]
    assert set(await asking) == {""}


@pytest.mark.parametrize("unread", [b"", b"\0\0", b"\0\0\0\x09123"], ids=["nothing", "half a length", "half a message"])
async def test_closed_peer_is_not_an_error(unread: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.over(ours)
    channel.tell("stop")
    assert theirs.recv(1, socket.MSG_PEEK), "it leaves with a message unread"
    theirs.sendall(unread)
    theirs.close()
    assert await channel.receive() is None
    channel.tell("stop")
    channel.close()


def test_a_table_is_the_same_in_another_process(table: ConfigVersion) -> None:
    there = unpack(pack(table))
    names = [name for name in ConfigVersion.__dataclass_fields__ if name != "memo"]
    assert {name: getattr(there, name) for name in names} == {name: getattr(table, name) for name in names}
    assert SECRET in {secret.reveal() for item in there.deployments.values() for secret in item.credentials}
    assert "c0ffee" not in repr(WorkerSettings(2.5, "json", "info", 500, bytes.fromhex("c0ffee")))


def test_signing_module_is_imported_when_a_table_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(table_of(BY_AMAZON, {"KEY": "AKIA:secret"}))
    monkeypatch.delitem(sys.modules, "botocore.auth")
    unpack(packed)
    assert "botocore.auth" in sys.modules


def test_adapter_that_cannot_be_pickled_is_reported(table: ConfigVersion) -> None:
    class Local:
        """An adapter of a class that another process cannot import."""

    local: Any = Local()
    name, deployment = next(iter(table.deployments.items()))
    other = replace(table, deployments={name: replace(deployment, adapter=local)})
    with pytest.raises(ConfigNotPortable, match="make the adapter an object of a class"):
        pack(other)


def test_send_to_a_process_that_is_gone_does_nothing_on_every_loop() -> None:
    async def send() -> None:
        ours, theirs = socket.socketpair()
        channel = await Channel.over(ours)
        theirs.close()
        for number in range(3):
            channel.tell("look", number)
            await asyncio.sleep(0)
        assert await channel.receive() is None
        channel.tell("stop")
        channel.close()
        channel.tell("stop")
        await channel.finish(1.0)
        channel.tell("stop")

    for run in (asyncio.run, uvloop.run):
        run(send())
