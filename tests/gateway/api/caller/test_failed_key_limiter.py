"""The limit of wrong keys per address, which does not affect other clients."""

import asyncio
from typing import cast

import pytest

from gateway.api.caller.authentication import MOST_FAILED_KEYS, FailedKeyLimiter, TokenUnverified
from gateway.api.errors import ApiError
from gateway.identity.client_tokens import ClientTokens
from gateway.model.config_version import Client
from gateway.model.location import ClaimProblem, ClaimRefused
from tests.gateway.api.caller.visits import visit, visit_with
from tests.kit.configs import BASE, key_hash, table_of

RIGHT, OTHER = "gk-right", "gk-other"


TABLE = table_of(BASE.merge({"clients": {"app": {"keys": [key_hash(RIGHT)]}, "backend": {"keys": [key_hash(OTHER)]}}}))


class KeyChecker:
    def __init__(self) -> None:
        self.now = 1000.0
        self.guesses = FailedKeyLimiter(lambda: self.now)

    def code(self, key: str | None, peer: str = "198.51.100.7") -> str | None:
        try:
            self.guesses.authenticate(TABLE, visit(peer=peer) if key is None else visit_with(key, peer=peer))
        except ApiError as error:
            return error.code if (error.retry_after_s is not None) == (error.code == "rate_limited") else "no time"
        return None


def test_too_many_wrong_keys_are_rate_limited() -> None:
    checker = KeyChecker()
    assert {checker.code(f"gk-{number}") for number in range(MOST_FAILED_KEYS)} == {"invalid_api_key"}
    assert checker.code("gk-next") == "rate_limited"
    checker.now += 59
    assert checker.code("gk-next") == "rate_limited"
    checker.now += 1
    assert checker.code("gk-next") == "invalid_api_key"


def test_valid_key_is_accepted_from_a_limited_address() -> None:
    """A client that this process has not seen yet is accepted too: the process may have started during an attack."""
    checker = KeyChecker()
    for number in range(2 * MOST_FAILED_KEYS):
        checker.code(f"gk-{number}")
    assert (checker.code(RIGHT), checker.code(OTHER)) == (None, None)
    assert checker.code("gk-x", "203.0.113.1") == "invalid_api_key"


def test_missing_key_does_not_count_as_a_failed_key() -> None:
    checker = KeyChecker()
    assert {checker.code(None) for _ in range(2 * MOST_FAILED_KEYS)} == {"invalid_api_key"}


def test_addresses_of_one_ipv6_network_share_a_limit() -> None:
    checker = KeyChecker()
    for number in range(MOST_FAILED_KEYS):
        checker.code("gk-x", f"2001:db8:1:2::{number:x}")
    assert checker.code("gk-x", "2001:db8:1:2:ffff::1") == "rate_limited"
    assert checker.code("gk-x", "2001:db8:1:3::1") == "invalid_api_key"


def test_edge_without_client_address_is_limited_itself() -> None:
    checker = KeyChecker()
    for number in range(MOST_FAILED_KEYS):
        checker.code(f"gk-{number}", "127.0.0.1")
    assert [checker.code("gk-x", edge) for edge in ("127.0.0.1", "127.0.0.2")] == ["rate_limited", "invalid_api_key"]


def test_memory_for_failed_addresses_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.caller.authentication._MOST_ADDRESSES", 10)
    checker = KeyChecker()
    for number in range(200):
        checker.code("gk-x", f"10.0.{number}.1")
    assert len(checker.guesses._wrong) <= 10
    for _ in range(MOST_FAILED_KEYS):
        checker.code("gk-x", "10.0.199.1")
    assert checker.code("gk-x", "10.0.199.1") == "rate_limited"


class WrongTokens:
    """Refuse each token, and note in which turn of the loop it was looked at."""

    def __init__(self) -> None:
        self.turn = 0
        self.seen: list[int] = []

    async def verify(self, config: object, text: str, digest: str, now_s: float | None = None) -> Client:
        self.seen.append(self.turn)
        raise ClaimRefused(ClaimProblem.SIGNATURE)

    async def count_turns(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1


async def test_other_requests_have_their_turn_between_wrong_tokens_of_a_limited_address() -> None:
    tokens = WrongTokens()
    limiter = FailedKeyLimiter(lambda: 1000.0, tokens=cast(ClientTokens, tokens))

    async def burst(number: int) -> None:
        sent = [limiter.verify(TABLE, visit(), TokenUnverified("eyJ.e.s", "d")) for _ in range(number)]
        assert all(isinstance(error, ApiError) for error in await asyncio.gather(*sent, return_exceptions=True))

    counting = asyncio.create_task(tokens.count_turns())
    await burst(MOST_FAILED_KEYS)
    assert len(set(tokens.seen)) == 1, "a few wrong tokens do not wait"
    tokens.seen.clear()
    await burst(10)
    counting.cancel()
    assert len(set(tokens.seen)) == len(tokens.seen) == 10
