"""The files of `deploy/`: their programs accept them, and what they name exists."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml

from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.gateway_template import TEMPLATE
from tests.kit.ports import free_port
from tests.kit.reloading_gateway import LIMIT_S, config, operated, two_providers
from tests.kit.waiting import eventually

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in (DEPLOY / "grafana").glob("*.json")}
QUERIES = [
    (name, panel["title"], target["expr"])
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
    for target in panel["targets"]
]
RULES = yaml.safe_load((DEPLOY / "helm/assistant-gateway/rules.yml").read_text("utf-8"))["groups"][0]["rules"]
OWN_LABELS = {"le", "instance", "job"}
SECRET = "a-secret-of-the-edge"  # of this test


def program(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "folder", sorted(path for path in DEPLOY.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_readme_of_one_screen_states_what_was_tested(folder: Path) -> None:
    text = (folder / "README.md").read_text("utf-8")
    assert "Tested:" in text
    assert "Not tested:" in text
    assert len(text.splitlines()) <= 45


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_uses_metrics_and_labels_that_exist(rule: dict[str, object]) -> None:
    expression = str(rule["expr"])
    summary = rule["annotations"]["summary"]  # type: ignore[index]
    assert_known(expression, set(re.findall(r"\$labels\.(\w+)", summary)))


@pytest.mark.parametrize(("board", "title", "query"), QUERIES)
def test_panel_uses_metrics_and_labels_that_exist(board: str, title: str, query: str) -> None:
    assert_known(query, set())


def assert_known(expression: str, named: set[str]) -> None:
    """Check the metrics of an expression, and that its labels and these belong to them."""
    used = set(re.findall(r"\bgateway_[a-z_]+", expression))
    labels: set[str] = set()
    for name in used:
        definition = METRIC_DEFINITIONS[name.removesuffix("_bucket")]
        labels |= set(definition.labels)
    for selector in re.findall(r"\{([^}]*)\}", expression):
        named |= set(re.findall(r"(\w+)\s*=", selector))
    for group in re.findall(r"(?:by|ignoring) \(([^)]*)\)", expression):
        named |= set(group.split(", "))
    assert named <= labels | OWN_LABELS


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_names_its_page(rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["page"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert not anchor or anchor in anchors


@pytest.mark.slow("tests each alert with promtool")
def test_each_alert_fires_on_its_condition_and_is_silent_without_it(tmp_path: Path) -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text("utf-8"))["tests"]
    tested = {(case["alertname"], "exp_alerts" in case) for test in tests for case in test["alert_rule_test"]}
    assert tested == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}
    for file in ("prometheus/prometheus.yml", "helm/assistant-gateway/rules.yml"):
        shutil.copy(DEPLOY / file, tmp_path)
    program("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)
    program("promtool", "test", "rules", "rules_test.yml", cwd=DEPLOY / "prometheus")


@pytest.mark.slow
def test_each_query_of_a_dashboard_is_parsed(tmp_path: Path) -> None:
    queries = [query.replace("$region", "eu") for _, _, query in QUERIES]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")
    program("promtool", "check", "rules", tmp_path / "rules.yml")


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_of_a_dashboard_do_not_overlap(board: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & own, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


BEFORE = """
version: 1
regions: {de: {territories: [DE], boundary: ["*"]}}
assistants: {assistant: {routes: {de: [a]}}}
deployments:
  a: {provider: openai-compatible, endpoint: "https://llm.example/v1", model: m, stores: DE, processes: DE, api_key: "${KEY}"}
"""


@pytest.mark.slow("runs the steps of a workflow")
@pytest.mark.parametrize(
    ("edit", "statuses"),
    [(("model: m", "model: n"), (0, 0)), (("boundary", "boundery"), (1, None)), (None, (0, 0))],
    ids=["sound", "broken", "new"],
)
def test_workflow_checks_and_plans_a_pull_request(
    tmp_path: Path, edit: tuple[str, str] | None, statuses: tuple[int, int | None]
) -> None:
    workflow = yaml.safe_load((DEPLOY / "ci/assistant-gateway.yml").read_text("utf-8"))
    steps = {step["name"]: step["run"] for step in workflow["jobs"]["plan"]["steps"] if "name" in step}
    config_file = tmp_path / workflow["env"]["CONFIG"]
    (tmp_path / "README.md").touch()
    if edit is not None:
        config_file.write_text(BEFORE, "utf-8")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "first"]):
        program("git", *author, *words, cwd=tmp_path)
    program("git", "update-ref", "refs/remotes/origin/main", "HEAD", cwd=tmp_path)
    config_file.write_text(BEFORE.replace(*edit) if edit is not None else BEFORE, "utf-8")
    environment = {
        **os.environ,
        "CONFIG": config_file.name,
        "GATEWAY_PORT": str(free_port()),
        "GATEWAY_ADMIN_PORT": "0",
        "GITHUB_BASE_REF": "main",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    for step, status in zip(("Check", "Rehearse", "Plan"), (*statuses, statuses[1]), strict=True):
        if status is not None:
            # A fork does not get the signals of its shell, by which this step ends the gateway.
            folder = Path(sys.executable if step == "Rehearse" else TEMPLATE.command()).parent
            environment["PATH"] = f"{folder}:{os.environ['PATH']}"
            command = ["bash", "-e", "-c", steps[step]]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT_S
            )
            assert done.returncode == status, done.stdout + done.stderr
    if statuses[1] is not None:
        words = "deployments.a.model" if edit is not None else "a (used by assistant/de)"
        assert words in (tmp_path / "summary.md").read_text("utf-8")


@pytest.mark.slow
def test_units_are_valid(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").glob("assistant-gateway*"):
        text = unit.read_text("utf-8").replace("/opt/assistant-gateway/bin/gateway", sys.executable)
        (tmp_path / unit.name).write_text(text, "utf-8")
    said = program("systemd-analyze", "verify", *sorted(tmp_path.glob("assistant-gateway*")))
    assert not [line for line in said.splitlines() if "assistant-gateway" in line]


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    with two_providers() as thread:
        yield thread


@contextmanager
def nginx(folder: Path, upstream: str, port: int, authority: trustme.CA) -> Iterator[None]:
    """Run nginx with the file of `deploy/nginx` on this port, in front of this gateway."""
    certificate = authority.issue_cert("gateway.example.com")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "gateway.crt"))
    certificate.private_key_pem.write_to_path(str(folder / "gateway.key"))
    (folder / "secret.conf").write_text(f'proxy_set_header x-edge-secret "{SECRET}";\n', "utf-8")
    text = (DEPLOY / "nginx/assistant-gateway.conf").read_text("utf-8")
    for here, there in {
        "127.0.0.1:8080": upstream,
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "    listen [::]:443 ssl http2;\n": "",
        "/etc/nginx/tls/": f"{folder}/",
        "/etc/nginx/assistant-gateway-secret.conf": f"{folder}/secret.conf",
    }.items():
        assert here in text
        text = text.replace(here, there)
    (folder / "site.conf").write_text(text, "utf-8")
    country = 'map "" $edge_country { default DE; }\n'
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/fastcgi;\nuwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n"
        f"{country}include {folder}/site.conf;\n}}\n",
        "utf-8",
    )
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    whole = (folder / "nginx.conf").read_text("utf-8")
    (folder / "shipped.conf").write_text(whole.replace(country, ""), "utf-8")
    refused = subprocess.run([*command[:1], "-t", "-c", folder / "shipped.conf"], capture_output=True, text=True)
    assert (refused.returncode, 'unknown "edge_country" variable' in refused.stderr) == (1, True), refused.stderr
    program(*command, "-t")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.slow
def test_streams_pass_nginx_event_by_event_and_clients_cannot_name_their_country(
    tmp_path: Path, providers: SimulatorThread
) -> None:
    providers["a"].scenario = Scenario(text="one two three four", between_events_s=0.1)
    edge = {
        "from": ["127.0.0.1/32"],
        "country": "x-edge-country",
        "client_ip": "x-edge-client-ip",
        "secret": {"header": "x-edge-secret", "value": "${EDGE_SECRET}"},
    }
    patch = {
        "location": {"edges": [edge], "signals": ["edge_header"], "unknown": "refuse"},
        "clients": {"app": {"keys": [key_hash("gk-app")]}},
        "regions": {"default": {"territories": ["DE"]}},
    }
    path = config(providers, "a", 0, patch).write(tmp_path)
    authority = trustme.CA()
    with operated(path, EDGE_SECRET=SECRET) as operator:
        port, folder = free_port(), tmp_path / "nginx"
        folder.mkdir()
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        with nginx(folder, operator.gateway.url.removeprefix("http://"), port, authority):
            headers = {"host": "gateway.example.com", "authorization": "Bearer gk-app"}
            url = f"https://127.0.0.1:{port}"
            sni = {"sni_hostname": "gateway.example.com"}
            with httpx.Client(
                base_url=url, verify=trusted, headers=headers, trust_env=False, timeout=LIMIT_S
            ) as client:

                def ready() -> bool:
                    try:
                        return client.get("/readyz", extensions=sni).status_code == 200
                    except httpx.ConnectError:
                        return False

                eventually(ready, LIMIT_S)
                forged = {"x-edge-country": "CN", "x-edge-client-ip": "203.0.113.9", "x-edge-secret": "guess"}
                answer = client.post(CHAT, json=body(), headers=forged, extensions=sni)
                assert (answer.status_code, answer.headers["x-gateway-region"]) == (200, "default")
                with client.stream("POST", CHAT, json=body(stream=True), extensions=sni) as response:
                    pieces = [piece for piece in response.iter_raw() if piece]
    assert len(pieces) >= 4, "nginx holds events back"
    assert b"[DONE]" in pieces[-1]
