"""Instances of a gateway that share a real Valkey and a real PostgreSQL, with a provider that counts its calls."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.cell.postgres import Postgres
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import row_data
from tests.kit.chat_http import CHAT, body
from tests.kit.faulty_provider import Provider
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.metered_gateway import CAP, LIMIT_S, client_of
from tests.kit.metered_provider import APP_KEY, Meter, metered_config, metered_provider
from tests.kit.postgres_server import PASSWORD, RunningPostgres
from tests.kit.valkey_server import RunningValkey, running_valkey
from tests.kit.waiting import eventually


def is_unavailable(answer: httpx.Response) -> bool:
    """Return whether a request was refused because the gate could not be asked. A busy machine may be the reason."""
    return answer.status_code == 503 and answer.json()["error"]["code"] == "gate_unavailable"


@dataclass
class Cell:
    """The instances of a cell, their stores and their provider."""

    instances: list[GatewayProcess]
    meter: Meter
    valkey: RunningValkey
    postgres: RunningPostgres
    folder: Path

    @property
    def path(self) -> Path:
        """The config file."""
        return self.folder / "gateway.yaml"

    def state(self, number: int) -> Path:
        """Return the state directory of an instance."""
        return self.folder / f"state-{number}"

    def lost_gate_since(self, at_s: float) -> bool:
        """Return whether an instance could not ask the gate in time, so that it has decided alone with its share."""
        files = [self.state(number) / "journal" / "last-failure" for number in range(len(self.instances))]
        # A process notes its failures once a second.
        return any(file.exists() and file.stat().st_mtime >= at_s - 1 for file in files)

    def run(self, *words: str, number: int = 0) -> str:
        """Run a command with the state directory of an instance, and return its output."""
        status, text = run_command(environ_of(self.path, number), *words, "--config", str(self.path))
        assert status == 0, text
        return text

    def rows(self) -> list[dict[str, Any]]:
        with UsageReader(None, Postgres(self.postgres.address())) as reader:
            return [row_data(row) for row in reader.rows(UsageQuery((), "2000-01-01", "2999-12-31"))]

    def ask(self, number: int = 0, key: str = APP_KEY) -> httpx.Response:
        """Send a request to an instance. It is repeated while its gate does not answer in time."""
        answers: list[httpx.Response] = []

        def is_decided() -> bool:
            answers.append(self.ask_once(number, key))
            return not is_unavailable(answers[-1])

        eventually(is_decided, LIMIT_S)
        return answers[-1]

    def ask_once(self, number: int = 0, key: str = APP_KEY) -> httpx.Response:
        """Send a request to an instance."""
        with client_of(self.instances[number], authorization=f"Bearer {key}") as client:
            return client.post(CHAT, json=body(max_tokens=CAP))


@contextmanager
def cell(
    folder: Path,
    postgres: RunningPostgres,
    *patches: str | Mapping[str, Any],
    instances: int = 2,
    route: str = "ok",
    workers: int = 1,
) -> Iterator[Cell]:
    """Run the instances of a cell. Its database is the given one, emptied."""
    postgres.empty()
    with ExitStack() as stack:
        valkey = stack.enter_context(running_valkey(password="valkey-secret"))
        names = (name.strip() for name in route.split(","))
        provider, meter = stack.enter_context(metered_provider(*names))
        path = cell_config(folder, postgres, valkey, provider, route, *patches)
        running = [stack.enter_context(instance(path, number, workers)) for number in range(instances)]
        yield Cell(running, meter, valkey, postgres, folder)


def cell_config(
    folder: Path, postgres: RunningPostgres, valkey: RunningValkey, provider: Provider, route: str, *patches: Any
) -> Path:
    return metered_config(provider, folder, route, stores_patch(postgres, valkey), *patches).write(folder)


def stores_patch(postgres: RunningPostgres, valkey: RunningValkey) -> dict[str, Any]:
    """Return the patch of a config that names these stores."""
    return {
        "stores": {
            "database": {"url": postgres.url, "password": "${DATABASE_PASSWORD}", "territory": "DE"},
            "valkey": {
                "url": f"redis://{valkey.host}:{valkey.port}",
                "password": "${VALKEY_PASSWORD}",
                "territory": "DE",
            },
        },
        "secrets": {"pepper": "${PEPPER}"},
    }


@contextmanager
def instance(path: Path, number: int, workers: int = 1) -> Iterator[GatewayProcess]:
    with running_gateway(path, environ_of(path, number, workers)) as gateway:
        yield gateway


def environ_of(path: Path, number: int, workers: int = 1) -> dict[str, str]:
    return {
        "KEY": "sk-one",
        "GATEWAY_WORKERS": str(workers),
        "GATEWAY_STATE_DIR": str(path.parent / f"state-{number}"),
        "DATABASE_PASSWORD": PASSWORD,
        "VALKEY_PASSWORD": "valkey-secret",
        "PEPPER": "p" * 40,
    }


def run_command(environ: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run `gateway` and return its status and its output."""
    ended = as_a_process(*arguments, environ=environ)
    return ended.returncode, ended.stdout + ended.stderr
