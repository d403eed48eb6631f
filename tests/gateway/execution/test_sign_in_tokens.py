"""The tokens of sign-ins in a process: when one is used, and the wait for another one after a refusal."""

import asyncio

import pytest

from gateway.execution.held_tokens import HeldTokens
from gateway.model.held_token import HeldToken, TokenNote
from providers.auth import Secret

OLD, NEW = Secret("token-before"), Secret("token-after")


def note(secret: Secret, lifetime_s: float = 3600.0, *, is_absolute: bool = False) -> TokenNote:
    """Return a note with a token that begins at 0 on the clock of its end."""
    return TokenNote(HeldToken(secret, lifetime_s, is_absolute, lifetime_s))


@pytest.mark.parametrize(("lifetime_s", "last_s"), [(3600.0, 3570.0), (40.0, 30.0)])
@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_token_is_used_until_30_s_or_a_quarter_of_its_lifetime_is_left(
    lifetime_s: float, last_s: float, is_absolute: bool
) -> None:
    now = [0.0]
    clocks = (lambda: 0.0, lambda: now[0]) if is_absolute else (lambda: now[0], lambda: 1e12)
    tokens = HeldTokens(*clocks)
    assert tokens.current("one") is None
    tokens.take("one", note(OLD, lifetime_s, is_absolute=is_absolute))
    now[0] = last_s
    assert tokens.current("one") == OLD
    now[0] = last_s + 0.1
    assert tokens.current("one") is None


async def test_attempts_with_a_refused_token_wait_for_one_exchange() -> None:
    tokens, asked = HeldTokens(lambda: 0.0, lambda: 0.0), list[str]()
    tokens.refused = lambda name, secret: asked.append(name)
    tokens.take("one", note(OLD))
    waiting = [asyncio.create_task(tokens.other("one", OLD, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    tokens.take("one", note(NEW))
    assert await asyncio.gather(*waiting) == [NEW] * 3
    assert asked == ["one"]
    # The present token is already another one: no exchange is asked for.
    assert await tokens.other("one", OLD, 5) == NEW
    assert asked == ["one"]


async def test_without_another_token_there_is_none() -> None:
    tokens = HeldTokens(lambda: 0.0, lambda: 0.0)
    tokens.refused = lambda name, secret: tokens.take(name, note(OLD))
    tokens.take("one", note(OLD))
    waiting = asyncio.create_task(tokens.other("one", OLD, 0.01))
    assert await waiting is None
