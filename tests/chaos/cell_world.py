"""A cell in network namespaces: three instances of two workers, HAProxy, PostgreSQL, Valkey and the providers.

Each instance and each store has a namespace with an address of 127.231.0.0/24, so that a link can be cut in one
direction, and no store needs TLS. The experiment itself is in the namespace of the bridge, with HAProxy and the
providers. `enter` starts a command in it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from gateway.cell.postgres import upgrade
from tests.chaos.cell_history import Call
from tests.kit.balancer import Balancer, balancer
from tests.kit.chat_http import body
from tests.kit.configs import Config, key_hash
from tests.kit.faulty_provider import Call as ProviderCall
from tests.kit.faulty_provider import Provider
from tests.kit.metered_provider import MAXIMUM, SeenCall, answer_metered, metered_config
from tests.kit.postgres_server import RunningPostgres
from tests.kit.store_cell import environ_of, stores_patch
from tests.kit.valkey_server import RunningValkey
from tests.kit.waiting import eventually

_NET = "127.231.0"
FRONT = f"{_NET}.1"
HOSTS = {"g0": f"{_NET}.10", "g1": f"{_NET}.11", "g2": f"{_NET}.12", "database": f"{_NET}.20", "valkey": f"{_NET}.21"}
INSTANCES = ("g0", "g1", "g2")
STORES = ("database", "valkey")
_PORT, _ADMIN_PORT = 8080, 8081
_NOBODY_MAC = "02:00:00:00:00:99"
_NEW_NET = 0x40000000
_STARTS_S = 120.0
_ENTERED = "CELL_IN_NAMESPACE"


def why_not() -> str:
    """Return why the cell cannot be built here, or an empty text."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare", "haproxy"):
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            return f"the program {tool} is missing"
    done = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"no network namespace can be made: {done.stderr.strip()}"


def enter(module: str, arguments: list[str]) -> int | None:
    """Run a module in namespaces of its own and return its status, or None if this process is in them."""
    if os.environ.get(_ENTERED):
        return None
    command = ["unshare", "--net", "--mount", "--fork", "--kill-child", sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env={**os.environ, _ENTERED: "1"}).returncode


def _ip(line: str, inside: str = "") -> None:
    prefix = ["ip", "netns", "exec", inside] if inside else []
    subprocess.run([*prefix, *line.split()], check=True, capture_output=True)


def build_network() -> None:
    """Make the bridge and the namespaces."""
    os.makedirs("/run/netns", exist_ok=True)
    _ip("mount -t tmpfs tmpfs /run/netns")
    _ip("ip link add br0 type bridge")
    _local("", "br0", FRONT)
    for name, host in HOSTS.items():
        _ip(f"ip netns add {name}")
        _ip(f"ip link add v-{name} type veth peer name eth0 netns {name}")
        _ip(f"ip link set v-{name} master br0 up")
        _local(name, "eth0", host)


def _local(name: str, device: str, host: str) -> None:
    for line in (
        "sysctl -q -w net.ipv4.conf.all.route_localnet=1",
        "ip link set lo up",
        "ip addr del 127.0.0.1/8 dev lo",
        "ip addr add 127.0.0.1/24 dev lo",
        f"ip addr add {host}/24 dev {device}",
        f"ip link set {device} up",
    ):
        _ip(line, name)


@contextmanager
def within(name: str) -> Iterator[None]:
    """Run the block, and the processes that it starts, in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    before, after = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert libc.setns(after, _NEW_NET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        libc.setns(before, _NEW_NET)
        os.close(before)
        os.close(after)


def cut(sender: str, receiver: str) -> None:
    """Drop all that one namespace sends to another."""
    _ip(f"ip neigh replace {HOSTS[receiver]} lladdr {_NOBODY_MAC} dev eth0 nud permanent", sender)


def heal(sender: str, receiver: str) -> None:
    """Deliver again what one namespace sends to another."""
    _ip(f"ip neigh del {HOSTS[receiver]} dev eth0", sender)


@dataclass
class Instance:
    """One instance of the gateway, which can be killed and started again with its state directory."""

    name: str
    path: Path
    number: int
    product: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOSTS[self.name]}:{_PORT}"

    @property
    def admin_url(self) -> str:
        return f"http://{HOSTS[self.name]}:{_ADMIN_PORT}"

    @property
    def log(self) -> Path:
        return self.path.parent / f"{self.name}.log"

    def start(self) -> None:
        """Start it. It is ready later."""
        host = HOSTS[self.name]
        environ = {
            **os.environ, **environ_of(self.path, self.number, 2), "GATEWAY_INSTANCE": self.name,
            "GATEWAY_ADMIN_HOST": host, "GATEWAY_LOG_FORMAT": "json",
        }  # fmt: skip
        command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(self.path), "--host", host]
        with within(self.name), open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(_PORT), "--admin-port", str(_ADMIN_PORT)],
                cwd=self.product, env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` of all its processes does."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def worker(self) -> psutil.Process | None:
        """Return one of its workers."""
        assert self.process is not None
        with suppress(psutil.Error):
            return next(iter(psutil.Process(self.process.pid).children()), None)
        return None

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def ready(self) -> Mapping[str, Any] | None:
        """Return what its admin listener reports, or None if it does not answer."""
        with suppress(httpx.HTTPError, ValueError):
            answer: Mapping[str, Any] = httpx.get(f"{self.admin_url}/readyz", trust_env=False, timeout=3).json()
            return answer
        return None

    def pinned(self) -> str | None:
        """Return the version that it has pinned, or None if it does not answer."""
        report = self.ready()
        return str(report.get("rollback_pinned") or "") if report is not None else None

    def post(self, path: str, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Send a request to the admin listener. None if it does not answer."""
        with suppress(httpx.HTTPError, ValueError):
            url = f"{self.admin_url}{path}"
            answer: Mapping[str, Any] = httpx.post(url, json=dict(content), trust_env=False, timeout=20).json()
            return answer
        return None


@dataclass
class CellWorld:
    """The running cell, and the calls that its providers have received."""

    folder: Path
    instances: Mapping[str, Instance]
    database: RunningPostgres
    valkey: RunningValkey
    front: Balancer
    calls: list[Call] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "gateway.yaml"

    def wait_until_ready(self) -> None:
        """Wait until each instance that runs is ready."""

        def is_ready(one: Instance) -> bool:
            assert not one.has_ended, one.log.read_text("utf-8", "replace")[-2000:]
            return (one.ready() or {}).get("status") == "ready"

        for one in self.instances.values():
            eventually(lambda one=one: is_ready(one), _STARTS_S)  # type: ignore[misc]


CLIENTS = {
    "free": {"region": "eu", "priority": "high"},
    "low": {"region": "eu", "priority": "low"},
    "rich": {"region": "eu", "budgets": [{"per": "total", "amount": "100 EUR"}]},
    "poor": {"region": "eu", "budgets": [{"per": "total", "amount": "0.002 EUR"}]},
    "far": {"region": "us"},
    "leaky": {"region": "eu"},
}
POOR_NANO = 2_000_000
QUOTA_A_MINUTE = 12
BOUNDARY = {name: frozenset({"us"} if name == "far" else {"limited", "de", "de-2"}) for name in CLIENTS}


def key_of(client: str) -> str:
    """Return the key of a client."""
    return f"gk-{client}"


def _config(folder: Path, providers: list[Provider], database: RunningPostgres, valkey: RunningValkey) -> Config:
    schedule = {"candidate": "de-2", "steps": "40% for 5s, 50% for 1h, 100%", "stop_on": {"min_requests": 10}}
    base = metered_config(providers[0], folder, "limited, de, de-2, us", stores_patch(database, valkey))
    return base.without("clients", "regions", "assistants", "location").merge(
        {
            "log": {"sample": 0.5},
            "regions": {
                "eu": {"territories": ["DE"], "boundary": ["DE"]},
                "us": {"territories": ["US"], "boundary": ["US", "DE"]},
            },
            "deployments": {
                "limited": {"quota": "account"},
                "us": {"endpoint": f"{providers[1].origin}/us/v1", "stores": "US", "processes": "US"},
            },
            "quotas": {"account": {"requests": {"minute": QUOTA_A_MINUTE}}},
            "assistants": {
                "assistant": {
                    "routes": {"eu": [{"limited": 60, "de-2": 40}, "de"], "us": ["us"]},
                    "schedules": {"eu": schedule},
                }
            },
            "clients": {name: {**keys, "keys": [key_hash(key_of(name))]} for name, keys in CLIENTS.items()},
            "resilience": {"total": "15s", "commit": "10s"},
        }
    )


def _behaviour(name: str, calls: list[Call]) -> Callable[[ProviderCall], Any]:
    async def behave(call: ProviderCall) -> None:
        request = call.body["messages"][-1]["content"]
        calls.append(Call(request, name, time.time()))
        await answer_metered(call, SeenCall(name), pause_s=0.02)

    return behave


@contextmanager
def cell_world(folder: Path, product: Path) -> Iterator[CellWorld]:
    """Run the cell in the namespaces of this process, from a tree of the product."""
    build_network()
    calls: list[Call] = []
    with ExitStack() as stack:
        providers = [
            stack.enter_context(Provider({name: _behaviour(name, calls) for name in names}, host=FRONT))
            for names in (("limited", "de", "de-2"), ("us",))
        ]
        folder.chmod(0o711)  # PostgreSQL runs as another user
        for name in STORES:
            (folder / name).mkdir()
        with within("database"):
            database = RunningPostgres(folder / "database", HOSTS["database"])
        stack.callback(lambda: database.kill() if database.process.poll() is None else None)
        with within("valkey"):
            valkey = RunningValkey(folder / "valkey", password="valkey-secret", host=HOSTS["valkey"])
        stack.callback(lambda: valkey.kill() if valkey.process.poll() is None else None)
        upgrade(database.address())
        path = _config(folder, providers, database, valkey).write(folder)
        front = stack.enter_context(balancer(folder, check_s=2))
        instances = {name: Instance(name, path, number, product) for number, name in enumerate(INSTANCES)}
        world = CellWorld(folder, instances, database, valkey, front, calls)
        for one in instances.values():
            one.start()
            stack.callback(one.kill)
        world.wait_until_ready()
        for one in instances.values():
            front.add(one.url)
        yield world


def request_body(request: str, *, stream: bool) -> Mapping[str, Any]:
    """Return the body of a chat that names its request."""
    messages = [{"role": "user", "content": request}]
    return body(messages=messages, max_tokens=min(20, MAXIMUM), stream=stream)


def lines_of(one: Instance) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of an instance's log that are JSON."""
    for text in one.log.read_text("utf-8", "replace").splitlines():
        with suppress(ValueError):
            if isinstance(line := json.loads(text), dict):
                yield line
