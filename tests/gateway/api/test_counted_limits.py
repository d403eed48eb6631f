"""Counting tokens is admitted under the limits that all instances share, if there are stores."""

import pytest

from gateway.model.config_version import Client, ClientLimitRule
from gateway.model.record import Record
from gateway.usage.client_limits import LimitReached
from tests.kit.case_files import cases
from tests.kit.configs import key_hash
from tests.kit.input_gateway import CONFIG, InputGateway

HEADERS = {"authorization": "Bearer gk-app"}


class SharedLimits:
    """The limits of a client that another instance has used up."""

    async def take(self, client: Client, limits: ClientLimitRule, record: Record) -> None:
        raise LimitReached(f"{client.name} has reached its shared limit of {limits.rpm}", 1.0)


@cases("path", "body")
def test_counting_tokens_uses_the_shared_limits(path: str, body: object) -> None:
    clients = {"app": {"keys": [key_hash("gk-app")], "limits": {"rpm": 5}}}
    gateway = InputGateway(lambda _: pytest.fail("nothing is sent"), CONFIG.merge({"clients": clients}))
    assert gateway.post(path, body, HEADERS).status_code == 200
    gateway.gateway._chat.service.take_shared = SharedLimits().take
    refused = gateway.post(path, body, HEADERS)
    assert refused.status_code == 429
    assert "app has reached its shared limit of 5" in refused.text
