"""The files of Compose: their form, the files and services they name, their secrets, certificates and servers."""

import json
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.cli.terminal import compile_file
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/compose"
FILES = {name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8")) for name in ("compose", "monitoring")}
WRITTEN = {".env", "edge-secret.conf", "tls"}
# The schema of the Compose specification as docker-compose 1.29.2 has it (Apache-2.0), which does not know `name` yet.
SCHEMA = json.loads((ROOT / "tests/fixtures/compose_spec.json").read_text("utf-8"))


def services() -> dict[str, Any]:
    return {**FILES["compose"]["services"], **FILES["monitoring"]["services"]}


@pytest.mark.parametrize("name", FILES)
def test_file_has_the_form_of_the_specification(name: str) -> None:
    # The schema does not know secrets of a variable.
    content = {key: value for key, value in FILES[name].items() if key not in ("name", "secrets")}
    jsonschema.Draft201909Validator(SCHEMA).validate(content)


def test_named_services_volumes_and_files_exist() -> None:
    volumes = {*FILES["compose"]["volumes"], *FILES["monitoring"]["volumes"]}
    for name, service in services().items():
        assert set(service.get("depends_on", ())) <= set(services()), name
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                is_written = Path(source).parts[0] in WRITTEN
                assert is_written or (FOLDER / source).exists(), f"{name} mounts {source}"
            else:
                assert source in volumes, f"{name} mounts {source}"


def test_settings_exist() -> None:
    names = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}
    for name in ("upgrade", "gateway-one", "gateway-two"):
        assert set(services()[name]["environment"]) <= names


def test_instances_have_names_and_state_of_their_own() -> None:
    one, two = (services()[f"gateway-{number}"] for number in ("one", "two"))
    assert one["environment"]["GATEWAY_INSTANCE"] != two["environment"]["GATEWAY_INSTANCE"]
    assert not {it for it in one["volumes"] if "state" in it} & set(two["volumes"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "compose"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(*WRITTEN))
    subprocess.run(["sh", str(folder / "prepare.sh")], check=True, capture_output=True)
    return folder


def secrets_of(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.slow
def test_secrets_are_made_once_and_every_variable_has_one(prepared: Path) -> None:
    first = secrets_of(prepared)
    certificate = (prepared / "tls/public.crt").read_bytes()
    subprocess.run(["sh", str(prepared / "prepare.sh")], check=True, capture_output=True)
    assert secrets_of(prepared) == first
    assert (prepared / "tls/public.crt").read_bytes() == certificate
    assert len(set(first.values())) == len(first)
    assert (prepared / ".env").stat().st_mode & 0o077 == 0
    texts = [(FOLDER / f"{name}.yaml").read_text("utf-8") for name in FILES]
    texts.append((FOLDER / "config/gateway.yaml").read_text("utf-8"))
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", "\n".join(texts))) - {"GATEWAY_IMAGE", "OPENAI_EU_API_KEY"}
    assert used == set(first) - {"GATEWAY_ADMIN_TOKEN", "GATEWAY_VIEWER_TOKEN"}  # the gateway reads these itself


@pytest.mark.slow
def test_secrets_of_the_folder_can_be_read_by_their_owner_only(prepared: Path) -> None:
    """Also not in a folder of an earlier release, whose keys and token everybody could read."""
    (prepared / "metrics-token").write_text("old")
    for path in (prepared / "tls").iterdir():
        path.chmod(0o644)
    subprocess.run(["sh", str(prepared / "prepare.sh")], check=True, capture_output=True)
    secrets = {value for value in secrets_of(prepared).values() if value} | {"PRIVATE KEY"}
    holding = {
        path.relative_to(prepared): path.stat().st_mode & 0o077
        for path in prepared.rglob("*")
        if path.is_file() and any(secret in path.read_text("utf-8") for secret in secrets)
    }
    assert len(holding) == 6
    assert not any(holding.values()), holding


def test_each_secret_of_a_service_is_a_variable_of_the_cell() -> None:
    declared = {name: it["environment"] for name, it in FILES["monitoring"]["secrets"].items()}
    used = {it["source"] for service in services().values() for it in service.get("secrets", ())}
    assert used == set(declared)
    assert "GATEWAY_VIEWER_TOKEN" in (FOLDER / "prepare.sh").read_text("utf-8")
    assert set(declared.values()) == {"GATEWAY_VIEWER_TOKEN"}


@pytest.mark.slow
def test_certificates_name_their_services_and_are_trusted(prepared: Path) -> None:
    for name in ("database", "valkey", "public"):
        verified = subprocess.run(
            ["openssl", "verify", "-CAfile", prepared / "tls/ca.crt", "-verify_hostname", name, f"{prepared}/tls/{name}.crt"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert verified.returncode == 0, verified.stderr
        ssl.create_default_context(cafile=prepared / "tls/ca.crt")


@pytest.mark.slow
def test_configuration_is_valid_with_the_secrets(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**secrets_of(prepared), "OPENAI_EU_API_KEY": "sk-test"}.items():
        monkeypatch.setenv(name, value)
    text = (prepared / "config/gateway.yaml").read_text("utf-8").replace("/tls/", f"{prepared}/tls/")
    (prepared / "gateway.yaml").write_text(text, "utf-8")
    config = compile_file(prepared / "gateway.yaml").config
    assert config.stores is not None


@pytest.mark.slow
def test_nginx_accepts_its_file(prepared: Path) -> None:
    """Debian's nginx is older than the image's: it does not know `resolve` and `http2 on`."""
    text = (prepared / "nginx.conf").read_text("utf-8")
    for here, there in {
        " resolve max_fails": " max_fails",
        "gateway-one:8080": "127.0.0.1:8080",
        "gateway-two:8080": "127.0.0.1:8081",
        "        http2 on;\n": "",
        "listen 443 ssl": "listen 127.0.0.1:8443 ssl",
        "/tls/": f"{prepared}/tls/",
        "/etc/nginx/edge-secret.conf": f"{prepared}/edge-secret.conf",
    }.items():
        assert here in text
        text = text.replace(here, there)
    country = 'http {\n    map "" $edge_country { default DE; }'
    for written, message in ((text, 'unknown "edge_country" variable'), (text.replace("http {", country, 1), "")):
        (prepared / "tested.conf").write_text(f"pid {prepared}/nginx.pid;\nerror_log stderr;\n{written}", "utf-8")
        done = subprocess.run(
            [shutil.which("nginx") or "/usr/sbin/nginx", "-t", "-c", prepared / "tested.conf", "-p", prepared],
            capture_output=True, text=True, check=False, env={**os.environ},
        )  # fmt: skip
        assert (done.returncode == 0) == (not message), done.stderr
        assert message in done.stderr
