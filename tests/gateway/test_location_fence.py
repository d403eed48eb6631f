"""An untrusted client can't move itself: whatever it sends, directly or through a trusted edge, it is where it was, or it
is refused."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from gateway.api.caller.request_headers import headers_of
from gateway.execution.service_client import ServiceClient
from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from gateway.policy.location.resolution import locator_of, resolve
from gateway.service.location import LocationService
from tests.gateway.location_reports import caller_of
from tests.kit.claim_tokens import NOW, jwks, public
from tests.kit.configs import BASE, KEYS, SPLIT_COUNTRIES, table_of
from tests.kit.forged_locations import EDGE_SECRET, LIES, Case, Header, cases, config_with_location
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.mmdb import mmdb

PEERS = ["10.7.0.1", "10.7.0.2", "192.0.2.10"]
STRANGERS = ["1.2.3.4", "2.2.3.4", "3.1.3.4", "3.9.3.4", "5.2.3.4", "99.1.1.1", "10.9.9.9", "2a00:1::9"]
SPLIT = BASE.merge(SPLIT_COUNTRIES)


class LocationDecider:
    """Computes the location from the headers of a request, as the gateway does."""

    def __init__(self, folder: Path) -> None:
        self.database, self.keys = folder / "world.mmdb", folder / "keys.json"
        self.database.write_bytes(mmdb(built_at=int(NOW)))
        self.keys.write_bytes(jwks(public("k1")))
        self.loop = asyncio.new_event_loop()
        transport = HttpxTransport(httpx.MockTransport(lambda _: httpx.Response(500)))
        self.signals = LocationService(ServiceClient(transport), lambda _: None, lambda: NOW)
        self.counts: Counter[str] = Counter()

    def table(self, case: Case) -> ConfigVersion:
        config = config_with_location(SPLIT, case.config, str(self.database), str(self.keys))
        return table_of(config, {**KEYS, "EDGE_SECRET": EDGE_SECRET})

    def locate(self, table: ConfigVersion, case: Case, headers: tuple[Header, ...]) -> Location:
        lower = [(name.lower(), value.strip(b" \t")) for name, value in headers]
        visitor = headers_of({"headers": lower, "client": (case.peer, 1), "query_string": b""})
        client = next(client for client in table.clients.values() if client.name == case.client)
        caller = caller_of(table, client, visitor)
        found = [self.loop.run_until_complete(self.signals.locate(table, caller)) for _ in range(2)]
        # A cached location equals the one that is computed anew.
        reports = self.loop.run_until_complete(
            self.signals.answer(table.location.rules, locator_of(table).report(caller.location_key))
        )
        location = resolve(table, client, reports)
        assert [(each.reports, each.location) for each in found] == [(reports, location)] * 2
        return location

    def judge(self, case: Case) -> None:
        table = self.table(case)
        honest = self.locate(table, case, case.honest)
        for headers in case.lying:
            self.compare(honest, self.locate(table, case, headers))

    def compare(self, honest: Location, lying: Location) -> None:
        if lying.region is None:
            self.counts["refused as before" if honest.region is None else "refused for the lie"] += 1
            return
        assert (lying.region.name, lying.territory, lying.assumed) == (
            honest.region.name,
            honest.territory,
            honest.assumed,
        )
        self.counts["where it was"] += 1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LocationDecider]:
    place = LocationDecider(tmp_path)
    yield place
    place.loop.run_until_complete(place.signals.aclose())
    place.loop.run_until_complete(place.loop.shutdown_default_executor())
    place.loop.close()


@pytest.mark.slow("compiles a config for every five attempts")
@pytest.mark.parametrize("number", [1_000, pytest.param(10_000, marks=pytest.mark.full)])
def test_no_header_moves_an_untrusted_client(place: LocationDecider, number: int) -> None:
    @given(cases(PEERS, STRANGERS))
    @settings(max_examples=number // LIES, deadline=None, suppress_health_check=list(HealthCheck))
    def judge(case: Case) -> None:
        place.judge(case)

    judge()
    print(f"{place.counts.total()} cases: {dict(place.counts)}")
    assert place.counts.total() >= number
    assert all(place.counts[outcome] > number / 40 for outcome in ("where it was", "refused for the lie"))
