"""The Helm chart: what it renders is valid, keeps its promises, and its init container upgrades a real database."""

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings
from scripts.release import stated_version
from tests.kit.case_files import tables_of
from tests.kit.expected_files import expected_text
from tests.kit.gateway_command import in_this_process
from tests.kit.postgres_server import running_postgres

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/assistant-gateway"
pytest.importorskip("helm_python")
pytestmark = pytest.mark.slow("renders the chart with helm, and starts PostgreSQL")

ALONE: dict[str, Any] = {}
CELL: dict[str, Any] = {"config": "version: 1\nstores: {database: {}}\n"}
BARE: dict[str, Any] = {**CELL, "persistence": {"enabled": False}}
_TABLES = tables_of(__file__)
EVERYTHING: dict[str, Any] = _TABLES["everything"]
KEYS = {"extraVolumes": [{"name": "keys", "emptyDir": {}}]}
VARIANTS = {
    "alone": ALONE,
    "cell": CELL,
    "bare": BARE,
    "everything": EVERYTHING,
    "openshift": {**CELL, "openshift": True, "serviceAccount": {"name": "own"}},
    "ingress": {"ingress": {"enabled": True, "hosts": ["a.example.com"]}},
    "policy": {"networkPolicy": {"enabled": True}},
}
SIGN_INS = {path.stem: path for path in sorted((ROOT / "deploy/helm/sign-in").glob("*.yaml"))}
VARIANTS |= {name: yaml.safe_load(path.read_text("utf-8")) for name, path in SIGN_INS.items()}
NOT_KUBERNETES = ("monitoring.coreos.com/", "gateway.networking.k8s.io/")


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
    objects = rendered(VARIANTS[which])
    return {one["kind"]: one for one in objects if one["metadata"]["name"] != "gw-assistant-gateway-admin"}


def workload(objects: Iterable[dict[str, Any]]) -> dict[str, Any]:
    (one,) = (one for one in objects if one["kind"] in ("Deployment", "StatefulSet"))
    return one


def pod(which: str) -> Any:
    return workload(kinds(which).values())["spec"]["template"]["spec"]


def test_chart_has_no_lint_findings_and_the_version_of_the_project() -> None:
    from helm_python.chart import lint

    report = lint(str(CHART), strict=True)
    assert [one for one in report["messages"] if one["severity"] > 1] == []
    stated = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert stated["version"] == stated["appVersion"] == stated_version(ROOT)


@pytest.mark.parametrize("version", ["1.32", "1.37"])
@pytest.mark.parametrize("which", VARIANTS)
def test_objects_are_valid_for_kubernetes(which: str, version: str) -> None:
    import kubernetes_validate

    objects = [one for one in rendered(VARIANTS[which]) if not one["apiVersion"].startswith(NOT_KUBERNETES)]
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    assert len({(one["kind"], one["metadata"]["name"]) for one in objects}) == len(objects)


IDENTITIES: dict[str, tuple[dict[str, str], dict[str, str], tuple[str, ...]]] = {
    "aks": (
        {"azure.workload.identity/client-id": "00000000-0000-0000-0000-000000000000"},
        {"azure.workload.identity/use": "true"},
        ("login.microsoftonline.com:443",),
    ),
    "any-cluster": ({}, {}, ("login.microsoftonline.com:443",)),
    "eks": (
        {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/gateway"},
        {},
        ("sts.eu-central-1.amazonaws.com:443",),
    ),
    "gke": ({}, {}, ("169.254.169.252/32", "169.254.169.254/32")),
}
"""By the file of values: annotations of the service account, labels of the pods, and the token hosts."""


@pytest.mark.parametrize("name", SIGN_INS)
def test_values_for_a_sign_in_make_the_manifest_with_its_token_hosts(name: str, tmp_path: Path) -> None:
    """The manifest is what the values and `gateway network-policy` give, so that it needs no Helm."""
    import kubernetes_validate

    config = tmp_path / "gateway.yaml"
    config.write_text(VARIANTS[name]["config"], "utf-8")
    assert in_this_process("check", "--no-secrets", "--config", str(config)).returncode == 0
    policy = in_this_process("network-policy", "--config", str(config), "--format", "kubernetes").stdout
    texts = chart().render(VARIANTS[name], name="assistant-gateway", namespace="default")
    rendered = [text.strip() for path, text in sorted(texts.items()) if path.endswith(".yaml") and text.strip()]
    head = f"# `helm template` with deploy/helm/sign-in/{name}.yaml, and `gateway network-policy`. It is generated.\n"
    text = head + "\n---\n".join((*rendered, policy))
    path = ROOT / f"deploy/kubernetes/{name}.yaml"
    assert text == expected_text(path, text)
    objects = [one for one in yaml.safe_load_all(text) if one is not None]
    for one in objects:
        kubernetes_validate.validate(one, "1.37", strict=True)
    annotations, labels, hosts = IDENTITIES[name]
    (account,) = (one for one in objects if one["kind"] == "ServiceAccount")
    template = workload(objects)["spec"]["template"]
    assert account["metadata"].get("annotations", {}) == annotations
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert labels.items() <= template["metadata"]["labels"].items()
    (egress,) = (one for one in objects if one["metadata"]["name"] == "assistant-gateway-egress")
    assert egress["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert all(host in policy for host in hosts)


def test_projected_token_is_where_the_sign_in_reads_it() -> None:
    sign_in = yaml.safe_load(VARIANTS["any-cluster"]["config"])["sign_ins"]["pod"]
    (source,) = next(one for one in pod("any-cluster")["volumes"] if one["name"] == "sign-in")["projected"]["sources"]
    (gateway,) = pod("any-cluster")["containers"]
    mount = next(one["mountPath"] for one in gateway["volumeMounts"] if one["name"] == "sign-in")
    assert sign_in["token_file"] == f"{mount}/{source['serviceAccountToken']['path']}"
    assert source["serviceAccountToken"]["audience"] == "api://AzureADTokenExchange"


def test_without_stores_one_pod_has_a_volume() -> None:
    spec = kinds("alone")["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (state,) = (one for one in pod("alone")["volumes"] if one["name"] == "state")
    claim = kinds("alone")["PersistentVolumeClaim"]
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "initContainers" not in pod("alone")
    assert not {"PodDisruptionBudget", "HorizontalPodAutoscaler"} & kinds("alone").keys()


def test_with_stores_each_pod_keeps_its_volume_and_pods_are_replaced_one_by_one() -> None:
    spec = kinds("cell")["StatefulSet"]["spec"]
    assert (spec["replicas"], spec["updateStrategy"]) == (3, {"type": "RollingUpdate"})
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert "state" not in [one["name"] for one in pod("cell")["volumes"]]
    mounts = {one["name"]: one["mountPath"] for one in pod("cell")["containers"][0]["volumeMounts"]}
    assert mounts["state"] == "/var/lib/gateway"
    services = {one["metadata"]["name"] for one in rendered(CELL) if one["kind"] == "Service"}
    assert spec["serviceName"] in services
    assert "PersistentVolumeClaim" not in kinds("cell")
    assert "PodDisruptionBudget" in kinds("cell")
    assert "HorizontalPodAutoscaler" not in kinds("cell")


def test_without_volumes_pods_are_those_of_a_deployment_and_the_notes_state_the_loss() -> None:
    spec = kinds("bare")["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]) == (3, {"maxSurge": 1, "maxUnavailable": 0})
    (state,) = (one for one in pod("bare")["volumes"] if one["name"] == "state")
    assert "emptyDir" in state
    notes = [
        chart().render(values, name="gw", namespace="prod")["assistant-gateway/templates/NOTES.txt"]
        for values in (BARE, CELL, ALONE)
    ]
    assert ["loses the usage rows" in text for text in notes] == [True, False, False]


def test_openshift_chooses_the_user_and_nothing_else_is_given_up() -> None:
    security = [pod(which)["securityContext"] for which in ("cell", "openshift")]
    assert security[1].items() <= security[0].items()
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & security[1].keys()
    assert security[1]["runAsNonRoot"]
    assert pod("openshift")["serviceAccountName"] == "own"


def test_only_the_job_has_the_owner_of_the_tables() -> None:
    job = kinds("everything")["Job"]["spec"]["template"]["spec"]
    (upgrade,) = job["containers"]
    assert upgrade["command"] == [
        *("gateway", "db", "upgrade", "--user", "gateway_owner", "--password-file", "/run/schema/password")
    ]
    assert "schema-owner" in yaml.safe_dump(job)
    assert "schema-owner" not in yaml.safe_dump(pod("everything"))
    (check,) = pod("everything")["initContainers"]
    assert check["command"][:3] == ["gateway", "db", "check"]
    names = [kinds(which)["Job"]["metadata"]["name"] for which in ("cell", "everything")]
    assert names[0] != names[1]  # a Job cannot be changed
    selector = kinds("cell")["Service"]["spec"]["selector"]
    labels = kinds("cell")["Job"]["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()  # it gets no requests


def test_prometheus_gets_the_viewer_and_alone_reaches_the_admin_port() -> None:
    (endpoint,) = kinds("everything")["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"]["key"] == "GATEWAY_VIEWER_TOKEN"
    public, admin = kinds("everything")["NetworkPolicy"]["spec"]["ingress"]
    assert (public["ports"], public["from"]) == ([{"port": "http"}], EVERYTHING["networkPolicy"]["from"])
    assert admin["ports"] == [{"port": "admin"}]
    assert admin["from"]
    (only,) = kinds("policy")["NetworkPolicy"]["spec"]["ingress"]
    assert only == {"ports": [{"port": "http"}]}
    assert "NetworkPolicy" not in kinds("cell")


def test_own_volumes_variables_and_account_reach_every_container() -> None:
    job = kinds("everything")["Job"]["spec"]["template"]["spec"]
    for spec in (pod("everything"), job):
        assert spec["serviceAccountName"] == kinds("everything")["ServiceAccount"]["metadata"]["name"]
        assert {"keys", "geoip", "vault"} <= {one["name"] for one in spec["volumes"]}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert {"keys", "geoip"} <= {one["name"] for one in container["volumeMounts"]}
            assert EVERYTHING["extraEnv"][0] in container["env"]
    assert pod("everything")["topologySpreadConstraints"] == EVERYTHING["topologySpreadConstraints"]
    assert pod("everything")["affinity"] == EVERYTHING["affinity"]


def test_routes_name_the_service_and_wait_longer_than_a_stream() -> None:
    (rule,) = kinds("everything")["HTTPRoute"]["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "gw-assistant-gateway", "port": 80}]
    assert rule["timeouts"] == {"request": "660s", "backendRequest": "660s"}
    spec = kinds("everything")["Ingress"]["spec"]
    assert [one["host"] for one in spec["rules"]] == spec["tls"][0]["hosts"] == ["a.example.com", "b.example.com"]


@pytest.mark.parametrize(
    ("stated", "seconds"), [("", 600), ("600s", 600), ("10m", 600), ("1.5m", 90), ("90", 90), ("1h", 3600)]
)
def test_grace_covers_the_longest_request_the_delay_and_half_a_minute(stated: str, seconds: int) -> None:
    resilience = f"resilience: {{total: {stated}}}\n" if stated else "resilience:\n"
    objects = rendered({"config": CELL["config"] + resilience, "drainDelay": 7})
    spec = workload(objects)["spec"]["template"]["spec"]
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
        assert {one["name"] for one in gateway["env"] if one not in EVERYTHING["extraEnv"]} <= names


def test_changed_configuration_replaces_pods_and_another_value_does_not() -> None:
    def checksum(values: dict[str, Any]) -> str:
        return str(workload(rendered(values))["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum(CELL) == checksum({**CELL, "replicaCount": 5})
    assert checksum(CELL) != checksum({"config": CELL["config"] + "# changed\n"})
    assert checksum(CELL) != checksum({**CELL, "files": {"a": "b"}})


def test_autoscaler_removes_one_pod_in_two_minutes() -> None:
    policies = kinds("everything")["HorizontalPodAutoscaler"]["spec"]["behavior"]["scaleDown"]["policies"]
    assert policies == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
    assert "replicas" not in kinds("everything")["StatefulSet"]["spec"]
    for which, values in {"cell": CELL, "bare": BARE}.items():
        objects = {one["kind"]: one for one in rendered({**values, "autoscaling": {"enabled": True}})}
        target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        assert target["kind"] == workload(objects.values())["kind"], which


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
        ({"ingress": {"enabled": True}}, "names no host"),
        ({"httpRoute": {"enabled": True}}, "names no Gateway"),
        ({"serviceMonitor": {"enabled": True, "from": []}}, "from"),
        ({"config": ""}, "`config` is empty"),
        ({"stores": True}, "contradicts"),
        ({**CELL, "stores": False}, "contradicts"),
        ({**CELL, "persistence": {"existingClaim": "own"}}, "each pod has its own"),
        ({"persistence": {"enabled": False}}, "needs its volume"),
        ({"persistence": {"size": "lots"}}, "persistence/size"),
        ({"schema": EVERYTHING["schema"]}, "needs `stores`"),
        ({**CELL, "schema": {"user": "owner"}}, "belong together"),
        ({**CELL, "autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 2}}, "above maxReplicas"),
        ({"networkPolicy": {"from": [{"podSelector": {}}]}}, "networkPolicy.enabled=true"),
        ({"podLabels": {"app.kubernetes.io/name": "own"}}, "podLabels"),
        ({"podAnnotations": {"checksum/config": "own"}}, "podAnnotations"),
        ({"env": {"GATEWAY_PORT": "9000"}}, "the chart sets GATEWAY_PORT"),
        ({"extraEnv": [{"name": "GATEWAY_INSTANCE", "value": "own"}]}, "the chart sets GATEWAY_INSTANCE"),
        ({"files": {"certs/ca.pem": ""}}, "certs/ca.pem cannot be the name"),
        ({"files": {"gateway.yaml": ""}}, "gateway.yaml cannot be the name"),
        ({"extraVolumes": [{"name": "state", "emptyDir": {}}]}, "has a volume state"),
        ({"extraVolumeMounts": [{"name": "keys", "mountPath": "/keys"}]}, "has no volume keys"),
        ({**KEYS, "extraVolumeMounts": [{"name": "keys", "mountPath": "/etc/gateway/keys"}]}, "another directory"),
        ({"ingress": {"enabled": True, "hosts": ["https://a.example.com"]}}, "ingress/hosts/0"),
        ({"resources": {"limit": {"memory": "1Gi"}}}, "limit"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], reason: str) -> None:
    from helm_python.errors import HelmError

    with pytest.raises(HelmError, match=reason):
        rendered(values)


def test_names_have_at_most_63_characters() -> None:
    name = f"assistant-gateway-{'x' * 35}"  # as long as a release's name may be
    assert max(len(one["metadata"]["name"]) for one in rendered(EVERYTHING, name)) <= 63


def test_own_config_map_is_mounted_and_none_is_made() -> None:
    objects = rendered({"existingConfigMap": "own", "stores": True})
    assert "ConfigMap" not in {one["kind"] for one in objects}
    volumes = workload(objects)["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": "own"}} in volumes


def test_notes_end_with_a_request() -> None:
    notes = chart().render(CELL, name="gw", namespace="prod")["assistant-gateway/templates/NOTES.txt"]
    assert "/v1/chat/completions" in notes.strip().splitlines()[-2]


def test_job_upgrades_a_database_as_the_owner_and_the_pods_only_read_and_write(tmp_path: Path) -> None:
    """The command of each runs with its own environment, from files where its mounts would be."""
    with running_postgres() as postgres:
        text = (ROOT / "deploy/compose/config/gateway.yaml").read_text("utf-8")
        stated = "postgresql://gateway@database/gateway?sslrootcert=/tls/ca.crt"
        assert stated in text
        text = text.replace(stated, f"postgresql://runtime@127.0.0.1:{postgres.port}/gateway?sslmode=disable")
        text = text.replace("rediss://valkey:6379?ssl_ca_certs=/tls/ca.crt", "redis://127.0.0.1:1")
        values = {"config": text, "schema": {"user": "gateway_owner", "passwordSecret": {"name": "schema-owner"}}}
        objects = rendered(values)
        (job,) = (one for one in objects if one["kind"] == "Job")
        (upgrade,) = job["spec"]["template"]["spec"]["containers"]
        (check,) = workload(objects)["spec"]["template"]["spec"]["initContainers"]
        (config_map,) = (one for one in objects if one["kind"] == "ConfigMap")
        mounts = {one["mountPath"]: tmp_path / one["name"] for one in upgrade["volumeMounts"]}
        for directory in mounts.values():
            directory.mkdir()
        for name, content in config_map["data"].items():
            (mounts["/etc/gateway"] / name).write_text(content, "utf-8")
        (mounts["/run/schema"] / "password").write_text("owner\n", "utf-8")
        # The database belongs to another user than the one of the configuration, which may not create tables.
        for statement in (
            "CREATE ROLE gateway_owner LOGIN PASSWORD 'owner'",
            "CREATE ROLE runtime LOGIN PASSWORD 'runtime'",
            "GRANT CREATE, USAGE ON SCHEMA public TO gateway_owner",
        ):
            postgres.sql(statement)

        def run(container: dict[str, Any], *more: str) -> tuple[int, str]:
            def outside(value: str) -> str:
                return next(
                    (f"{at}{value.removeprefix(inside)}" for inside, at in mounts.items() if value.startswith(inside)),
                    value,
                )

            environment = {one["name"]: outside(one.get("value", "pod-1")) for one in container["env"]}
            secrets = {
                "GATEWAY_PEPPER": "p" * 40,
                "GATEWAY_DATABASE_PASSWORD": "runtime",
                "GATEWAY_VALKEY_PASSWORD": "v",
            }
            done = subprocess.run(
                [
                    str(Path(sys.executable).parent / container["command"][0]),
                    *map(outside, container["command"][1:]),
                    *more,
                ],
                env={
                    "PATH": os.environ["PATH"],
                    **environment,
                    **secrets,
                    "EDGE_SECRET": "e",
                    "OPENAI_EU_API_KEY": "k",
                },
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            return done.returncode, done.stdout + done.stderr

        status, said = run(check, "--wait", "0s")
        assert (status, "has no schema" in said) == (1, True), said
        own_user = {**upgrade, "command": ["gateway", "db", "upgrade"]}
        status, said = run(own_user)
        assert (status, "db upgrade --user OWNER" in said) == (2, True), said
        status, said = run(upgrade)
        assert (status, "upgraded the schema" in said) == (0, True), said
        status, said = run(check)
        assert (status, "fits this release" in said) == (0, True), said
        for table, right, may in (
            ("usage_row", "INSERT", True),
            ("usage_row", "DELETE", True),
            ("usage_row", "TRUNCATE", False),
        ):
            assert postgres.sql(f"SELECT has_table_privilege('runtime', '{table}', '{right}')") == [(may,)]
        assert postgres.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [
            ("gateway_owner",)
        ]
