"""A real Prometheus scrapes a real gateway, and has an answer to each query of the dashboards."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from providers.testkit.scenario import HttpError, Scenario, parse_fault
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.reloading_gateway import LIMIT_S, config, operated, two_providers
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts Prometheus")
BOARDS = Path(__file__).parents[2] / "deploy" / "grafana"
QUERIES = {
    target["expr"].replace("$region", ".*")
    for path in BOARDS.glob("*.json")
    for panel in json.loads(path.read_text("utf-8"))["panels"]
    for target in panel["targets"]
}
WITHOUT_SAMPLES = {
    "sum(increase(gateway_overshoot_total[1h]))",
    "sum by (deployment) (rate(gateway_retries_refused_total[5m]))",
}
"""The counters begin with a call that costs more than was held, and with a retry that is refused."""

PATCH = """
catalogue: {models: models.yaml}
regions: {default: {approvals: required}}
assistants:
  assistant:
    routes: {default: [{a: 1, b: 1}, a, b]}
    schedules: {default: {candidate: b, steps: "50%% for 1h, 100%%", stop_on: {min_requests: 1000}}}
deployments:
  a: {approvals: [{region: default, authority: test, kind: registration, number: "1", model_name: m, valid_until: 2099-01-31}]}
  b: {approvals: [{region: default, authority: test, kind: registration, number: "2", model_name: m, valid_until: 2099-01-31}]}
clients: {app: {keys: ["%s"], region: default, budgets: [{per: day, tokens: 1000000}]}}
usage: {currency: EUR}
"""
MODELS = """
version: 1
models:
  openai-compatible:
    m:
      price: {input: 1, output: 1, currency: EUR, as_of: 2026-11-01, source: test}
      output_tokens: 1000
      retires_on: 2099-01-31
"""


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """Run Prometheus with a gateway as its target, and give a client of its API."""
    file = folder / "prometheus.yml"
    scrape = {"job_name": "gateway", "static_configs": [{"targets": [target]}]}
    file.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder}",
        "--web.listen-address=127.0.0.1:0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr as lines:
        try:
            found = (re.search(r"Listening on.*address=(127\.0\.0\.1:[1-9]\d*)", line) for line in lines)
            address = next(match[1] for match in found if match)
            with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=LIMIT_S) as client:
                yield client
        finally:
            process.terminate()
            lines.read()
            process.wait(LIMIT_S)


def test_each_query_of_the_dashboards_has_an_answer(tmp_path: Path) -> None:
    with two_providers() as providers:
        path = tmp_path / "gateway.yaml"
        (tmp_path / "models.yaml").write_text(MODELS)
        path.write_text(config(providers, "a", 0, PATCH % key_hash("gk-app")).text)
        for name, share in (("a", 0.3), ("b", 0.0)):
            faults = (HttpError(503), share), (parse_fault("reset=3")[0], 0.3)
            providers[name].scenario = Scenario(text="one two three four five six", faults=faults)
        with operated(path, GATEWAY_STATE_DIR=str(tmp_path / "state")) as operator:
            operator.client.headers["authorization"] = "Bearer gk-app"
            with prometheus(tmp_path, operator.gateway.admin_url.removeprefix("http://")) as api:

                def unanswered() -> set[str]:
                    for stream in (False, True):
                        operator.client.post(CHAT, json=body(stream=stream, max_tokens=50))
                    operator.client.post(CHAT, json=body(model="unknown"))
                    answers = {query: api.get("/api/v1/query", params={"query": query}).json() for query in QUERIES}
                    assert {answer["status"] for answer in answers.values()} == {"success"}
                    return {query for query, answer in answers.items() if not answer["data"]["result"]}

                missing: set[str] = set()

                def has_all() -> bool:
                    missing.clear()
                    missing.update(unanswered() - WITHOUT_SAMPLES)
                    return not missing

                try:
                    eventually(has_all, LIMIT_S)
                finally:
                    assert not missing
