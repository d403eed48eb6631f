"""Official clients of the vendors against the simulated vendors: requests are accepted and answers understood.

Simulators that read leniently refuse here what their vendors refuse (`tests.kit.vendor_checks`). The clients are an
extra (`make install-sdks`). Tests of a client that is not installed are not collected.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.kit.vendor_checks import checked_simulators


class Simulated:
    """Simulated vendors by name, each in a thread. Their scenarios can be changed at any time."""

    def __init__(self) -> None:
        self._threads: dict[str, SimulatorThread] = {}

    def __getitem__(self, provider: str) -> SimulatorServer:
        if provider not in self._threads:
            server = SimulatorServer(checked_simulators()[provider], provider)
            self._threads[provider] = SimulatorThread({"it": server})
            self._threads[provider].__enter__()
        return self._threads[provider]["it"]

    def close(self) -> None:
        for thread in self._threads.values():
            thread.__exit__()


@pytest.fixture(scope="session")
def _simulated() -> Iterator[Simulated]:
    every = Simulated()
    yield every
    every.close()


@pytest.fixture
def simulated(_simulated: Simulated) -> Iterator[Simulated]:
    yield _simulated
    for thread in _simulated._threads.values():
        thread["it"].scenario = Scenario()


@pytest.fixture
def openai_at() -> Iterator[Callable[..., Any]]:
    """A function that returns a client of OpenAI for a URL. The clients are closed when the test ends."""
    openai = pytest.importorskip("openai")
    with ExitStack() as opened:

        def connect(url: str, **options: Any) -> Any:
            http = openai.DefaultHttpxClient(trust_env=False)
            client = openai.OpenAI(base_url=url, api_key="k", max_retries=0, http_client=http, **options)
            return opened.enter_context(client)

        yield connect


@pytest.fixture(scope="module", autouse=True)
def _clients_end_with_their_file() -> Iterator[None]:
    """Collect clients that are left in cycles; not each can be closed. Later, a test of another file would fail."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
