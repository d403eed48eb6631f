"""A gateway that counts the time of users, with a clock that the test moves, and the claims of its users."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt

from gateway.app import Gateway
from gateway.features.duties.model import UseKey, UseRecord
from gateway.features.duties.state import UseStore
from gateway.features.duties.time_of_use import LocalTimes, TimeOfUse
from gateway.operator_errors import StateError
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import World

SECRET = "of-the-issuer-and-long-enough-for-hs256"
NOON = datetime(2027, 7, 1, 19, 0, tzinfo=UTC).timestamp()  # 12:00 in Los Angeles
CONFIG = Config.beside(__file__).merge(
    {"clients": {name: {"keys": [key_hash(name)], "may_assert": ["user"]} for name in ("gk-1", "gk-2")}}
)


class _Lost(UseStore):
    def read(self, key: UseKey) -> UseRecord | None:
        raise StateError("the disk is gone")


def time_of_use_of(gateway: Gateway) -> TimeOfUse:
    """Return what counts the time of users in a gateway."""
    return next(gate for gate in gateway._gates if isinstance(gate, TimeOfUse))


class TimedGateway(InputGateway):
    """A gateway whose clock is moved by the test. `world` answers its chats."""

    def __init__(self, directory: Path, world: World, *patches: str | Mapping[str, Any]) -> None:
        self.requests = []
        self._provider = world
        self._transport = HttpxTransport(httpx.MockTransport(self._answer))
        config = table_of(CONFIG.merge(*patches), {"CLAIM_SECRET": SECRET})
        self.gateway = Gateway(config, self._transport, state_dir=directory)
        self.now_s = NOON
        times = time_of_use_of(self.gateway).times
        assert isinstance(times, LocalTimes)
        times.clock = lambda: self.now_s
        self._times, self._directory = times, directory

    def wait(self, minutes: float) -> None:
        self.now_s += 60 * minutes

    def lose_store(self) -> None:
        """From now on, the time of no user can be read."""
        self._times.store = _Lost(self._directory)


def headers(band: str | None = None, sub: object = "anna", key: str = "gk-1", **more: str) -> dict[str, str]:
    """Return the headers of a user whose claim names this band and this subject."""
    sent = {"authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in more.items()}}
    claim = {"iss": "https://i.example", "aud": "g", "exp": time.time() + 600}
    claim |= {"age": band} if band is not None else {}
    claim |= {"sub": sub} if sub is not None else {}
    return {**sent, "x-gateway-claim": jwt.encode(claim, SECRET, "HS256")}
