"""The readable log of an exchange contains no credential, also if a provider repeats one."""

import json
from typing import cast

from gateway.cli.exchange_log import ExchangeLog, exchange_text, secret_mask
from gateway.execution.transport import Transport, UpstreamResponse
from gateway.execution.upstream_request import upstream_request
from gateway.model.permit import Permit
from providers.auth import Secret
from providers.transport.connection import Tap
from providers.wire import WireRequest


class _Somewhere:
    origin = "https://x.example"


class _Echo:
    """A transport that gives this answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def send(self, *_: object) -> UpstreamResponse:
        return _Answer(self._body)


class _Answer(UpstreamResponse):
    """A response in one piece, for every request."""

    def __init__(self, body: bytes) -> None:
        self.status, self.headers, self.received_at = 401, {"x-echo": "AKIDverysecret"}, 0.0
        self._left = [body]

    async def read(self, _: Tap | None = None) -> bytes:
        return self._left.pop() if self._left else b""

    async def close(self) -> None:
        pass


async def test_secrets_repeated_by_a_provider_are_masked() -> None:
    """Secrets at the edge of the shown text and values derived from the key are masked too."""
    signature = "f" * 64
    error = {"pad": "x" * 4060, "key": "sk-secret-of-mine", "id": "AKIDverysecret"}
    error |= {"sign": signature, "pem": "MIIsecretline"}
    account = json.dumps({"type": "service_account", "private_key": "-----BEGIN-----\nMIIsecretline\n-----END-----\n"})
    secrets = [Secret("AKIDverysecret:sk-secret-of-mine"), Secret(account)]
    log = ExchangeLog(cast("Transport", _Echo(json.dumps(error).encode())))
    wire = WireRequest("POST", "/", (("x-public", "shown"),), b"{}", (("k", "AKIDverysecret"),))
    headers = (("authorization", f"TC3 Signature={signature}"),)
    permit = cast("Permit", _Somewhere())
    reply = await log.send(upstream_request(permit, wire, 1, headers))
    await reply.read()
    mask = secret_mask(log, [("x-public", "shown")], secrets)
    shown = exchange_text(log, mask) + mask(json.dumps(error))
    assert "x-public: shown" in shown
    assert "authorization: (masked)" in shown
    assert "x-echo: (masked)" in shown
    for word in ("AKIDvery", "sk-secret", signature[:9], "MIIsecret"):
        assert word not in shown
