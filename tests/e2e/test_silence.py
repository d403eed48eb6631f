"""A provider that thinks for longer than each proxy waits: the official SDKs, directly and behind nginx and HAProxy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from websockets.sync.client import connect

from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.kit.configs import Config
from tests.kit.gateway_process import running_gateway
from tests.kit.ports import free_port
from tests.kit.waiting import eventually

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")
genai = pytest.importorskip("google.genai", reason="make install-sdks installs the official clients")

pytestmark = pytest.mark.slow("models that are silent for seconds")
TEXT = "thought it over"
THINKS_S = 5.0
LIMIT_S = 60.0
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [quiet]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
location: {unknown: default}
resilience: {first_token: 300ms, commit: 1s, total: 60s, keep_alive: 1s, breaker: "off", retry_budget: "off"}
""")
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $websocket {{ default ""; "~*^websocket$" websocket; }}
    map $websocket $own_connection {{ default ""; websocket upgrade; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header upgrade $websocket;
            proxy_set_header connection $own_connection;
            proxy_buffering off;
            proxy_read_timeout 3s;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 3s
    timeout server 3s
    timeout tunnel 75s
listen gateway
    bind fd@{fd}
    server one {address}
"""


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[str]:
    port = free_port()  # nginx cannot choose one itself
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, upstream=upstream), "utf-8")
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(file), "-p", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: (folder / "nginx.pid").exists() or process.poll() is not None, 30)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def haproxy(folder: Path, upstream: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(fd := listener.fileno(), True)
        file = folder / "haproxy.cfg"
        file.write_text(HAPROXY.format(fd=fd, address=upstream.removeprefix("http://")), "utf-8")
        command = [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(file)]
        with subprocess.Popen(command, pass_fds=(fd,), stderr=subprocess.DEVNULL) as process:
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorThread]:
    with SimulatorThread({"quiet": SimulatorServer(load_simulators().simulators["openai"], "quiet")}) as thread:
        yield thread


@pytest.fixture(scope="module")
def urls(provider: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The gateway's own address, and those of the proxies in front of it."""
    folder = tmp_path_factory.mktemp("silence")
    facts = {"provider": "openai", "model": "gpt-6-luna", "stores": "DE", "processes": "DE", "api_key": "${KEY}"}
    quiet = {"quiet": {**facts, "endpoint": f"{provider['quiet'].origin}/v1"}}
    file = CONFIG.merge({"deployments": quiet}).write(folder)
    with ExitStack() as stack:
        own = stack.enter_context(running_gateway(file, {"KEY": "sk-secret"})).url
        yield {
            "direct": own,
            "nginx": stack.enter_context(nginx(folder, own)),
            "haproxy": stack.enter_context(haproxy(folder, own)),
        }


def by_chat(url: str) -> str:
    asked: Any = {"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}
    with client_of_openai(url) as sdk, sdk.chat.completions.stream(**asked) as stream:
        return stream.get_final_completion().choices[0].message.content or ""


def by_completions(url: str) -> str:
    with client_of_openai(url) as sdk:
        stream = sdk.completions.create(model="assistant", prompt="Hello!", stream=True)
        return "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


def by_responses(url: str) -> str:
    with client_of_openai(url) as sdk, sdk.responses.stream(model="assistant", input="Hello!") as stream:
        return stream.get_final_response().output_text


def client_of_openai(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)


def by_messages(url: str) -> str:
    asked: Any = {"model": "assistant", "max_tokens": 99, "messages": [{"role": "user", "content": "Hello!"}]}
    with anthropic.Anthropic(base_url=url, api_key="-", max_retries=0) as sdk, sdk.messages.stream(**asked) as stream:
        return str(stream.get_final_text())


def by_gemini(url: str) -> str:
    with genai.Client(api_key="-", http_options=genai.types.HttpOptions(base_url=url)) as sdk:
        chunks = sdk.models.generate_content_stream(model="assistant", contents="Hello!")
        return "".join(chunk.text or "" for chunk in chunks)


ASK = [by_chat, by_completions, by_responses, by_messages, by_gemini]


@pytest.fixture(scope="module")
def answers(urls: dict[str, str], provider: SimulatorThread) -> dict[tuple[Callable[[str], str], str], Future[str]]:
    """The answers of all SDKs in each way, which are asked at the same time."""
    provider["quiet"].scenario = Scenario(text=TEXT, first_token_s=THINKS_S)
    with ThreadPoolExecutor(len(ASK) * len(urls)) as pool:
        return {(ask, way): pool.submit(ask, url) for ask in ASK for way, url in urls.items()}


@pytest.mark.parametrize("way", ["direct", "nginx", "haproxy"])
@pytest.mark.parametrize("ask", ASK)
def test_sdk_gets_the_answer_of_a_model_that_thinks(
    answers: dict[tuple[Callable[[str], str], str], Future[str]], ask: Callable[[str], str], way: str
) -> None:
    assert answers[ask, way].result() == TEXT


@pytest.mark.parametrize("way", ["nginx", "haproxy"])
def test_turns_of_a_websocket_pass_the_proxy_between_other_requests(
    urls: dict[str, str], provider: SimulatorThread, way: str
) -> None:
    provider["quiet"].scenario = Scenario(text=TEXT)
    with connect(urls[way].replace("http", "ws", 1) + "/v1/responses", proxy=None) as turns:
        for _ in range(2):
            turns.send(json.dumps({"type": "response.create", "model": "assistant", "input": "Hello!"}))
            event = json.loads(turns.recv(LIMIT_S))
            while event["type"] != "response.completed":
                event = json.loads(turns.recv(LIMIT_S))
            assert event["response"]["output"][-1]["content"][0]["text"] == TEXT
            assert by_chat(urls[way]) == TEXT


def test_sdk_raises_the_error_of_a_step_that_fails_after_the_head(
    urls: dict[str, str], provider: SimulatorThread
) -> None:
    provider["quiet"].scenario = Scenario(faults=((HttpError(401), 1.0),), latency_s=3.0)
    with ThreadPoolExecutor(len(ASK)) as pool:
        errors = [one.exception() for one in [pool.submit(ask, urls["nginx"]) for ask in ASK]]
    # Each SDK has its own errors; that of `responses.stream` is a RuntimeError.
    own = (openai.OpenAIError, anthropic.AnthropicError, genai.errors.APIError, RuntimeError)
    assert [error for error in errors if not isinstance(error, own)] == []
