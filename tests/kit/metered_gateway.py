"""Gateways with a state directory whose provider counts every call, and budgets of so many equal requests."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import row_data
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.metered_provider import APP_KEY, Meter, metered_config, metered_provider
from tests.kit.waiting import eventually

LIMIT_S = 120
CAP = 100
"""The cap of the requests for which a budget has room."""

INPUT_BOUND = 64 + 16 + len("Hello! Who are you?")
OWN_COUNT = 5 + 4 + 3
"""The gateway's own count of this prompt: its text, the marks of a message, and those before the answer."""

HELD_TOKENS = INPUT_BOUND + CAP
"""The hold of a request with this cap: the bound of the input, and the cap."""

USUAL_TOKENS = -(-INPUT_BOUND // 3) + CAP
"""What a rate of tokens holds for it, until inputs are learned."""

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


async def ask_together(
    gateways: Sequence[GatewayProcess], meter: Meter, number: int, last: str = "ok",
    *, key: str = APP_KEY, **more: Any,
) -> list[tuple[int, Any]]:  # fmt: skip
    """Send requests to all gateways at once, while the provider holds its answers back until all are decided.

    Args:
        last: The deployment whose answers are held back. Each request that is not refused calls it.
    """
    meter.hold(last)
    headers = {"authorization": f"Bearer {key}", "connection": "close"}
    refused = 0

    async def ask(client: httpx.AsyncClient, index: int) -> tuple[int, Any]:
        nonlocal refused
        url = f"{gateways[index % len(gateways)].url}{CHAT}"
        answer = await client.post(url, json=body(**{"max_tokens": CAP, **more}))
        refused += answer.status_code != 200
        return answer.status_code, answer.text if answer.status_code == 200 else answer.json()

    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, timeout=LIMIT_S) as client:
        asking = [asyncio.ensure_future(ask(client, index)) for index in range(number)]
        await asyncio.to_thread(eventually, lambda: refused + meter.number(last) >= number)
        meter.release()
        return await asyncio.gather(*asking)


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
