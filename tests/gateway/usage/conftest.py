"""The servers of the tests of usage."""

from collections.abc import Iterator

import pytest

from gateway.cell.postgres import upgrade
from tests.gateway.usage.gate_places import ValkeyPlace
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.valkey_server import running_valkey


@pytest.fixture(scope="module")
def valkey_place() -> Iterator[None]:
    """Start the server of the machines of a module."""
    with running_valkey() as ValkeyPlace.server:
        yield


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    """Start a database with the present schema for a module."""
    with running_postgres() as server:
        upgrade(server.address())
        yield server
