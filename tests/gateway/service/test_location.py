"""Signals that are checked: an issuer whose keys are fetched and turn over, files that are replaced, and bad days."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import httpx
import jwt
import pytest

from gateway.execution.service_client import ServiceClient
from gateway.model.location import AddressReport, ClaimProblem, ClaimReport, reports_of
from gateway.model.location_rules import LocationRules
from gateway.model.permit import ServicePermit
from gateway.model.signed_token import KeyFile, KeyUrl, SharedKey
from gateway.policy.location import SignalLocator
from gateway.policy.location.claim import ClaimRules, claim_of
from gateway.policy.location.geoip import AddressQuestion, GeoIpRules
from gateway.service import claim_issuer
from gateway.service.location import LocationService
from providers.auth import Secret
from tests.kit.claim_tokens import AUDIENCE, ISSUER, NOW, claims, jwks, private, public, token
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.mmdb import country, mmdb

DAY_S = 86_400.0
URL = KeyUrl(ServicePermit("https://issuer.example"), "/.well-known/jwks.json")
RULES = ClaimRules(ISSUER, AUDIENCE, frozenset({"ES256"}), URL, longest_s=30 * 86_400)
GOOD = ClaimReport("DE")
NOBODY = AddressReport(note="nobody")


class LocationSetup:
    """An issuer, clocks that are set by hand, and the signals between them."""

    def __init__(self) -> None:
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, content=jwks(public("k1")))
        self.asked: list[httpx.Request] = []
        self.noted: list[str] = []
        self.now = NOW
        self.ticks = 0.0
        transport = HttpxTransport(httpx.MockTransport(self._issuer))
        self.signals = LocationService(
            ServiceClient(transport), self.noted.append, lambda: self.now, lambda: self.ticks
        )

    def _issuer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer()

    def serve(self, *kids: str) -> None:
        self.answer = lambda: httpx.Response(200, content=jwks(*map(public, kids)))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds

    def is_loaded(self) -> bool:
        lookups = self.signals._lookups.values()
        return bool(lookups) and all(it.kept is None or it.kept._loading is None for it in lookups)

    async def claim(self, *tokens: str, rules: ClaimRules = RULES) -> ClaimReport | None:
        rules_of_all = LocationRules(signals=("claim",), own=(rules,))
        sent: dict[bytes, tuple[bytes, ...]] = {b"x-gateway-claim": tuple(map(str.encode, tokens))}
        reports = SignalLocator(rules_of_all).report(("location", None, "10.0.0.1", sent[b"x-gateway-claim"]))
        return claim_of(await self.signals.answer(rules_of_all, reports))

    async def address(self, rules: GeoIpRules, text: str) -> AddressReport:
        rules_of_all = LocationRules(own=(rules,))
        asked = reports_of({"geoip": AddressQuestion(ip_address(text))})
        answered = (await self.signals.answer(rules_of_all, asked)).get("geoip")
        assert isinstance(answered, AddressReport)
        return answered


@pytest.fixture
async def setup() -> AsyncIterator[LocationSetup]:
    setup = LocationSetup()
    yield setup
    await setup.signals.aclose()


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a thread's work has no event to wait for
            await asyncio.sleep(0.001)


# --- claims ---------------------------------------------------------------------------------------


async def test_the_keys_are_fetched_once_under_the_permit_and_carry_nothing_of_a_request(setup: LocationSetup) -> None:
    tokens = [token(sub=str(number)) for number in range(5)]
    assert await asyncio.gather(*(setup.claim(text) for text in tokens)) == [GOOD] * 5
    (request,) = setup.asked
    assert (request.method, str(request.url)) == ("GET", "https://issuer.example/.well-known/jwks.json")
    assert request.content == b""
    assert set(request.headers) == {"host", "user-agent", "accept", "accept-encoding"}


async def test_request_without_a_claim_fetches_no_keys(setup: LocationSetup) -> None:
    assert await setup.claim() is None
    assert setup.asked == []


async def test_two_claims_are_rejected(setup: LocationSetup) -> None:
    assert await setup.claim(token(), token()) == ClaimReport(problem=ClaimProblem.REPEATED)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The claims that were verified and not found in the cache."""
    checked: list[str] = []
    really = claim_issuer.verify  # type: ignore[attr-defined]
    monkeypatch.setattr(claim_issuer, "verify", lambda *given: (checked.append(given[2]), really(*given))[1])
    return checked


async def test_an_identical_claim_is_checked_once_and_never_beyond_its_time(
    setup: LocationSetup, checked: list[str]
) -> None:
    good = token()
    for _ in range(3):
        assert await setup.claim(good) == GOOD
    assert len(checked) == 1
    for _ in range(3):
        assert (await setup.claim(good[:-4] + "AAAA")) == ClaimReport(problem=ClaimProblem.SIGNATURE)
    assert len(checked) == 4
    setup.pass_time(599)
    assert await setup.claim(good) == GOOD
    setup.pass_time(1)
    assert await setup.claim(good) == ClaimReport(problem=ClaimProblem.EXPIRED)


async def test_a_new_key_of_the_issuer_is_found_and_an_old_one_forgotten(setup: LocationSetup) -> None:
    assert await setup.claim(token("k1")) == GOOD
    setup.serve("k1", "k2")
    setup.pass_time(10)
    assert await setup.claim(token("k2")) == GOOD
    assert len(setup.asked) == 2
    setup.serve("k2")
    assert await setup.claim(token("k1")) == GOOD
    setup.pass_time(300)
    assert await setup.claim(token("k1")) == GOOD  # of the set in hand, while the next one is fetched
    await settle(lambda: len(setup.asked) == 3)
    await settle(setup.is_loaded)
    assert await setup.claim(token("k1")) == ClaimReport(problem=ClaimProblem.KEY)


async def test_claims_that_live_long_are_counted_in_the_log_once_an_hour(setup: LocationSetup) -> None:
    rules = replace(RULES, longest_s=None)
    for user in range(3):
        assert (await setup.claim(token(sub=f"u{user}", exp=NOW + 2 * DAY_S), rules=rules)) is not None
    assert setup.noted == ["1 claim was accepted that is valid for more than 24 hours: set `longest` of location.claim"]
    setup.ticks += 3600
    await setup.claim(token(sub="u3"), rules=rules)
    await setup.claim(token(sub="u4", exp=NOW + 2 * DAY_S), rules=rules)
    assert setup.noted[1:] == [
        "3 claims were accepted that are valid for more than 24 hours: set `longest` of location.claim"
    ]


async def test_a_claim_of_a_new_key_is_judged_like_any_other(setup: LocationSetup) -> None:
    assert await setup.claim(token("k1")) == GOOD
    setup.serve("k1", "k2")
    setup.pass_time(10)
    assert await setup.claim(token("k2", exp=NOW - DAY_S)) == ClaimReport(problem=ClaimProblem.EXPIRED)


async def test_latest_verified_claims_are_cached(
    setup: LocationSetup, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_issuer, "_MAX_VERIFIED", 2)
    one, two, three = (token(sub=name) for name in ("one", "two", "three"))
    for asked in (one, two, one, three, one, three, two):
        assert await setup.claim(asked) == GOOD
    assert checked == [one, two, three, two]


async def test_unknown_keys_never_make_us_hammer_the_issuer(setup: LocationSetup) -> None:
    assert await setup.claim(token("k1")) == GOOD
    for second in range(100):
        setup.pass_time(1)
        forged = jwt.encode(claims(), private("thief"), "ES256", headers={"kid": f"forged-{second}"})
        found = await asyncio.gather(*(setup.claim(forged) for _ in range(5)))
        assert {report.problem for report in found if report} == {ClaimProblem.KEY}
    assert len(setup.asked) <= 11


BAD_ANSWERS = {
    "an error": lambda: httpx.Response(503),
    "a redirect": lambda: httpx.Response(302, headers={"location": "https://elsewhere.example/jwks"}),
    "no key set": lambda: httpx.Response(200, html="<html>"),
    "too much": lambda: httpx.Response(200, content=b" " * 300_000 + jwks(public("k1"))),
    "nothing": lambda: httpx.Response(200),
}


def broken_off() -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize("answer", [*BAD_ANSWERS.values(), broken_off], ids=[*BAD_ANSWERS, "no connection"])
async def test_claim_is_unchecked_without_keys_and_verified_with_old_keys(
    setup: LocationSetup, answer: Callable[[], httpx.Response]
) -> None:
    unchecked = ClaimReport(problem=ClaimProblem.UNCHECKED)
    good_answer, setup.answer = setup.answer, answer
    assert await setup.claim(token(exp=NOW + 10 * DAY_S)) == unchecked
    assert await setup.claim(token(exp=NOW + 10 * DAY_S)) == unchecked
    assert len(setup.asked) == 1
    setup.answer = good_answer
    setup.pass_time(10)
    long = token(exp=NOW + 10 * DAY_S)
    assert await setup.claim(long) == GOOD
    setup.answer = answer
    for _ in range(23):
        setup.pass_time(3600)
        assert await setup.claim(long) == GOOD
        await settle(setup.is_loaded)
    assert await setup.claim(token("k2")) == unchecked
    setup.pass_time(3600)
    assert await setup.claim(long) == unchecked
    assert {request.url.host for request in setup.asked} == {"issuer.example"}
    assert len(setup.noted) == 3
    assert "can be read again" in setup.noted[1]


async def test_keys_of_a_file_are_read_again_when_it_is_replaced(setup: LocationSetup, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(public("k1")))
    rules = replace(RULES, keys=KeyFile(str(path)))
    assert await setup.claim(token("k1"), rules=rules) == GOOD
    assert await setup.claim(token("k2"), rules=rules) == ClaimReport(problem=ClaimProblem.KEY)
    path.write_bytes(jwks(public("k2")))
    setup.pass_time(1)
    assert await setup.claim(token("k2"), rules=rules) == GOOD
    path.unlink()
    setup.pass_time(1)
    assert await setup.claim(token("k2"), rules=rules) == GOOD
    await settle(lambda: bool(setup.noted))
    assert setup.noted == ["the key set of location.claim cannot be read (No such file or directory)"]
    assert setup.asked == []


async def test_a_shared_secret_needs_no_fetching(setup: LocationSetup) -> None:
    secret = "a shared secret of at least 32 characters"
    rules = replace(RULES, algorithms=frozenset({"HS256"}), keys=SharedKey((Secret(secret),)))
    assert await setup.claim(jwt.encode(claims(), secret, "HS256"), rules=rules) == GOOD
    assert await setup.claim(token(), rules=rules) == ClaimReport(problem=ClaimProblem.ALGORITHM)
    assert setup.asked == []


async def test_claim_is_checked_against_the_issuer_of_its_table(setup: LocationSetup) -> None:
    assert await setup.claim(token()) == GOOD
    other = replace(RULES, issuer="https://other.example")
    assert await setup.claim(token(), rules=other) == ClaimReport(problem=ClaimProblem.ISSUER)
    assert await setup.claim(token(iss="https://other.example"), rules=other) == GOOD


async def test_changed_claim_rules_keep_the_keys_of_the_issuer(setup: LocationSetup) -> None:
    assert await setup.claim(token()) == GOOD
    setup.answer = broken_off
    other = replace(RULES, preferences="wishes")
    setup.signals.prepare(LocationRules(own=(other,)))
    assert await setup.claim(token(), rules=other) == GOOD
    assert await setup.claim(token()) == GOOD, "a request that began before the edit"
    elsewhere = replace(RULES, keys=replace(URL, path="/others.json"))
    assert await setup.claim(token(), rules=elsewhere) == ClaimReport(problem=ClaimProblem.UNCHECKED)
    assert [request.url.path for request in setup.asked] == [URL.path, "/others.json"]


async def test_keys_are_loaded_before_the_first_request(setup: LocationSetup) -> None:
    setup.signals.prepare(LocationRules())
    assert setup.asked == []
    setup.signals.prepare(LocationRules(own=(RULES,)))
    await settle(lambda: len(setup.asked) == 1)


# --- addresses ------------------------------------------------------------------------------------


@pytest.fixture
def rules(tmp_path: Path) -> GeoIpRules:
    """A database of this day, whose addresses are in Germany."""
    path = tmp_path / "world.mmdb"
    path.write_bytes(mmdb({"1.0.0.0/8": country("DE")}, built_at=int(NOW)))
    return GeoIpRules(str(path), 30 * DAY_S)


async def test_a_database_is_asked_and_opened_again_when_it_is_replaced(
    setup: LocationSetup, tmp_path: Path, rules: GeoIpRules
) -> None:
    path = tmp_path / "world.mmdb"
    assert await setup.address(rules, "1.2.3.4") == AddressReport("DE")
    new = tmp_path / "new.mmdb"
    new.write_bytes(mmdb({"1.0.0.0/8": country("FR", "IDF")}, built_at=int(NOW)))
    os.replace(new, path)
    assert await setup.address(rules, "1.2.3.4") == AddressReport("DE")
    setup.pass_time(1)
    await setup.address(rules, "1.2.3.4")
    await settle(setup.is_loaded)
    assert await setup.address(rules, "1.2.3.4") == AddressReport("FR", "IDF")
    path.write_bytes(b"broken")
    setup.pass_time(1)
    assert await setup.address(rules, "1.2.3.4") == AddressReport("FR", "IDF")
    await settle(lambda: bool(setup.noted))
    assert setup.noted == ["the database of location.geoip is not a MaxMind database, or is damaged"]
    assert await setup.address(rules, "1.2.3.4") == AddressReport("FR", "IDF")


async def test_database_that_is_too_old_is_not_used_and_logged_once(setup: LocationSetup, rules: GeoIpRules) -> None:
    setup.pass_time(30 * DAY_S)
    assert await setup.address(rules, "1.2.3.4") == AddressReport("DE")
    setup.pass_time(1)
    for _ in range(3):
        report = await setup.address(rules, "1.2.3.4")
        assert (report.country, report.doubtful) == ("", False)
        assert "older than `max_age`" in report.note
    assert setup.noted == [
        "the database of location.geoip is 30 days old, by the date in the file, and is no longer used: "
        "replace the file with a newer one"
    ]


async def test_database_from_the_future_is_not_used(setup: LocationSetup, rules: GeoIpRules) -> None:
    setup.now -= 2 * DAY_S
    assert (await setup.address(rules, "1.2.3.4")).country == ""
    assert setup.noted == [
        "the database of location.geoip has a date 2 days in the future, and is no longer used: "
        "replace the file with a newer one"
    ]


async def test_an_edit_of_the_age_keeps_the_database(setup: LocationSetup, tmp_path: Path, rules: GeoIpRules) -> None:
    setup.now += 2 * DAY_S
    assert await setup.address(rules, "1.2.3.4") == AddressReport("DE")
    (tmp_path / "world.mmdb").unlink()
    assert await setup.address(replace(rules, max_age_s=20 * DAY_S), "1.2.3.4") == AddressReport("DE")
    assert (await setup.address(replace(rules, max_age_s=DAY_S), "1.2.3.4")).country == ""
    assert (await setup.address(replace(rules, path=str(tmp_path / "other")), "1.2.3.4")).country == ""


async def test_missing_database_reports_no_country(setup: LocationSetup, tmp_path: Path) -> None:
    report = await setup.address(GeoIpRules(str(tmp_path / "nothing"), DAY_S), "1.2.3.4")
    assert report == AddressReport(note="silent: the database cannot be read")
    assert setup.noted == ["the database of location.geoip can't be read (No such file or directory)"]


async def test_missing_address_is_not_looked_up(setup: LocationSetup) -> None:
    rules = LocationRules(own=(GeoIpRules("/nothing", DAY_S),))
    reports = reports_of({"geoip": NOBODY})
    assert (await setup.signals.answer(rules, reports)).get("geoip") == NOBODY
    assert setup.noted == []


async def test_lookup_that_loads_nothing_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        rules, kept = RULES, None

        async def answer(self, _: object) -> ClaimReport:
            return GOOD

    monkeypatch.setattr("gateway.service.location.LOOKUPS", {"claim": lambda *_: Fixed()})
    setup = LocationSetup()
    setup.signals.prepare(LocationRules(signals=("claim",), own=(RULES,)))
    assert await setup.claim("a token") == GOOD
    assert not setup.asked
    await setup.signals.aclose()
