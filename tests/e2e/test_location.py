"""Location of a caller on the real server: claims, a GeoIP database, parts of countries, and forged signals.

The peer is an address of this machine: 127.0.0.2 is an edge that overwrites its headers, 127.0.0.9 is an untrusted
client.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, config_for
from tests.kit.claim_tokens import jwks, public, token
from tests.kit.configs import key_hash
from tests.kit.forged_locations import EDGE_SECRET, LIES, Case, Header, cases, config_with_location
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.mmdb import country, mmdb

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}).encode()
EDGE, STRANGER = "127.0.0.2", "127.0.0.9"
LOCATION: dict[str, Any] = {
    "signals": ["claim", "api_key", "assertion", "edge_header", "geoip"],
    "edges": [
        {
            "from": [f"{EDGE}/32"],
            "country": "CF-IPCountry",
            "subdivision": "cf-region-code",
            "client_ip": "X-Forwarded-For",
            "secret": {"header": "X-Edge-Auth", "value": "${EDGE_SECRET}"},
        }
    ],
    "unknown": "eu",
}
PROOF = {"x-edge-auth": EDGE_SECRET}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "keys.json").write_bytes(jwks(public("k1")))
    (folder / "world.mmdb").write_bytes(mmdb(built_at=int(time.time())))
    return folder


@pytest.fixture(scope="module")
def server(providers: SimulatorThread, folder: Path) -> Iterator[GatewayProcess]:
    shop = {"keys": [key_hash("gk-shop")], "region": "cn"}
    limited = {"keys": [key_hash("gk-limited")], "limits": {"rpm": 1}}
    clients = {"shop-cn": shop, "limited": limited}
    config = config_for(providers, {"clients": clients, "blocked": ["UA-43", "CU", "IR", "KP", "SY"]})
    path = config_with_location(config, LOCATION, str(folder / "world.mmdb"), str(folder / "keys.json")).write(folder)
    with running_gateway(path, {**KEYS, "EDGE_SECRET": EDGE_SECRET}) as process:
        yield process


def ask(server: GatewayProcess, headers: Mapping[str, str], peer: str = EDGE) -> httpx.Response:
    """Return the answer to a request from this address of this machine."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=peer), base_url=server.url) as client:
        given = {"authorization": f"Bearer {APP_KEY}", "content-type": "application/json", **headers}
        return client.post(CHAT, content=BODY, headers=given)


def status_and_location(response: httpx.Response) -> tuple[int, str | None, str | None]:
    return response.status_code, response.headers.get("x-gateway-region"), response.headers.get("x-gateway-why")


def claim(**claims: Any) -> dict[str, str]:
    return {"x-gateway-claim": token(**{"exp": time.time() + 600, **claims})}


def test_address_decides_without_a_stronger_signal(server: GatewayProcess) -> None:
    assert status_and_location(ask(server, {**PROOF, "x-forwarded-for": "9.9.9.9, 2.2.2.2"})) == (200, "eu", "geoip")
    assert status_and_location(ask(server, {**PROOF, "x-forwarded-for": "1.2.3.4"})) == (200, "cn", "geoip")
    assert status_and_location(ask(server, {**PROOF, "x-forwarded-for": "5.2.3.4"})) == (451, None, "geoip")
    assert status_and_location(ask(server, {**PROOF, "x-forwarded-for": "nonsense"})) == (451, None, "unknown")
    assert status_and_location(ask(server, {"x-forwarded-for": "1.2.3.4"}, STRANGER)) == (200, "eu", "unknown")


@pytest.mark.slow("waits until the gateway looks at its files")
def test_replaced_database_is_used_without_a_restart(server: GatewayProcess, folder: Path) -> None:
    path = folder / "world.mmdb"
    before = path.read_bytes()
    headers = {**PROOF, "x-forwarded-for": "4.4.4.4"}
    assert status_and_location(ask(server, headers))[1] == "default"
    for data, region in ((mmdb({"4.0.0.0/8": country("CN")}, built_at=int(time.time())), "cn"), (before, "default")):
        (folder / "new.mmdb").write_bytes(data)
        os.replace(folder / "new.mmdb", path)
        deadline = time.monotonic() + 20
        while status_and_location(ask(server, headers))[1] != region:
            assert time.monotonic() < deadline


# --- the property ---------------------------------------------------------------------------------


def send_raw(server: GatewayProcess, peer: str, headers: tuple[Header, ...], key: str) -> tuple[int, str | None]:
    """Return status and region of a request with exactly these bytes. A refused connection counts as a refusal."""
    url = httpx.URL(server.url)
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: x", b"content-type: application/json", b"connection: close"]
    lines += [b"authorization: Bearer " + key.encode(), b"content-length: %d" % len(BODY)]
    lines += [name + b": " + value for name, value in headers]
    answer = b""
    with socket.create_connection((url.host, url.port or 80), timeout=20, source_address=(peer, 0)) as connection:
        connection.sendall(b"\r\n".join([*lines, b"", BODY]))
        while piece := connection.recv(65_536):
            answer += piece
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower().split("\r\n")
    named = dict(line.split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), named.get("x-gateway-region")


@pytest.mark.parametrize("number", [60, pytest.param(1_000, marks=pytest.mark.slow("sends 1,000 requests"))])
def test_no_header_changes_the_location_of_an_untrusted_client(server: GatewayProcess, number: int) -> None:
    counts: Counter[str] = Counter()

    @given(cases([EDGE], [STRANGER], location=LOCATION))
    @settings(max_examples=number // LIES, deadline=None, suppress_health_check=list(HealthCheck))
    def check_case(case: Case) -> None:
        key = {"app": APP_KEY, "shop-cn": "gk-shop"}[case.client]
        honest = send_raw(server, case.peer, case.honest, key)
        for headers in case.lying:
            status, region = send_raw(server, case.peer, headers, key)
            if region is None:
                assert 400 <= status < 500
                counts["refused as before" if honest[1] is None else "refused for the lie"] += 1
                continue
            assert (status, region) == honest
            counts["where it was"] += 1

    check_case()
    print(f"{counts.total()} requests: {dict(counts)}")
    assert counts.total() >= number
    assert counts["where it was"]


_NAMES = st.sampled_from(["cf-ipcountry", "x-forwarded-for", "x-gateway-claim", "cf-region-code", "x-edge-auth"])


@given(pairs=st.lists(st.tuples(_NAMES, st.binary(max_size=60)), max_size=5))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_header_bytes_cause_an_internal_error(server: GatewayProcess, pairs: list[tuple[str, bytes]]) -> None:
    cleaned = tuple((name.encode(), value.translate(None, b"\r\n\0")) for name, value in pairs)
    assert send_raw(server, EDGE, cleaned, APP_KEY)[0] < 500
