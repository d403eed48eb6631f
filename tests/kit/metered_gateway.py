"""Gateways with a state directory whose provider counts every call, and budgets of so many equal requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import row_data
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.metered_provider import APP_KEY, Meter, metered_config, metered_provider

LIMIT_S = 120
CAP = 100
"""The cap of the requests for which a budget has room."""

INPUT_BOUND = 64 + 16 + len("Hello! Who are you?")
HELD_TOKENS = INPUT_BOUND + CAP
"""The hold of a request with this cap: the bound of the input, and the cap."""

HELD_EUR = (INPUT_BOUND + 2 * CAP) / 1_000_000


@contextmanager
def serving(
    folder: Path, route: str, *patches: str | Mapping[str, Any], workers: int = 1, **environ: str
) -> Iterator[tuple[GatewayProcess, Meter]]:
    """Run a gateway with a state directory. The names of the deployments are the behaviours of their provider."""
    with metered_provider(*(name.strip() for name in route.split(","))) as (provider, meter):
        path = metered_config(provider, folder, route, *patches).write(folder)
        with serving_file(path, workers, **environ) as gateway:
            yield gateway, meter


@contextmanager
def serving_file(path: Path, workers: int = 1, **environ: str) -> Iterator[GatewayProcess]:
    """Run a gateway with this config. `environ` are further settings."""
    state = path.parent / "state"
    environ |= {"KEY": "sk-one", "GATEWAY_WORKERS": str(workers), "GATEWAY_STATE_DIR": str(state)}
    with running_gateway(path, environ) as gateway:
        yield gateway


def client_of(gateway: GatewayProcess, **headers: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {APP_KEY}", **headers}
    return httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=LIMIT_S)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with UsageReader(folder / "state") as reader:
        return [row_data(row) for row in reader.rows(UsageQuery((), "2000-01-01", "2999-12-31"))]


def of_client(**settings: Any) -> dict[str, Any]:
    return {"clients": {"app": settings}}


def with_budget(**budget: Any) -> dict[str, Any]:
    return of_client(budgets=[{"per": "total", **budget}])


def in_money(holds: float) -> dict[str, Any]:
    """Return a patch with a budget for so many holds."""
    return with_budget(amount=f"{HELD_EUR * holds:.9f} EUR")
