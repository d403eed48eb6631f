"""Run every test of the transport on uvloop, which production uses, and in `make ci` on asyncio's own loop too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from providers.transport.pool import Pool
from tests.providers.transport.name_resolution import Names
from tests.providers.transport.pool_calls import anyone

_HERE = Path(__file__).parent


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    parametrized = [item for item in items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    for item in parametrized:
        loops = [value for value in item.callspec.params.values() if value is asyncio.new_event_loop]
        if loops and _HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool that may connect to any origin. It is closed after the test."""
    pool = Pool(anyone)
    yield pool
    await pool.aclose()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names that resolve as the test defines: by default to 127.0.0.1."""
    return Names(monkeypatch)
