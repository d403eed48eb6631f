"""The Helm chart: what it renders is valid, keeps its promises, and its init container upgrades a real database."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings
from scripts.release import stated_version
from tests.kit.postgres_server import PASSWORD, running_postgres

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/assistant-gateway"
pytest.importorskip("helm_python")
pytestmark = pytest.mark.slow

ALONE: dict[str, Any] = {}
CELL: dict[str, Any] = {"config": "version: 1\nstores: {database: {}}\n"}
EVERYTHING: dict[str, Any] = {
    **CELL,
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "autoscaling": {"enabled": True},
    "files": {"catalogue.yaml": "models: {}\n"},
    "imagePullSecrets": [{"name": "registry"}],
    "tolerations": [{"operator": "Exists"}],
    "nodeSelector": {"disk": "ssd"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "x"},
    "priorityClassName": "high",
    "service": {"annotations": {"c": "d"}},
    "image": {"digest": f"sha256:{'a' * 64}"},
}


def chart() -> Any:
    from helm_python.chart import Chart

    return Chart.load(str(CHART))


def rendered(values: dict[str, Any], name: str = "gw") -> list[dict[str, Any]]:
    texts = chart().render(values, name=name, namespace="prod")
    return [
        one
        for path, text in texts.items()
        if path.endswith(".yaml")
        for one in yaml.safe_load_all(text)
        if one is not None
    ]


@cache
def kinds(which: str) -> dict[str, dict[str, Any]]:
    values = {"alone": ALONE, "cell": CELL, "everything": EVERYTHING}[which]
    return {one["kind"]: one for one in rendered(values) if one["metadata"]["name"] != "gw-assistant-gateway-admin"}


def pod(which: str) -> Any:
    return kinds(which)["Deployment"]["spec"]["template"]["spec"]


def test_chart_has_no_lint_findings_and_the_version_of_the_project() -> None:
    from helm_python.chart import lint

    report = lint(str(CHART), strict=True)
    assert [one for one in report["messages"] if one["severity"] > 1] == []
    stated = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert stated["version"] == stated["appVersion"] == stated_version(ROOT)


@pytest.mark.parametrize("which", ["alone", "cell", "everything"])
def test_objects_are_valid_for_kubernetes(which: str) -> None:
    import kubernetes_validate

    for one in kinds(which).values():
        if not one["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(one, "1.37", strict=True)


def test_without_stores_one_pod_has_a_volume() -> None:
    spec = kinds("alone")["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (state,) = (one for one in pod("alone")["volumes"] if one["name"] == "state")
    claim = kinds("alone")["PersistentVolumeClaim"]
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "initContainers" not in pod("alone")
    assert not {"PodDisruptionBudget", "HorizontalPodAutoscaler"} & kinds("alone").keys()


def test_with_stores_pods_are_replaced_one_by_one_and_keep_nothing() -> None:
    spec = kinds("cell")["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]) == (3, {"maxSurge": 1, "maxUnavailable": 0})
    (state,) = (one for one in pod("cell")["volumes"] if one["name"] == "state")
    assert "emptyDir" in state
    assert "PersistentVolumeClaim" not in kinds("cell")
    assert "PodDisruptionBudget" in kinds("cell")
    assert "HorizontalPodAutoscaler" not in kinds("cell")


@pytest.mark.parametrize(
    ("stated", "seconds"), [("", 600), ("600s", 600), ("10m", 600), ("1.5m", 90), ("90", 90), ("1h", 3600)]
)
def test_grace_covers_the_longest_request_the_delay_and_half_a_minute(stated: str, seconds: int) -> None:
    resilience = f"resilience: {{total: {stated}}}\n" if stated else "resilience:\n"
    (deployment,) = (
        one for one in rendered({"config": CELL["config"] + resilience, "drainDelay": 7}) if one["kind"] == "Deployment"
    )
    spec = deployment["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == seconds + 7 + 30
    (gateway,) = spec["containers"]
    environment = {one["name"]: one.get("value") for one in gateway["env"]}
    assert (environment["GATEWAY_GRACE_S"], environment["GATEWAY_DRAIN_DELAY_S"]) == (str(seconds), "7")
    stop = gateway["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["gateway", "drain", "--admin", "http://127.0.0.1:8081", "--timeout", f"{seconds}s"]


@pytest.mark.parametrize("which", ["alone", "cell"])
def test_pods_have_few_rights(which: str) -> None:
    spec = pod(which)
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"name": "ndots", "value": "1"} in spec["dnsConfig"]["options"]
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert not [one for one in container["env"] if "valueFrom" in one and "secretKeyRef" in one["valueFrom"]]
        assert container["envFrom"] == [{"secretRef": {"name": "assistant-gateway"}}]


def test_settings_of_the_chart_exist() -> None:
    names = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}
    for which in ("alone", "cell", "everything"):
        (gateway,) = pod(which)["containers"]
        assert {one["name"] for one in gateway["env"]} <= names


def test_changed_configuration_replaces_pods_and_another_value_does_not() -> None:
    def checksum(values: dict[str, Any]) -> str:
        (one,) = (it for it in rendered(values) if it["kind"] == "Deployment")
        return str(one["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum(CELL) == checksum({**CELL, "replicaCount": 5})
    assert checksum(CELL) != checksum({"config": CELL["config"] + "# changed\n"})
    assert checksum(CELL) != checksum({**CELL, "files": {"a": "b"}})


def test_autoscaler_removes_one_pod_in_two_minutes() -> None:
    policies = kinds("everything")["HorizontalPodAutoscaler"]["spec"]["behavior"]["scaleDown"]["policies"]
    assert policies == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
    assert "replicas" not in kinds("everything")["Deployment"]["spec"]


def test_rules_are_those_of_the_file() -> None:
    text = (ROOT / "deploy/helm/assistant-gateway/rules.yml").read_text("utf-8")
    assert kinds("everything")["PrometheusRule"]["spec"] == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"autoscaling": {"enabled": True}}, "needs `stores`"),
        ({"existingConfigMap": "own"}, "state whether"),
        ({"replicas": 3}, "replicas"),
        ({"replicaCount": 0}, "replicaCount"),
        ({"config": "resilience: {total: soon}"}, "total"),
        ({"config": "version: 1\nstores: [\n"}, "`config` is not valid YAML"),
        ({"image": {"digest": "sha256:1"}}, "digest"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], reason: str) -> None:
    from helm_python.errors import HelmError

    with pytest.raises(HelmError, match=reason):
        rendered(values)


def test_own_config_map_is_mounted_and_none_is_made() -> None:
    objects = rendered({"existingConfigMap": "own", "stores": True})
    assert "ConfigMap" not in {one["kind"] for one in objects}
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": "own"}} in volumes


def test_notes_end_with_a_request() -> None:
    notes = chart().render(CELL, name="gw", namespace="prod")["assistant-gateway/templates/NOTES.txt"]
    assert "/v1/chat/completions" in notes.strip().splitlines()[-2]


def test_init_container_upgrades_a_database(tmp_path: Path) -> None:
    """Its own command runs with its own environment, from files where its mounts would be."""
    with running_postgres() as postgres:
        text = (ROOT / "deploy/compose/config/gateway.yaml").read_text("utf-8")
        stated = "postgresql://gateway@database/gateway?sslrootcert=/tls/ca.crt"
        assert stated in text
        text = text.replace(stated, f"postgresql://gateway@127.0.0.1:{postgres.port}/gateway?sslmode=disable")
        text = text.replace("rediss://valkey:6379?ssl_ca_certs=/tls/ca.crt", "redis://127.0.0.1:1")
        objects = rendered({"config": text})
        (upgrade,) = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]["spec"][
            "initContainers"
        ]
        (config_map,) = (one for one in objects if one["kind"] == "ConfigMap")
        mounts = {one["mountPath"]: tmp_path / one["name"] for one in upgrade["volumeMounts"]}
        for directory in mounts.values():
            directory.mkdir()
        for name, content in config_map["data"].items():
            (mounts["/etc/gateway"] / name).write_text(content, "utf-8")
        environment = {one["name"]: one.get("value", "pod-1") for one in upgrade["env"]}
        for name, value in environment.items():
            for inside, outside in mounts.items():
                if value.startswith(inside):
                    environment[name] = f"{outside}{value.removeprefix(inside)}"
        secrets = {"GATEWAY_PEPPER": "p" * 40, "GATEWAY_DATABASE_PASSWORD": PASSWORD, "GATEWAY_VALKEY_PASSWORD": "v"}
        done = subprocess.run(
            [str(Path(sys.executable).parent / upgrade["command"][0]), *upgrade["command"][1:]],
            env={"PATH": os.environ["PATH"], **environment, **secrets, "EDGE_SECRET": "e", "OPENAI_EU_API_KEY": "k"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, "upgraded the schema" in done.stdout) == (0, True), done.stdout + done.stderr
        assert postgres.sql("SELECT count(*) FROM usage_row") == [(0,)]
