"""Valkey and PostgreSQL for the measured gateway, from the wheels that the tests use (`make install-dev`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.processes import Cores

__all__ = ["Stores", "running_stores"]

_SECRET = "a-secret-of-the-bench"  # noqa: S105  # of a server on loopback


@dataclass(frozen=True, slots=True)
class Stores:
    """Running stores: the part of a config that names them, and the environment with their passwords."""

    config: str
    environ: Mapping[str, str]


@contextlib.contextmanager
def running_stores(cores: Cores) -> Iterator[Stores | None]:
    """Run both servers on the cores of the tools. None: their packages are not installed."""
    try:
        from gateway.cell.postgres import upgrade
        from tests.kit.postgres_server import PASSWORD, running_postgres
        from tests.kit.valkey_server import running_valkey
    except ImportError:
        yield None
        return
    with contextlib.ExitStack() as stack:
        with Cores.on(cores.others):
            valkey = stack.enter_context(running_valkey(password=_SECRET))
            postgres = stack.enter_context(running_postgres())
        upgrade(postgres.address())
        database = f'{{url: "{postgres.url}", password: "${{BENCH_DATABASE}}", territory: DE}}'
        shared = f'{{url: "redis://127.0.0.1:{valkey.port}", password: "${{BENCH_VALKEY}}", territory: DE}}'
        yield Stores(
            f'stores: {{database: {database}, valkey: {shared}}}\nsecrets: {{pepper: "${{BENCH_PEPPER}}"}}\n',
            {"BENCH_DATABASE": PASSWORD, "BENCH_VALKEY": _SECRET, "BENCH_PEPPER": "p" * 40},
        )
