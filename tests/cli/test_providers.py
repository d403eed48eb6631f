"""`gateway providers`: the list, the check with one request, and the template of an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.registry import load_registry
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from scripts.generate import MODELS_PAGE, PROVIDERS_PAGE
from tests.cli.conftest import ONLY_KIT, ROOT, Command
from tests.kit.case_files import tables_of
from tests.kit.configs import Config

KEY = "sk-very-secret"
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {us: [real, keyless]}}}
regions: {us: {territories: [US], boundary: [US]}}
deployments:
  real: {provider: openai, model: gpt-4o, stores: US, processes: US, api_key: "${REAL_KEY}"}
  keyless: {provider: openai, model: gpt-4o, endpoint: us, api_key: "${UNSET_KEY}"}
  outside: {provider: gemini, model: gemini-3.8-flash, api_key: "${REAL_KEY}"}
""")


def config_with_endpoint(origin: str) -> Config:
    return CONFIG.merge({"deployments": {"real": {"endpoint": f"{origin}/v1"}}})


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorThread]:
    with SimulatorThread({"real": SimulatorServer(load_simulators().simulators["openai"], "the real one")}) as thread:
        yield thread


@pytest.fixture
def config(provider: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    provider["real"].scenario = Scenario()
    monkeypatch.setenv("REAL_KEY", KEY)
    return config_with_endpoint(provider["real"].origin).write(tmp_path)


def test_providers_lists_every_provider_with_its_sites(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_EU_API_KEY", KEY)
    shown = gateway("providers")
    assert (shown.status, shown.err) == (0, "")
    for name, adapter in load_registry().adapters.items():
        block = next(block for block in shown.out.split("\n\n") if block.startswith(f"{name}\n"))
        for site in adapter.sites.values():
            state = "(set)" if site.api_key_env == "OPENAI_EU_API_KEY" else "(not set)"
            line = next(line for line in block.splitlines() if f" {site.origin} " in line and f" {site.name} " in line)
            assert line.endswith(f"{site.api_key_env} {state}")
    assert KEY not in shown.out


def test_providers_list_prints_json(gateway: Command) -> None:
    listed = json.loads(gateway("providers", "list", "--json", "openai").out)
    assert list(listed) == ["openai"]
    assert listed["openai"]["sites"]["eu"]["stores"] == "@EEA, CH"
    assert "json_schema" in listed["openai"]["features"]


def test_providers_list_prints_markdown(gateway: Command) -> None:
    assert gateway("providers", "list", "--markdown").out == PROVIDERS_PAGE.read_text("utf-8")
    page = gateway("providers", "list", "--markdown", "openai").out
    assert "| `openai` | `eu` | @EEA, CH | @EEA, CH | zdr or mam |" in page
    assert "`gemini`" not in page


def test_unknown_provider_is_rejected(gateway: Command) -> None:
    shown = gateway("providers", "list", "nobody")
    assert (shown.status, shown.out) == (2, "")
    assert "there is no provider 'nobody'; the providers are: " in shown.err


def test_provider_check_prints_the_exchange_without_the_key(
    gateway: Command, config: Path, provider: SimulatorThread
) -> None:
    shown = gateway("providers", "check", "real", "--config", config)
    assert shown.status == 0
    assert f"POST {provider['real'].origin}/v1/chat/completions\n" in shown.out
    assert "  authorization: (masked)\n" in shown.out
    assert "  content-type: application/json\n" in shown.out
    assert '"content": "Reply with the word OK."' in shown.out
    assert "\n200\n" in shown.out
    assert "\nit answered: '" in shown.out
    assert KEY not in shown.out + shown.err


def test_failed_provider_check_explains_the_failure(gateway: Command, config: Path, provider: SimulatorThread) -> None:
    provider["real"].scenario = Scenario(faults=((HttpError(401), 1.0),))
    shown = gateway("providers", "check", "real", "--config", config)
    assert shown.status == 1
    assert "\n401\n" in shown.out
    assert "\nit failed (credentials): the provider refuses" in shown.out
    assert KEY not in shown.out + shown.err


def test_check_of_a_provider_checks_each_of_its_deployments(gateway: Command, config: Path) -> None:
    shown = gateway("providers", "check", "openai", "--config", config)
    assert shown.status == 1
    assert "== real: openai gpt-4o at " in shown.out
    assert "== keyless: openai gpt-4o at us\n\nnot sent: its API key is not set (UNSET_KEY)" in shown.out


def test_provider_check_respects_the_fence(gateway: Command, config: Path) -> None:
    shown = gateway("providers", "check", "outside", "--config", config)
    assert shown.status == 1
    assert "not sent: every region's boundary excludes the deployment" in shown.out


def test_provider_check_rejects_an_unknown_name(gateway: Command, config: Path) -> None:
    shown = gateway("providers", "check", "nobody", "--config", config)
    assert shown.status == 2
    assert "the deployments are: keyless, outside, real" in shown.err


def test_provider_check_skips_a_simulator(gateway: Command) -> None:
    shown = gateway("providers", "check", "qwen-cn", "--config", ROOT / "config" / "demo.yaml")
    assert shown.status == 1
    assert "not sent: the deployment is a simulator" in shown.out


_TABLES = tables_of(__file__)
FILLED = _TABLES["filled"]
FILLED_SIMULATOR = _TABLES["filled_simulator"]


def kit(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the conformance kit on the files of the current directory."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_acme_ai.py"],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **ONLY_KIT, "PYTHONPATH": "."},
    )  # fmt: skip


def fill(path: str, holes: dict[str, str]) -> None:
    text = Path(path).read_text("utf-8")
    for hole, code in holes.items():
        assert hole in text, hole
        text = text.replace(hole, code)
    Path(path).write_text(text, "utf-8")


@pytest.mark.slow("runs the whole kit")
def test_new_adapter_fails_the_kit_until_it_is_complete(gateway: Command) -> None:
    shown = gateway("providers", "new", "acme-ai", ".")
    assert shown.status == 0
    written = {"acme_ai.py", "acme_ai_simulator.py", "test_acme_ai.py", "acme-ai.md", "pyproject.toml"}
    assert {path.name for path in Path().iterdir()} == written
    assert all("{" + word + "}" not in Path(name).read_text() for name in written for word in ("NAME", "CLASS", "ENV"))
    assert kit("-x").returncode == 1
    fill("acme_ai.py", FILLED)
    assert kit("-x").returncode == 1
    fill("acme_ai_simulator.py", FILLED_SIMULATOR)
    done = kit()
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("form", [(), ("--compatible",)])
def test_new_adapter_is_the_root_of_its_tests_inside_another_checkout(gateway: Command, form: tuple[str, ...]) -> None:
    Path("pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--no-such-option"\n')
    gateway("providers", "new", "acme", *form)
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "test_acme.py"]
    found = subprocess.run(
        command, cwd="acme", capture_output=True, text=True, check=False, env={**os.environ, **ONLY_KIT}
    )
    assert "::test_" in found.stdout, found.stderr


def test_new_prints_the_install_command_before_the_kit_command(gateway: Command) -> None:
    lines = gateway("providers", "new", "acme").out.splitlines()
    assert [line.split("    #")[0] for line in lines[-3:]] == [
        "  python -m pip install hypothesis pytest",
        "  cd acme",
        "  python -m pytest --pyargs providers.conformance --adapter acme:ADAPTER --simulator acme_simulator:SIMULATOR",
    ]


def test_first_failure_of_a_new_adapter_names_the_next_place_to_fill_in(gateway: Command) -> None:
    gateway("providers", "new", "acme-ai", ".")
    source: dict[str, Any] = {"__file__": str(Path("test_acme_ai.py").absolute()), "__name__": "test_acme_ai"}
    exec(Path("test_acme_ai.py").read_text("utf-8"), source)  # noqa: S102 - the template that was just written
    check_places = source["test_every_numbered_place_is_filled_in"]
    with pytest.raises(AssertionError, match=r"next: acme_ai.py, line \d+: .*write the request"):
        check_places()
    fill("acme_ai.py", FILLED)
    with pytest.raises(AssertionError, match=r"next: acme_ai_simulator.py, line \d+: .*read the request"):
        check_places()
    fill("acme_ai_simulator.py", FILLED_SIMULATOR)
    check_places()


@pytest.mark.slow("runs the whole kit")
def test_new_compatible_vendor_passes_the_kit_at_once(gateway: Command) -> None:
    shown = gateway("providers", "new", "acme-ai", ".", "--compatible")
    assert shown.status == 0
    written = {"acme_ai.py", "acme_ai.toml", "test_acme_ai.py", "acme-ai.md", "pyproject.toml"}
    assert {path.name for path in Path().iterdir()} == written
    done = kit()
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("name", "owner"),
    [("cohere", "it is a vendor's own SDK"), ("json", "a module of Python"), ("httpx", "installed at")],
)
def test_new_refuses_a_package_name_that_is_taken(gateway: Command, name: str, owner: str) -> None:
    shown = gateway("providers", "new", name)
    assert shown.status == 2
    assert f"the package name {name!r} is taken: " in shown.err
    assert owner in shown.err
    assert f"--package {name}_adapter" in shown.err
    assert list(Path().iterdir()) == []
    assert gateway("providers", "new", name, "--package", f"{name}_adapter").status == 0
    assert Path(name, f"{name}_adapter.py").exists()
    assert f'{name} = "{name}_adapter:ADAPTER"' in Path(name, "pyproject.toml").read_text("utf-8")


def test_new_rejects_an_invalid_name(gateway: Command) -> None:
    shown = gateway("providers", "new", "Acme AI")
    assert shown.status == 2
    assert "'Acme AI' is not a valid provider name" in shown.err
    assert list(Path().iterdir()) == []


def test_new_overwrites_no_file(gateway: Command) -> None:
    Path("acme").mkdir()
    Path("acme/acme.py").write_text("mine")
    shown = gateway("providers", "new", "acme")
    assert shown.status == 2
    assert shown.err == "gateway: acme/acme.py already exists; no file was written\n"
    assert [path.name for path in Path("acme").iterdir()] == ["acme.py"]


def test_models_are_listed_with_prices_and_retirement_dates(gateway: Command, tmp_path: Path) -> None:
    shown = gateway("providers", "models", "moonshot")
    assert (shown.status, shown.err) == (0, "")
    assert "kimi-k3" in shown.out
    assert "gpt-" not in shown.out
    assert gateway("providers", "models", "--markdown").out == MODELS_PAGE.read_text("utf-8")
    unknown = gateway("providers", "models", "nobody")
    assert (unknown.status, unknown.out) == (2, "")
    assert "there is no provider 'nobody'" in unknown.err

    own = "{price: {input: 7, output: 8, currency: CHF, as_of: 2026-11-01}}"
    (tmp_path / "models.yaml").write_text(f"version: 1\nmodels: {{openai: {{gpt-4o: {own}}}}}", "utf-8")
    config_with_endpoint("http://127.0.0.1:1").merge("catalogue: {models: models.yaml}").write(tmp_path)
    rows = gateway("providers", "models", "openai", "--config", tmp_path / "gateway.yaml").out.splitlines()
    assert [row.split()[0] for row in rows] == ["deployment", "real", "keyless"]
    assert all("CHF 7.00  7.00" in row for row in rows[1:])


def test_schema_prints_the_catalogue_schema(gateway: Command) -> None:
    shown = gateway("schema", "--catalogue")
    assert shown.out == (ROOT / "config" / "catalogue.schema.json").read_text("utf-8")
    assert json.loads(shown.out)["title"] == "catalogue.yaml"
