"""Simulated candidates on this machine, a config that names them, and a small evaluation suite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evaluation.questions import Suite, load_suite
from gateway.model.config_version import ConfigVersion
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.kit.configs import Config, table_of

ROOT = Path(__file__).parents[2]
ITEMS = ROOT / "config" / "evaluations" / "items"
BANK = ROOT / "config" / "evaluations" / "banks" / "cn.yaml"
LOAD = "scalability: {rates: [40, 80], step: 500ms, recovery: 500ms, prompt: hi}\n"


def config_of(origins: Mapping[str, str], *, stores: Mapping[str, str] | None = None) -> Config:
    """Return a config with a deployment for each origin, inside the boundary of `cn` unless `stores` states otherwise."""
    approval = {"region": "cn", "authority": "CAC", "kind": "registration", "number": "N-1", "model_name": "M"}
    places = {name: (stores or {}).get(name, "CN") for name in origins}
    deployments = {
        name: {
            "provider": "openai-compatible",
            "model": f"m-{name}",
            "endpoint": f"{origin}/v1",
            "stores": places[name],
            "processes": places[name],
            "available": ["*"],
            "api_key": "${KEY}",
            "capabilities": ["tools"],
            "approvals": [approval],
        }
        for name, origin in origins.items()
    }
    return Config(
        {
            "version": 1,
            "assistants": {"assistant": {"routes": {"cn": [next(iter(origins))]}}},
            "regions": {
                "cn": {"territories": ["CN"], "boundary": ["CN"], "approvals": "required"},
                "us": {"territories": ["US"], "boundary": ["US"]},
            },
            "deployments": deployments,
        }
    )


def table_for(origins: Mapping[str, str], *, stores: Mapping[str, str] | None = None) -> ConfigVersion:
    """Return the compiled config of `config_of`."""
    return table_of(config_of(origins, stores=stores), {"KEY": "sk-test"})


@contextmanager
def servers(scenarios: Mapping[str, Scenario]) -> Iterator[SimulatorThread]:
    """Run a simulated server for each name."""
    simulator = load_simulators().simulators["openai-compatible"]
    with SimulatorThread({name: SimulatorServer(simulator, name, one) for name, one in scenarios.items()}) as thread:
        yield thread


def suite_in(folder: Path, text: str, *, items: int = 0, seed: int | None = None) -> Suite:
    """Return the suite of this text. `many.yaml` next to it has the given number of questions with a numeric answer."""
    section = {"ask": "{a} + {b}?", "number": "a + b", "draw": {"a": [1, 9_000_000], "b": [1, 99]}, "count": items or 1}
    file = {"version": 1, "language": "en", "items": {"sums": [section]}}
    (folder / "many.yaml").write_text(json.dumps(file), "utf-8")
    path = folder / "suite.yaml"
    path.write_text(f"version: 1\nname: test\nseed: 7\n{text}", "utf-8")
    return load_suite(path, seed)


class QuietProgress:
    """Ignores the progress of an evaluation."""

    def begin(self, part: str, total: int, done: int) -> None: ...

    def advance(self, part: str, by: int = 1) -> None: ...
