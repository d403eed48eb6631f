"""A cell in network namespaces: three instances of two workers, HAProxy, PostgreSQL, Valkey and the providers.

Each instance and each store has a namespace with an address of 127.231.0.0/24, so that a link can be cut in one
direction, and no store needs TLS. The experiment itself is in the namespace of the bridge, with HAProxy and the
providers. `enter` starts a command in it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from gateway.cell.postgres import upgrade
from gateway.signing import new_key
from providers.value import replace
from tests.architecture.source_tree import PACKAGES, ROOT
from tests.chaos.cell_history import Call, History
from tests.kit.balancer import Balancer, balancer
from tests.kit.configs import Config, key_hash
from tests.kit.faulty_provider import Call as ProviderCall
from tests.kit.faulty_provider import Provider
from tests.kit.metered_provider import SeenCall, answer_metered, metered_config
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
_STARTS_S = 300.0
_ENTERED = "CELL_IN_NAMESPACE"
_SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING, _ALL_PROTOCOLS, _LARGEST_FRAME = 263, 15, 23, 3, 1 << 17
_LATE_S, _LOST = 0.1, 0.05
_TLS = ssl.create_default_context()  # made once, because it takes long
OLD_RELEASE = "v1.0.1"
_NAMED = re.compile(r"[a-z0-9]+-\d{5}")
_STATE_BYTES = 128 * 2**20
CRIED = "I can no more"
_CLOCK = """\
import mmap, os, time
with open(os.environ["CELL_CLOCK"], "rb") as file:
    is_ahead = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + 10 * is_ahead[0]
time.time_ns = lambda: now_ns() + 10**10 * is_ahead[0]
"""
"""The `sitecustomize` of an instance. What asks `datetime` for the time, as logs do, is not shifted."""


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


@contextmanager
def slow_link(name: str) -> Iterator[None]:
    """Deliver each packet of a namespace 100 ms late in both directions, and lose one of twenty.

    A thread stands between its link and the bridge, because a kernel without `netem` knows no delay.
    """
    _ip(f"ip link add r-{name} type veth peer name s-{name}")
    for line in (f"v-{name} nomaster arp off", f"r-{name} arp off up", f"s-{name} master br0 up"):
        _ip(f"ip link set {line}")
    has_ended = threading.Event()
    relay = threading.Thread(target=_relay, args=(f"v-{name}", f"r-{name}", has_ended))
    relay.start()
    try:
        yield
    finally:
        has_ended.set()
        relay.join()
        _ip(f"ip link del r-{name}")
        _ip(f"ip link set v-{name} master br0 arp on")


def _relay(one: str, other: str, has_ended: threading.Event) -> None:
    ends = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW) for _ in range(2))
    with next(ends) as left, next(ends) as right:
        for end, device in ((left, one), (right, other)):
            for option in (_IGNORE_OUTGOING, _VNET_HEADER):  # the header keeps a checksum that is not computed yet
                end.setsockopt(_SOL_PACKET, option, 1)
            end.bind((device, _ALL_PROTOCOLS))
        waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        while not has_ended.is_set():
            wait_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            for end in select.select([left, right], [], [], wait_s)[0]:
                frame = end.recv(_LARGEST_FRAME)
                if random.random() >= _LOST:
                    waiting.append((time.monotonic() + _LATE_S, right if end is left else left, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                with suppress(OSError):
                    waiting[0][1].send(waiting[0][2])
                waiting.popleft()


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

    def file(self, ending: str) -> Path:
        """Return its file with this ending: its `log`, or its `clock`, one byte that puts it ahead."""
        return self.path.parent / f"{self.name}.{ending}"

    @property
    def state(self) -> Path:
        """Its state directory, a small disk of its own."""
        return self.path.parent / f"state-{self.number}"

    def remount(self, mode: str) -> None:
        """Make its disk `ro` or `rw`, as soon as no process that was killed writes to it."""
        words = ["mount", "-o", f"remount,{mode}", str(self.state)]
        eventually(lambda: subprocess.run(words, capture_output=True).returncode == 0)

    def start(self) -> None:
        """Start it. It is ready later."""
        host = HOSTS[self.name]
        environ = {
            **os.environ, **environ_of(self.path, self.number, 2), "GATEWAY_INSTANCE": self.name,
            "GATEWAY_ADMIN_HOST": host, "GATEWAY_LOG_FORMAT": "json",
            "PYTHONPATH": str(self.path.parent / "clock"), "CELL_CLOCK": str(self.file("clock")),
        }  # fmt: skip
        command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(self.path), "--host", host]
        with within(self.name), open(self.file("log"), "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(_PORT), "--admin-port", str(_ADMIN_PORT)],
                cwd=self.product, env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self) -> None:
        """End it in order, as a rolling update does."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_STARTS_S)
        self.kill()

    def kill(self) -> None:
        """End it as `kill -9` of all its processes does."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str, content: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """Ask its admin listener. None if it does not answer."""
        url = f"http://{HOSTS[self.name]}:{_ADMIN_PORT}{path}"
        method, limit_s = ("GET", 3) if content is None else ("POST", 20)
        with suppress(httpx.HTTPError, ValueError):
            answer: Mapping[str, Any] = httpx.request(
                method, url, json=content, trust_env=False, timeout=limit_s, verify=_TLS
            ).json()
            return answer
        return None


@dataclass
class CellWorld:
    """The running cell, and the calls that its providers have received."""

    folder: Path
    product: Path
    instances: Mapping[str, Instance]
    database: RunningPostgres
    valkey: RunningValkey
    front: Balancer
    calls: dict[int, Call]
    key_ids: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / "gateway.yaml"

    def old_product(self) -> Path:
        """Return the tree of the last release. A clone without its tag has the release that is tested instead."""
        tree = self.folder / OLD_RELEASE
        if not tree.exists():
            git = ["git", "-C", str(ROOT), "archive", OLD_RELEASE, *PACKAGES]
            tree.mkdir()
            packed = subprocess.run(git, capture_output=True)
            subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, check=not packed.returncode)
        return tree if any(tree.iterdir()) else self.product

    def store_clients(self) -> None:
        """Store the projects and the clients in the database, each with its key."""
        admin = next(iter(self.instances.values()))
        for kind in ("projects", "clients"):
            for name, keys in _CONFIG.data[kind].items():
                assert "name" in (admin.ask(f"/v1/admin/{kind}", {"name": name, **keys}) or {})
        for name in ASKS:
            made = admin.ask("/v1/admin/keys", {"client": name, "hash": key_hash(key_of(name))}) or {}
            self.key_ids[name] = made["id"]

    def start(self, name: str) -> None:
        """Start an instance, and wait until it is ready."""
        self.instances[name].start()
        self.wait_until_ready(name)

    def wait_until_ready(self, name: str) -> None:
        """Wait until an instance is ready."""
        one = self.instances[name]

        def is_ready() -> bool:
            has_ended = one.process is None or one.process.poll() is not None
            assert not has_ended, one.file("log").read_text("utf-8", "replace")[-2000:]
            return (one.ask("/readyz") or {}).get("status") == "ready"

        eventually(is_ready, _STARTS_S)


_CONFIG = Config.beside(__file__)
_CLIENTS: Mapping[str, Mapping[str, Any]] = _CONFIG.data["clients"]
ASKS: Mapping[str, Sequence[str]] = _CONFIG.data["asks"]
"""The kinds of requests that each client sends in turn."""
SENDERS = (*ASKS, "narrow")
LEAKY = tuple(name for name in ASKS if name.startswith("leaky"))
NEEDS_VALKEY = frozenset({"rich", "poor", "team", "user", "child"})
LIMITS = History(
    budgets=dict.fromkeys(("poor", "team", "user"), 500_000),
    quotas={"limited": 6, "paced": 10, "counted": 10},
    slots={"narrow": 1},
    boundary={
        name: frozenset({"us"} if name == "far" else {"limited", "de", "de-2", "guard", "asked"}) for name in ASKS
    },
    day_s=60.0,
)
"""What the configuration allows. A call of `counted` has 30 tokens."""


def key_of(client: str) -> str:
    """Return the key of a client."""
    return f"gk-{client}"


def _config(folder: Path, providers: list[Provider], *stores: Any) -> Config:
    base = metered_config(providers[0], folder, "limited, de, de-2, us, guard, asked", stores_patch(*stores))
    own = {"admin_keys": [new_key()[1].text], "deployments": {"us": {"endpoint": f"{providers[1].origin}/us/v1"}}}
    parts = _CONFIG.without("clients", "projects", "asks").data
    return base.without("clients", "regions", "assistants", "location").merge(parts, own)


def _texts(call: ProviderCall) -> Sequence[str]:
    asked = call.body["input"]
    return [asked] if isinstance(asked, str) else asked


def _behaviour(name: str, calls: dict[int, Call], numbers: Iterator[int]) -> Callable[[ProviderCall], Any]:
    async def behave(call: ProviderCall) -> None:
        named = _NAMED.search(json.dumps(call.body).replace("\\r\\n", " "))
        number, received = next(numbers), Call(named[0] if named else "", name, time.time())
        calls[number] = received
        try:
            if name == "guard":
                found = [
                    {"flagged": CRIED in text, "categories": {"self-harm": CRIED in text}} for text in _texts(call)
                ]
                await call.respond(200, {"results": found})
            elif "input" in call.body:
                vectors = [
                    {"object": "embedding", "index": at, "embedding": [0.5]} for at, _ in enumerate(_texts(call))
                ]
                usage = {"prompt_tokens": 10, "total_tokens": 10}
                await call.respond(200, {"object": "list", "model": "m", "data": vectors, "usage": usage})
            elif "form" in call.body:
                await call.respond(200, {"text": "word", "usage": {"type": "duration", "seconds": 1.0}})
            else:
                await answer_metered(call, SeenCall(name), pause_s=0.02)
        finally:
            calls[number] = replace(received, ended_s=time.time())

    return behave


@contextmanager
def cell_world(folder: Path, product: Path) -> Iterator[CellWorld]:
    """Run the cell in the namespaces of this process, from a tree of the product."""
    build_network()
    calls: dict[int, Call] = {}
    numbers = count()
    with ExitStack() as stack:
        providers = [
            stack.enter_context(Provider({name: _behaviour(name, calls, numbers) for name in names}, host=FRONT))
            for names in (("limited", "de", "de-2", "guard", "asked"), ("us",))
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
        world = CellWorld(folder, product, instances, database, valkey, front, calls)
        (folder / "clock").mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(_CLOCK)
        for one in instances.values():
            one.file("clock").write_bytes(b"\0")
            one.state.mkdir()
            _ip(f"mount -t tmpfs -o size={_STATE_BYTES},mode=700 tmpfs {one.state}")
            stack.callback(_ip, f"umount --lazy {one.state}")
            one.start()
            stack.callback(one.kill)
        for one in instances.values():
            world.wait_until_ready(one.name)
            front.add(one.url)
        world.store_clients()
        yield world
