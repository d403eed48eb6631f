"""`gateway demo`: its first output, and the commands that it prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gateway.server import simulation
from providers.testkit import simulator
from providers.testkit.simulator import Simulators, load_simulators
from tests.cli.conftest import ROOT, Command, Running
from tests.kit.case_files import cases
from tests.kit.config_cases import edited

Start = Callable[..., Running]
COLUMNS = ["from", "region", "why", "deployment", "provider", "answer", "ms"]


@pytest.fixture
def demo(start: Start) -> Running:
    running = start("demo", "--port", "0")
    running.wait_for("Ctrl-C")
    return running


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def test_demo_prints_who_answers_in_five_territories(untouched_demo: Running) -> None:
    lines = untouched_demo.out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("from "))
    assert lines[head].split() == COLUMNS
    rules = [len(rule) for rule in lines[head + 1].split()]
    rows = [re.split(r"  +", line) for line in lines[head + 2 : head + 7]]
    assert [row[:5] for row in rows] == [
        ["China", "cn", "edge_header", "qwen-cn", "dashscope"],
        ["Germany", "eu", "edge_header", "chatgpt-eu", "openai"],
        ["United States", "us", "edge_header", "chatgpt-us", "openai"],
        ["Hong Kong", "default", "edge_header", "qwen-hk", "dashscope"],
        ["Cuba", "-", "edge_header", "-", "-"],
    ]
    assert rows[-1][5] == "the assistant is not available in Cuba"
    assert lines[head + 8] == "Hong Kong: gemini does not serve Hong Kong, so qwen-hk answers."
    for row in rows:
        assert float(row[6]) > 0
        assert all(width(cell) <= rule for cell, rule in zip(row, rules, strict=True))
    assert rows[0][5].startswith("你好")
    assert max(map(width, lines)) <= 110
    assert "other machines" not in untouched_demo.out, "it has a listener of this machine only"
    # Other tests may have asked it.
    assert all(json.loads(line)["event"] == "request" for line in untouched_demo.err.splitlines())


def test_address_of_the_page_is_printed_on_the_line_before_the_curl_command(untouched_demo: Running) -> None:
    lines = untouched_demo.out.splitlines()
    url = untouched_demo.wait_for(r"listens on (\S+)\.")[1]
    first_command = next(number for number, line in enumerate(lines) if line.lstrip().startswith("curl "))
    assert f"Open {url}/ in a browser" in lines[first_command - 1]
    page = httpx.get(f"{url}/", headers={"accept": "text/html"}, timeout=60, trust_env=False)
    assert (page.status_code, "chatgpt-eu" in page.text) == (200, True)
    assert httpx.get(f"{url}/", timeout=60, trust_env=False).json()["error"]["code"] == "not_found"
    assert httpx.head(f"{url}/", timeout=60, trust_env=False).status_code == 200


@pytest.mark.slow
def test_printed_demo_commands_work(untouched_demo: Running) -> None:
    ask, why, operate = re.findall(r"(curl (?:.*\\\n)*.*)", untouched_demo.out)
    environ = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(["sh", "-c", ask], env=environ, capture_output=True, text=True, check=True)
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "x-gateway-deployment: qwen-cn" in head.splitlines()
    assert json.loads(body)["choices"][0]["message"]["content"]
    done = subprocess.run(["sh", "-c", why], env=environ, capture_output=True, text=True, check=True)
    assert [step["deployment"] for step in json.loads(done.stdout)["outcome"]["plan"]] == ["qwen-hk", "qwen-intl"]
    done = subprocess.run(["sh", "-c", operate], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "ready"
    documentation = re.search(r"http\S+/docs", untouched_demo.out)
    assert documentation
    page = subprocess.run(["curl", "-sS", documentation[0]], env=environ, capture_output=True, text=True, check=True)
    assert "Assistant gateway" in page.stdout
    # The request of the page works without changes, because it contains the country header.
    url = documentation[0].replace("/docs", "/openapi.json")
    document = subprocess.run(["curl", "-sS", url], env=environ, capture_output=True, text=True, check=True)
    operation = json.loads(document.stdout)["paths"]["/v1/chat/completions"]["post"]
    [place] = [one for one in operation["parameters"] if one["name"] == "cf-ipcountry"]
    assert place["schema"]["default"] == "DE"
    assert shlex.split(ask)[0] == "curl"


@pytest.mark.slow("starts a demo and waits for its end")
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, id="ctrl-c"), pytest.param(signal.SIGTERM, id="sigterm")]
)
def test_demo_ends_without_output_on_interrupt(demo: Running, number: int) -> None:
    ended = demo.end(number)
    assert ended.status == 0
    assert ended.err == ""
    assert ended.out.rstrip().endswith("Ctrl-C")


@pytest.mark.slow("starts a demo and waits for its end")
def test_sigterm_during_the_example_requests_ends_the_demo_without_a_traceback(start: Start) -> None:
    running = start("demo", "--port", "0")
    running.wait_for("The gateway listens on")
    ended = running.end(signal.SIGTERM)
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
def test_demo_logs_requests_after_the_table(untouched_demo: Running) -> None:
    url = untouched_demo.wait_for(r"listens on (\S+)\.")[1]
    subprocess.run(
        ["curl", "-sS", "--noproxy", "*", f"{url}/v1/chat/completions", "-d", "{}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    line = json.loads(untouched_demo.wait_for('.*"code":"unsupported_media_type".*')[0])
    assert (line["event"], line["outcome"], line["why"]) == ("request", "refused", "demo_territory")


def own_address() -> str:
    """Return an address of this machine that is not loopback. Skip the test if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing, and only selects the interface
        except OSError:
            pytest.skip("this machine has no network interface")
        return str(asking.getsockname()[0])


@pytest.mark.slow
def test_demo_with_an_open_listener_states_it_and_answers_no_other_machine(start: Start) -> None:
    running = start("demo", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    running.wait_for("Ctrl-C")
    port = running.wait_for(r"listens on http://127\.0\.0\.1:([0-9]+)\.")[1]
    assert f"--host 0.0.0.0 opens port {port} to other machines. They get the documentation" in running.out
    assert "The API and the page answer this machine only" in running.out
    question = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}
    local, other = f"http://127.0.0.1:{port}", f"http://{own_address()}:{port}"
    with httpx.Client(trust_env=False, timeout=60) as client:
        for host in ({}, {"host": f"localhost:{port}"}):
            germany = {**host, "cf-ipcountry": "DE"}
            assert client.post(f"{local}/v1/chat/completions", json=question, headers=germany).status_code == 200
            refused = [
                client.post(f"{other}/v1/chat/completions", json=question, headers=germany),
                client.get(f"{other}/v1/models", headers=host),
                client.get(f"{other}/", headers={**host, "accept": "text/html"}),
                client.put(f"{other}/console/faults", json={"deployment": "gemini", "fault": "503"}, headers=host),
            ]
            assert [answer.status_code for answer in refused] == [403] * 4
            assert {answer.json()["error"]["code"] for answer in refused} == {"permission_denied"}
        for name in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
            answer = client.post(f"{local}/v1/chat/completions", json=question, headers=germany | name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
        assert client.get(f"{other}/healthz").status_code == 200


def test_demo_at_an_address_that_its_own_machine_cannot_use_is_refused(gateway: Command) -> None:
    shown = gateway("demo", "--host", own_address(), "--port", "0")
    assert (shown.status, shown.out) == (2, "")
    assert "a demo serves its own machine only" in shown.err
    assert "leave out --host (GATEWAY_HOST)" in shown.err


def test_demo_rejects_a_real_deployment(gateway: Command) -> None:
    shown = gateway("demo", "--config", ROOT / "config" / "gateway.yaml", "--port", "0")
    assert (shown.status, shown.out) == (1, "")
    assert "in demo mode every deployment is a simulator" in shown.err


@pytest.mark.slow("starts two demos")
def test_demo_uses_the_config_of_the_setting(gateway: Command, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "config" / "demo.yaml").read_text("utf-8")
    Path("mine.yaml").write_text(edited(text, ("cn: [qwen-cn]", "cn: [mine]"), ("  qwen-cn:", "  mine:")), "utf-8")
    monkeypatch.setenv("GATEWAY_CONFIG", "mine.yaml")
    running = start("demo", "--port", "0")
    running.wait_for("Ctrl-C")
    assert re.search(r"^China +cn +edge_header +mine ", running.out, re.MULTILINE)
    assert "Configuration:      mine.yaml, watched for changes\n" in running.out

    # A config that is not a demo is rejected, and the built-in demo does not replace it.
    real = ROOT / "config" / "gateway.yaml"
    monkeypatch.setenv("GATEWAY_CONFIG", str(real))
    shown = gateway("demo", "--port", "0")
    assert (shown.status, shown.out) == (1, "")
    first, *problems = shown.err.splitlines()
    assert first.startswith(f"gateway: GATEWAY_CONFIG is {real}: use `gateway serve` to")
    assert any("in demo mode every deployment is a simulator" in problem for problem in problems)


@pytest.mark.slow("starts two demos and reloads the first")
@pytest.mark.parametrize("command", ["demo", "serve"])
def test_demo_has_a_history_and_can_be_rolled_back(
    start: Start, gateway: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    config = Path("mine.yaml")
    shutil.copy(ROOT / "config" / "demo.yaml", config)
    monkeypatch.setenv("GATEWAY_STATE_DIR", "state")
    running = start(command, "--config", config, "--port", "0")
    admin = running.wait_for(r"For operators: +curl (\S+)/readyz")[1]
    url = running.wait_for(r"listens on (\S+)\.")[1]

    def who_answers_japan() -> tuple[str, str]:
        asked = httpx.post(
            f"{url}/v1/chat/completions",
            json={"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]},
            headers={"cf-ipcountry": "JP"},
        )
        return asked.headers["x-gateway-deployment"], asked.headers["x-gateway-config"]

    before = who_answers_japan()
    assert before[0] == "gemini"
    text = config.read_text("utf-8")
    config.write_text(edited(text, ("[gemini, qwen-hk, qwen-intl]", "[chatgpt-us, gemini]")), "utf-8")
    done = httpx.post(f"{admin}/reload").json()
    assert done["result"] == "activated"
    assert [it["territories"] for it in done["changes"]["answers"] if it["kind"] == "lost"] == [["HK", "MO"]]
    after = who_answers_japan()
    assert after[0] == "chatgpt-us"
    config.write_text(edited(text, ("eu: [chatgpt-eu]", "eu: [chatgpt-us]")), "utf-8")
    assert httpx.post(f"{admin}/reload").status_code == 422
    assert who_answers_japan() == after

    back = gateway("rollback", "--config", config)
    assert (back.status, back.out.splitlines()[0]) == (0, f"{before[1]} is active")
    assert who_answers_japan() == before
    assert httpx.get(f"{admin}/readyz").json()["state"] == {"keeps_history": True, "file_active": False}
    assert running.end(signal.SIGTERM).status == 0
    causes = re.findall(r"Z  (\w+)", gateway("history").out)
    # The watcher may see the edited file before the request to load it does.
    assert causes in (["rollback", "admin", "start"], ["rollback", "file", "start"])
    assert gateway("audit", "verify").status == 0

    # The next demo starts with the version of the rollback.
    again = start(command, "--config", config, "--port", "0")
    url = again.wait_for(r"listens on (\S+)\.")[1]
    again.wait_for("Ctrl-C")
    assert who_answers_japan() == before


@pytest.mark.slow("starts two demos")
def test_demo_stores_receipts_in_a_state_directory(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_STATE_DIR", "state")
    running = start("demo", "--port", "0")
    url = running.wait_for(r"listens on (\S+)\.")[1]
    running.wait_for("Ctrl-C")
    asked = httpx.post(
        f"{url}/v1/chat/completions",
        json={"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]},
        headers={"cf-ipcountry": "DE", "x-request-id": "req-of-mine"},
    )
    assert asked.status_code == 200
    assert running.end(signal.SIGTERM).status == 0
    # Receipts are written after the requests. The second demo shows those of the first.
    running = start("demo", "--port", "0")
    url = running.wait_for(r"listens on (\S+)\.")[1]
    running.wait_for("Ctrl-C")
    receipt = httpx.get(f"{url}/v1/receipts/req-of-mine").json()["receipt"]
    assert (receipt["region"], receipt["answered_by"]) == ("eu", "chatgpt-eu")


def test_used_port_writes_nothing_to_the_audit_trail(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_STATE_DIR", "state")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shown = gateway("demo", "--port", str(taken.getsockname()[1]))
    assert shown.status == 2
    assert Path("state/audit.jsonl").read_text("utf-8") == ""


def test_broken_simulator_is_named(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_simulators()
    others = {name: one for name, one in found.simulators.items() if name != "gemini"}
    broken = Simulators(others, {"gemini": "gemini:DIALECT: ImportError: no module named 'acme_sdk'"})
    for module in (simulator, simulation):
        monkeypatch.setattr(module, "load_simulators", lambda: broken)
    message = "gateway: the simulator of 'gemini' doesn't load: " + broken.broken["gemini"] + "\n"
    shown = gateway("demo", "--port", "0")
    assert (shown.status, shown.out, shown.err) == (2, "", message)
    checked = gateway("check", ROOT / "config" / "demo.yaml")
    assert (checked.status, checked.err) == (1, message), "`check` reports it too"


def test_real_provider_without_its_key_prints_the_line_to_set_it(
    gateway: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shown = gateway("demo", "--with", "openai", "--port", "0")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err == (
        "gateway: --with openai needs a key of openai in OPENAI_API_KEY, which is not set. Set it:\n"
        "  export OPENAI_API_KEY=YOUR_KEY\n"
    )


@cases("options", "complaint")
def test_real_provider_that_a_demo_cannot_use_is_refused(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    shown = gateway("demo", *options, "--port", "0")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.startswith(f"gateway: {complaint}")
    assert "sk-of-mine" not in shown.err


def test_missing_demo_config_prints_one_line(gateway: Command) -> None:
    shown = gateway("demo", "--config", Path("nothing.yaml"))
    assert shown.status == 2
    assert shown.err.startswith("gateway: there is no config at nothing.yaml")


@pytest.mark.slow("starts a demo")
@pytest.mark.parametrize("territory", ["DE", "CN"])
def test_caller_without_a_location_has_the_territory_of_the_demo(
    start: Start, untouched_demo: Running, territory: str
) -> None:
    running = untouched_demo if territory == "DE" else start("demo", "--port", "0", "--territory", "cn")
    running.wait_for("Ctrl-C")
    place = {"DE": "Germany", "CN": "mainland China"}[territory]
    assert f"Without the header: your territory is {place}; choose another with --territory" in running.out
    url = running.wait_for(r"listens on (http://\S+)\. ")[1]
    with httpx.Client(base_url=url, trust_env=False) as client:
        hello = {"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}
        answer = client.post("/v1/chat/completions", json=hello)
        unknown = client.get("/v1/models", headers={"cf-ipcountry": "XX"})
    region = {"DE": "eu", "CN": "cn"}[territory]
    assert (answer.status_code, answer.headers["x-gateway-region"]) == (200, region)
    assert answer.headers["x-gateway-why"] == "demo_territory"
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (451, "region_unknown")


def test_unknown_territory_of_a_demo_is_refused(gateway: Command) -> None:
    shown = gateway("demo", "--territory", "XY")
    assert shown.status == 2
    assert "argument --territory: 'XY' is not a territory" in shown.err
