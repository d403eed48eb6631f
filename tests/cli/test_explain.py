"""`gateway explain`: the same result as the running gateway, as JSON and as text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gateway.cli.terminal import compile_file
from gateway.model.schedule import Phase, ScheduleProgress
from gateway.model.served import USES
from gateway.state.schedules import ScheduleStore
from tests.cli.conftest import ROOT, Command
from tests.kit.case_files import cases
from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, BACKEND_KEY, GatewayProcess, config_of_four_regions, running_gateway
from tests.kit.mmdb import country, mmdb

DEMO = ROOT / "config" / "demo.yaml"
EXAMPLE = ROOT / "config" / "gateway.yaml"
SITES = ("cn", "eu", "eu2", "us", "gemini", "intl")
KEYS = {"KEY_CN": "sk-1", "KEY_EU": "sk-2", "KEY_US": "sk-3", "KEY_GEMINI": "sk-4"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    origins = {name: f"http://127.0.0.1:{number}" for number, name in enumerate(SITES, 1)}
    return config_of_four_regions(origins).write(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def server(config: Path) -> Iterator[GatewayProcess]:
    with running_gateway(config, KEYS) as process:
        yield process


@pytest.mark.parametrize("client", ["app", "backend"])
@pytest.mark.parametrize("place", ["DE", "CN", "US", "HK", "JP", "CU", "XX", "T1", "uk", None])
def test_explain_json_equals_the_answer_of_the_running_gateway(
    gateway: Command,
    server: GatewayProcess,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str | None,
    client: str,
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    headers = {"authorization": f"Bearer {APP_KEY if client == 'app' else BACKEND_KEY}"}
    headers |= {"cf-ipcountry": place} if place else {}
    served = httpx.get(f"{server.url}/v1/explain", headers=headers, trust_env=False)
    asked = ["--from", place] if place else []
    shown = gateway("explain", "--config", config, "--client", client, "--json", *asked)
    assert (shown.status, shown.err) == (0, "")
    explanation = json.loads(shown.out)
    for step in explanation["outcome"].get("plan", ()):
        # The text for operators may name origins and key sources.
        assert step["site"].startswith("http://127.0.0.1:")
        step["site"] = None
    for item in explanation["considered"]:
        if item["reason"] == "credential":
            assert "KEY_" in item["detail"]
            item["detail"] = "no credential"
    assert explanation == served.json()


@cases("asked")
def test_a_running_gateway_explains_as_its_config(
    gateway: Command, server: GatewayProcess, config: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    there, here = (
        gateway("explain", *where, *asked) for where in (("--admin", server.admin_url), ("--config", config))
    )
    assert (there.status, there.err, here.status) == (0, "", 0)
    if "--json" in asked:
        members = {"assistant", "location", "outcome"}
        assert {name: json.loads(there.out)[name] for name in members} == {
            name: json.loads(here.out)[name] for name in members
        }
    else:
        assert there.out == here.out


@cases("asked", "error")
def test_what_a_running_gateway_cannot_explain_is_an_error(
    gateway: Command, server: GatewayProcess, asked: list[str], error: str
) -> None:
    shown = gateway("explain", "--admin", server.admin_url, *asked)
    assert shown.status != 0
    assert error in shown.err


def test_explain_text_has_location_plan_and_skipped_deployments(gateway: Command) -> None:
    shown = gateway("explain", "--config", DEMO, "--from", "HK")
    assert (shown.status, shown.err) == (0, "")
    before, table = shown.out.split("\nconfig       ")
    assert len(table.strip()) == 12
    assert before == (
        "assistant    assistant\n"
        "region       default, decided by edge_header\n"
        "  * edge_header: 'HK' is Hong Kong, in region default\n"
        "\n"
        "answered by\n"
        "  1. qwen-hk: dashscope qwen-plus at hongkong\n"
        "     stores: HK; processes: any\n"
        "  2. qwen-intl: dashscope qwen-plus at intl\n"
        "     stores: SG; processes: any but CN\n"
        "\n"
        "passed over\n"
        "  - gemini (availability): gemini does not serve Hong Kong\n"
    )


@cases("place", "wanted")
def test_explain_text_has_a_refusal(gateway: Command, place: str | None, wanted: list[str]) -> None:
    shown = gateway("explain", "--config", DEMO, *(["--from", place] if place else []))
    assert shown.status == 0
    for words in wanted:
        assert words in shown.out
    assert max(map(len, shown.out.splitlines())) <= 100


def test_explain_marks_an_assumed_region(gateway: Command) -> None:
    Config.parse(DEMO.read_text("utf-8")).merge("location: {unknown: us}").write(Path(), "demo.yaml")
    assert (
        "region       us, assumed, because no signal names the location"
        in gateway("explain", "--config", "demo.yaml").out
    )


def test_explain_shows_the_routes_of_another_use(gateway: Command) -> None:
    shown = gateway("explain", "--config", DEMO, "--from", "DE", "--use", "embeddings")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith("assistant    assistant (embeddings)\n")
    assert "1. embed-eu: " in shown.out
    listed = gateway("explain", "--config", DEMO, "--from", "DE", "--use", "embeddings", "--json")
    assert json.loads(listed.out)["outcome"]["plan"][0]["deployment"] == "embed-eu"
    refused = gateway("explain", "--config", DEMO, "--request", "r", "--use", "embeddings")
    assert "--use is for a request that is supposed: leave it out with --request" in refused.err


@cases("choice", "result", "first")
def test_explain_text_follows_the_choice_of_the_user_as_json_does(
    gateway: Command, choice: str, result: str, first: str
) -> None:
    choices = {"qwen": ["qwen-intl"], "eu": ["chatgpt-eu"], "hk": ["qwen-hk"]}
    titled = {name: {"deployments": listed, "title": {"en": name}} for name, listed in choices.items()}
    Config.parse(DEMO.read_text("utf-8")).merge({"assistants": {"assistant": {"choices": titled}}}).write(Path())
    arguments = ("explain", "--config", "gateway.yaml", "--from", "SG", "--prefer", choice)
    text, explained = gateway(*arguments).out, json.loads(gateway(*arguments, "--json").out)
    assert f"preference   {choice}: {result}\n" in text
    assert f"  1. {first}: " in text
    assert explained["outcome"]["plan"][0]["deployment"] == first
    assert "emulated" not in explained
    other_use = gateway(
        "explain", "--config", "gateway.yaml", "--from", "SG", "--prefer", choice, "--use", "embeddings"
    )
    assert "preference" not in other_use.out


def test_explain_names_emulated_fields(gateway: Command) -> None:
    # OpenAI's promise for Europe does not cover schemas, and the demo emulates them.
    explained = json.loads(gateway("explain", "--config", DEMO, "--from", "DE", "--json").out)
    assert explained["emulated"] == ["response_format"]


@pytest.mark.parametrize("use", USES)
def test_explain_knows_every_use(gateway: Command, use: str) -> None:
    assert gateway("explain", "--config", DEMO, "--from", "DE", "--use", use).status == 0


def test_explain_uses_the_region_of_a_bound_key(gateway: Command) -> None:
    client = {"keys": [f"sha256:{'0' * 64}"], "region": "eu"}
    Config.parse(EXAMPLE.read_text("utf-8")).merge({"clients": {"eu-app": client}}).write(Path())
    arguments = ("explain", "--config", "gateway.yaml", "--client", "eu-app", "--no-secrets")
    shown = gateway(*arguments)
    assert "  * api_key: 'eu-app', in region eu" in shown.out
    assert "1. chatgpt-eu" in shown.out
    assert "no_healthy_deployment" in gateway(*arguments[:-1]).out


@cases("arguments", "message")
def test_wrong_name_gets_a_suggestion(gateway: Command, arguments: list[str], message: str) -> None:
    shown = gateway("explain", "--config", DEMO, *arguments)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.startswith(f"gateway: {message}")


def test_explain_needs_an_assistant_if_there_are_several(gateway: Command) -> None:
    other = "assistants: {other: {routes: {us: [chatgpt-us]}}}"
    Config.parse(DEMO.read_text("utf-8")).merge(other).write(Path(), "demo.yaml")
    shown = gateway("explain", "--config", "demo.yaml")
    assert (shown.status, shown.err) == (2, "gateway: --assistant is missing; the assistants are: assistant, other\n")
    assert "1. chatgpt-us" in gateway("explain", "--config", "demo.yaml", "--assistant", "other", "--from", "US").out


def test_territory_without_a_trusted_edge_prints_a_note(gateway: Command) -> None:
    shown = gateway("explain", "--config", EXAMPLE, "--from", "DE", "--no-secrets")
    assert "in region eu" in shown.out
    assert shown.err == "gateway: --from has no effect: `edge_header` (`location.edges`) is not set up\n"
    Config.parse(EXAMPLE.read_text("utf-8")).merge("location: {signals: [api_key]}").write(Path())
    shown = gateway("explain", "--config", "gateway.yaml", "--from", "DE")
    assert "region_unknown" in shown.out
    assert "--from has no effect" in shown.err


def test_explain_rejects_a_config_with_errors(gateway: Command) -> None:
    Path("broken.yaml").write_text("version: 2\n")
    shown = gateway("explain", "--config", "broken.yaml")
    assert (shown.status, shown.out) == (1, "")
    assert "broken.yaml:1:10: version: must be 1" in shown.err


def canary(tmp_path: Path) -> Path:
    path = config_of_four_regions({name: f"http://127.0.0.1:{number}" for number, name in enumerate(SITES, 1)})
    schedule = {"eu": {"candidate": "chatgpt-eu-2", "steps": "5% for 1h, 50% for 1h, 100%"}}
    routes = {"routes": {"eu": [{"chatgpt-eu": 95, "chatgpt-eu-2": 5}]}, "schedules": schedule}
    return path.merge({"assistants": {"assistant": routes}}).write(tmp_path)


def test_explain_has_the_shares_that_a_schedule_has_reached(gateway: Command, tmp_path: Path) -> None:
    path, state = canary(tmp_path), tmp_path / "state"
    state.mkdir()
    asked = ("explain", "--config", path, "--no-secrets", "--from", "DE", "--json")
    schedule = compile_file(path, resolve_secrets=False).config.assistants["assistant"].schedules["eu"]
    with closing(ScheduleStore(state)) as store:
        store.save({("assistant", "eu"): (schedule.identity, ScheduleProgress(Phase.RUNNING, stage=1))}, {})
    for more, shares in (
        ((), {"chatgpt-eu": 95, "chatgpt-eu-2": 5}),
        (("--state", state), {"chatgpt-eu": 50, "chatgpt-eu-2": 50}),
    ):
        shown = gateway(*asked, *more)
        assert (shown.status, shown.err) == (0, "")
        assert json.loads(shown.out)["weighted"]["shares"] == {name: percent / 100 for name, percent in shares.items()}


def test_explain_locates_an_address_by_the_database(gateway: Command, tmp_path: Path) -> None:
    (tmp_path / "places.mmdb").write_bytes(mmdb({"8.8.8.0/24": country("CN")}, built_at=int(time.time())))
    origins = {name: f"http://127.0.0.1:{number}" for number, name in enumerate(SITES, 1)}
    patch = {"location": {"signals": ["edge_header", "geoip"], "geoip": {"path": "places.mmdb"}}}
    path = config_of_four_regions(origins, patch).write(tmp_path)
    asked = ("explain", "--config", path, "--no-secrets", "--json", "--ip")
    shown = gateway(*asked, "8.8.8.8")
    assert (shown.status, shown.err) == (0, "")
    assert json.loads(shown.out)["location"]["region"] == "cn"
    assert json.loads(gateway(*asked, "9.9.9.9").out)["location"]["region"] is None
    assert "is not an address" in gateway(*asked, "here").err
    without = config_of_four_regions(origins).write(tmp_path)
    assert "write `location.geoip`" in gateway("explain", "--config", without, "--no-secrets", "--ip", "::1").err
