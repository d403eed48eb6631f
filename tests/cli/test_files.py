"""`gateway init`, `schema` and `key new`: their files and outputs work without changes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx

from gateway.settings import Settings
from tests.cli.conftest import ROOT, Command
from tests.kit.gateway_process import config_of_one_region, running_gateway

WRITTEN = ("gateway.yaml", "gateway.schema.json", "env.example")


def test_init_writes_the_built_in_files(gateway: Command) -> None:
    shown = gateway("init", "my gateway")
    assert (shown.status, shown.err) == (0, "")
    for name in WRITTEN:
        assert (Path("my gateway") / name).read_bytes() == (ROOT / "config" / name).read_bytes()
        assert f"wrote my gateway/{name}" in shown.out
    assert "  set -a; . './my gateway/env.example'; set +a\n  gateway check 'my gateway/gateway.yaml'\n" in shown.out
    assert gateway("check", "--no-secrets", "--strict", "my gateway/gateway.yaml").status == 0


def test_init_writes_to_the_current_directory_by_default(gateway: Command) -> None:
    assert "\n  set -a; . ./env.example; set +a\n" in gateway("init").out
    assert {path.name for path in Path().iterdir()} == set(WRITTEN)


def test_init_overwrites_no_file(gateway: Command) -> None:
    Path("env.example").write_text("mine")
    shown = gateway("init")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err == "gateway: env.example already exists; no file was written\n"
    assert [path.name for path in Path().iterdir()] == ["env.example"]


def test_init_writes_an_example(gateway: Command) -> None:
    assert gateway("init", "--example", "eu-only").status == 0
    assert gateway("check", "--no-secrets", "--strict", "gateway.yaml").status == 0
    keys = [line for line in Path("env.example").read_text("utf-8").splitlines() if line.endswith("=")]
    assert keys == ["OPENAI_EU_API_KEY=", "HOUSE_API_KEY=", "EDGE_SECRET="]


def test_init_lists_the_examples_for_a_wrong_name(gateway: Command) -> None:
    shown = gateway("init", "--example", "moon")
    assert shown.status == 2
    assert shown.err.startswith("gateway: there is no example 'moon'; the examples are: asserting-backend, cell-")
    assert list(Path().iterdir()) == []


def test_init_names_an_unwritable_directory(gateway: Command) -> None:
    Path("file").write_text("")
    shown = gateway("init", "file")
    assert shown.status == 2
    assert shown.err == "gateway: can't write to file: File exists; name another directory\n"


def test_init_reports_an_unreadable_directory(gateway: Command) -> None:
    """The path has a name that is too long, or a directory without permission."""
    name = "x" * 300
    shown = gateway("init", name)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err == f"gateway: can't write to {name}: File name too long; name another directory\n"
    Path("two.yaml").write_bytes((ROOT / "config" / "gateway.yaml").read_bytes())
    for words in (("check", name), ("plan", name), ("diff", name, "two.yaml"), ("plan", "two.yaml", "--from", name)):
        shown = gateway(*words)
        assert shown.status in (1, 2)
        assert "the file can't be read (File name too long)" in shown.out + shown.err


def test_env_example_has_every_key_and_setting() -> None:
    config = (ROOT / "config" / "gateway.yaml").read_text("utf-8")
    example = (ROOT / "config" / "env.example").read_text("utf-8")
    used = set(re.findall(r"^[^#\n]*\$\{(\w+)\}", config, re.MULTILINE))
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == used
    optional = set(re.findall(r"\$\{(\w+)\}", config)) - used - {"NAME"}
    assert set(re.findall(r"^# (?!GATEWAY_)(\w+)=$", example, re.MULTILINE)) == optional
    settings = dict(re.findall(r"^# (GATEWAY_\w+)=(.*)$", example, re.MULTILINE))
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        default = getattr(defaults, name)
        assert settings.pop(f"GATEWAY_{name.upper()}") == (
            f"{default:g}" if isinstance(default, float) else "" if default is None else str(default).lower()
        )
    assert not settings


def test_schema_prints_the_built_in_schema(gateway: Command) -> None:
    shown = gateway("schema")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out == (ROOT / "config" / "gateway.schema.json").read_text("utf-8")


def test_new_key_is_accepted_by_a_config_with_its_hash(gateway: Command, tmp_path: Path) -> None:
    shown = gateway("key", "new")
    assert (shown.status, shown.err) == (0, "")
    key, digest = re.findall(r"^(?:Key|Hash): (\S+)$", shown.out, re.MULTILINE)
    assert digest == f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    assert len(key) >= 40
    assert gateway("key", "new").out != shown.out
    house = {"provider": "openai-compatible", "model": "m", "endpoint": "http://127.0.0.1:1/v1"}
    me = {"app": None, "me": {"keys": [digest], "region": "world"}}
    config = config_of_one_region({"house": house}, "deployments: {house: {api_key: null}}", {"clients": me})
    with (
        running_gateway(config.write(tmp_path)) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        answer = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert [entry["id"] for entry in answer.json()["data"]] == ["house"]
        assert client.get("/v1/models", headers={"authorization": f"Bearer {key}x"}).status_code == 401


def test_failed_key_pair_leaves_no_file(gateway: Command) -> None:
    Path("key.pem.pub").write_text("mine")
    shown = gateway("key", "new", "--ed25519", "key.pem")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err == "gateway: key.pem.pub can't be written (File exists); no file was overwritten\n"
    assert {path.name for path in Path().iterdir()} == {"key.pem.pub"}
