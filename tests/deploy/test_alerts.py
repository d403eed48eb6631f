"""Each outage fires its alert: the rules are tested with the metrics that a real gateway had in the outage.

Time is scaled: a scrape of each 0.4 s stands for one of each 15 s, and a metric in seconds is multiplied.
"""

import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.cell.postgres import upgrade
from gateway.model.status import Reload, Status
from gateway.telemetry.exposition import expose
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traffic import SAMPLE_S, TrafficWindow
from providers.testkit.scenario import Scenario, Silent
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import BASE, KEYS, key_hash, table_of
from tests.kit.metered_gateway import in_money
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.reloading_gateway import config, operated, two_providers
from tests.kit.request_records import answered, with_fields
from tests.kit.store_cell import Cell, cell

pytestmark = pytest.mark.slow("scrapes a gateway for many seconds")
RULES = Path(__file__).parents[2] / "deploy/helm/assistant-gateway/rules.yml"
USED = set(re.findall(r"\bgateway_[a-z_]+", RULES.read_text("utf-8")))
SCRAPE_S, STEP_S = 0.4, 15
SCALED = {"gateway_usage_oldest_row_seconds"}
LABELS = {"job": "llm", "instance": "a:8081"}


def alerts() -> list[dict[str, Any]]:
    """Return the rules."""
    rules: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
    return rules


class Scraped:
    """The samples of the scrapes of one gateway, as promtool reads them."""

    def __init__(self, url: str = "") -> None:
        self._url = url
        self._values: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self._scrapes = 0

    def scrape(self, times: int = 1) -> None:
        """Scrape so many times, at intervals."""
        for _ in range(times):
            try:
                text = httpx.get(f"{self._url}/metrics", trust_env=False, timeout=60).text
            except httpx.TransportError:
                text = ""
            self.add(text, STEP_S / SCRAPE_S)
            time.sleep(SCRAPE_S)

    def add(self, text: str, scale: float = 1) -> None:
        """Add a scrape. It is empty if the gateway did not answer."""
        self._note("up", {}, float(bool(text)))
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in USED:
                    self._note(sample.name, sample.labels, sample.value * (scale if sample.name in SCALED else 1))
        self._scrapes += 1

    def _note(self, name: str, labels: dict[str, str], value: float) -> None:
        text = ", ".join(f'{key}="{one}"' for key, one in {**labels, **LABELS}.items())
        self._values[f"{name}{{{text}}}"][self._scrapes] = value

    def firing(self, folder: Path) -> dict[str, dict[str, str]]:
        """Return the alerts that fire at the last scrape, with the labels of one."""
        series = [
            {"series": name, "values": " ".join(str(values.get(at, "stale")) for at in range(self._scrapes))}
            for name, values in self._values.items()
        ]
        names = [rule["alert"] for rule in alerts()]
        # No alert is expected, so promtool prints each that fires.
        at = f"{(self._scrapes - 1) * STEP_S}s"
        tests = {
            "interval": f"{STEP_S}s",
            "input_series": series,
            "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": []} for name in names],
        }
        document = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP_S}s", "tests": [tests]}
        (folder / "scraped.yml").write_text(yaml.safe_dump(document), "utf-8")
        done = subprocess.run(
            ["promtool", "test", "rules", "scraped.yml"], cwd=folder, capture_output=True, text=True, timeout=120
        )
        text = done.stdout + done.stderr
        found = re.findall(r"alertname: (\w+), time.*?got:\[(.*?)\]\s*(?=alertname|$|\n\n)", text, re.DOTALL)
        assert found or done.returncode == 0, text
        return {name: dict(re.findall(r'(\w+)="([^"]*)"', got)) for name, got in found}


@contextmanager
def asking(ask: Callable[[int], Any]) -> Iterator[None]:
    """Ask until the block ends, each time with another number."""
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.wait(0.05):
            number += 1
            try:
                ask(number)
            except httpx.TransportError:
                continue

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("good_for_each_bad", [0.1, 1, 2], ids=str)
def test_total_outage_pages_within_a_minute(tmp_path: Path, good_for_each_bad: float) -> None:
    """Five good minutes, then everything fails. The scrapes come at the times of a Prometheus with 15 s."""
    metrics, window, scraped, begins_s = Metrics(), TrafficWindow(), Scraped(), 301
    config = table_of(BASE, KEYS)
    loaded = Reload("start", True, config.version, datetime(2026, 11, 20, tzinfo=UTC), 0)
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}
    for second in range(begins_s + 61):
        fails = second >= begins_s
        for _ in range(6 if fails else round(6 * good_for_each_bad)):
            shown = {"outcome": "failed", "status": 503, "code": "no_healthy_deployment"} if fails else {}
            metrics.observe(with_fields(answered(), **shown))
        if second % SAMPLE_S == 0 or second % STEP_S == 0:
            window.sample(second, [metrics.snapshot()])
        if second % STEP_S == 0:
            status = Status(config, loaded, None, {}, False, (), traffic=window.counts(), at_s=loaded.at.timestamp())
            scraped.add(expose(status, [metrics.snapshot()], "")[0].decode())
            if second == begins_s - 1:
                assert not {name for name in scraped.firing(tmp_path) if severity[name] == "page"}
    assert scraped.firing(tmp_path)["GatewayOutage"]["region"] == "eu"


def test_provider_that_hangs_fires_although_the_breaker_probes_it(tmp_path: Path) -> None:
    patch = {
        "resilience": {"first_token": "400ms", "total": "1s", "attempts": {"per_deployment": 1, "total": 1},
                       "breaker": {"failures": 3, "open": "300ms"}},
    }  # fmt: skip
    with two_providers() as providers:
        (tmp_path / "gateway.yaml").write_text(config(providers, "a", 0, patch).text, "utf-8")
        with operated(tmp_path / "gateway.yaml") as operator:
            scraped = Scraped(operator.gateway.admin_url)

            def ask(number: int) -> None:
                sent = body(stream=True, messages=[{"role": "user", "content": f"question {number}"}])
                operator.client.post(CHAT, json=sent)

            with asking(ask):
                scraped.scrape(8)
                assert scraped.firing(tmp_path) == {}
                providers["a"].scenario = Scenario(faults=((Silent(), 1.0),))
                scraped.scrape(40)
            firing = scraped.firing(tmp_path)
    assert {"GatewayBreakerOpen", "GatewayDeploymentSilent", "GatewayRequestsFail"} <= firing.keys()
    assert firing["GatewayBreakerOpen"]["deployment"] == firing["GatewayDeploymentSilent"]["deployment"] == "a"


@pytest.fixture
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        upgrade(server.address())
        yield server


def test_lost_store_or_instance_fires(tmp_path: Path, postgres: RunningPostgres) -> None:
    free = {"clients": {"free": {"keys": [key_hash("gk-free")]}}}
    with cell(tmp_path, postgres, in_money(100), free, instances=1) as one:
        for kill, restart, expected in (
            (one.valkey.kill, one.valkey.restart, {"GatewayStoreDown": "valkey"}),
            (postgres.kill, postgres.restart, {"GatewayStoreDown": "database", "GatewayUsageRowsWait": ""}),
        ):
            scraped = Scraped(one.instances[0].admin_url)
            scraped.scrape(3)
            assert scraped.firing(tmp_path) == {}
            kill()
            assert one.ask_once(key="gk-free").status_code == 200
            scraped.scrape(40)
            firing = scraped.firing(tmp_path)
            expected["GatewayProblem"] = ""  # `gateway status` lists each of them
            assert {name: labels.get("store", "") for name, labels in firing.items()} == expected
            restart()
            recovered(one)
        scraped = Scraped(one.instances[0].admin_url)
        scraped.scrape(3)
        one.instances[0].process.kill()
        scraped.scrape(10)
        assert scraped.firing(tmp_path)["GatewayDown"]["instance"] == "a:8081"


def recovered(one: Cell) -> None:
    """Wait until the instance uses its stores again."""
    from tests.kit.waiting import eventually

    def is_well() -> bool:
        ready = httpx.get(f"{one.instances[0].admin_url}/readyz", trust_env=False, timeout=60).json()
        return set(ready["stores"].values()) == {"ok"} and one.ask_once().status_code == 200

    eventually(is_well, 300)
