"""A gateway whose clients send signed tokens."""

from collections.abc import Iterator

import pytest

from tests.kit.token_gateway import TokenGateway


@pytest.fixture
def gateway() -> Iterator[TokenGateway]:
    with TokenGateway() as started:
        yield started
