"""Exchanges of sign-ins against the simulated issuers: each kind, each refusal, and what an answer may not do."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from providers.auth import AwsSigV4, Bearer, Secret, apply
from providers.sign_in.exchange import ExchangeFailed, Issued, checked, credentials_of, read_code, read_xml, token_of
from providers.sign_in.exchanges import ExchangeInput, SignInTerms, exchange_for
from providers.sign_in.kinds import sign_in_kinds
from providers.testkit import IncomingRequest, SimulatedIssuers
from providers.wire import WireRequest, WireResponse
from tests.kit.case_files import cases
from tests.kit.sign_ins import POOL, ROLE, run, subject, terms

AZURE = {"tenant": "t-1", "client": "c-1", "scope": "https://cognitiveservices.azure.com/.default"}
AWS = {"role": ROLE, "session": "gateway", "region": "eu-central-1"}
ASSUME = {"assume_role": ROLE, "assume_session": "gateway"}
SECRET = "s3cret-of-the-client"
OAUTH = {"client": "app", "path": "/token", "url": "https://id.example.de/token"}


def accepted(issuers: SimulatedIssuers, issued: Issued, kind: str) -> bool:
    """Return whether a provider would accept a request with what was issued."""
    is_aws = issued.text.startswith("ASIA")
    wire = WireRequest("POST", "/model/m/converse", (("content-type", "application/json"),), b"{}")
    scheme = AwsSigV4("bedrock") if is_aws else Bearer()
    signed = apply(scheme, wire, issuers.origin, Secret(issued.text), time.time())
    headers = {"host": issuers.origin.removeprefix("http://"), **dict(signed.headers)}
    return issuers.knows(IncomingRequest("POST", wire.path, "", headers, wire.body))


CASES: list[tuple[str, Mapping[str, str]]] = [
    ("azure_workload", AZURE),
    ("azure_managed", AZURE),
    ("azure_managed", {**AZURE, "identity_header": "h", "path": "/msi/token"}),
    ("aws_web_identity", AWS),
    ("aws_web_identity", AWS | ASSUME | {"assume_external_id": "x"}),
    ("aws_container", {"path": "/v1/credentials"}),
    ("aws_instance", {}),
    ("google_metadata", {}),
    ("google_metadata", {"audience": "https://iap.example.de"}),
    ("google_federation", {"audience": POOL}),
    ("google_federation", {"audience": POOL, "impersonate": "gw@p.iam.gserviceaccount.com"}),
    ("oauth", {**OAUTH, "client_secret": SECRET, "scope": "chat", "audience": "a", "resource": "r"}),
    ("oauth", OAUTH),
]


@pytest.mark.parametrize(("kind", "texts"), CASES)
async def test_every_kind_gets_what_a_provider_accepts_until_it_is_revoked(kind: str, texts: dict[str, str]) -> None:
    async with SimulatedIssuers(1200.0) as issuers:
        issued = await run(terms(kind, issuers.url, **texts), subject())
        end_s = issued.expires_at_s or time.time() + (issued.expires_in_s or 0)
        assert end_s == pytest.approx(time.time() + 1200, abs=5)
        assert accepted(issuers, issued, kind)
        assert (issuers.calls[-1]["kind"] == "assume") == ("assume_role" in texts)
        issuers.revoke()
        assert not accepted(issuers, issued, kind)


def test_the_cases_cover_every_kind() -> None:
    assert {kind for kind, _ in CASES} == sign_in_kinds().keys()


async def test_a_sign_in_of_aws_is_the_subject_of_the_other_clouds() -> None:
    async with SimulatedIssuers() as issuers:
        irsa = terms("aws_web_identity", issuers.url, **AWS)
        keys = await run(irsa, subject())
        for kind, texts in (("azure_workload", AZURE), ("google_federation", {"audience": POOL}), ("oauth", OAUTH)):
            issued = await run(terms(kind, issuers.url, irsa, **texts), keys.text)
            assert accepted(issuers, issued, kind)
        assert [call["kind"] for call in issuers.calls] == [
            *("aws_web_identity", "web_identity_token", "azure_workload"),
            *("google_federation", "web_identity_token", "oauth"),
        ]
        issuers.revoke("aws_web_identity")
        with pytest.raises(ExchangeFailed, match="invalid_grant") as failed:
            await run(terms("google_federation", issuers.url, irsa, audience=POOL), keys.text)
        assert failed.value.result == "refused"


@pytest.mark.parametrize(
    ("kind", "texts", "words"),
    [
        ("azure_workload", AZURE, r"status 401 \(invalid_client, AADSTS700024\): the subject has expired"),
        ("aws_web_identity", AWS, r"status 400 \(ExpiredTokenException\): the subject has expired"),
        ("google_federation", {"audience": POOL}, r"status 400 \(invalid_grant\)"),
        ("oauth", OAUTH, r"status 400 \(invalid_client\)"),
    ],
)
async def test_a_subject_that_has_expired_is_refused(kind: str, texts: dict[str, str], words: str) -> None:
    async with SimulatedIssuers() as issuers:
        with pytest.raises(ExchangeFailed, match=words) as failed:
            await run(terms(kind, issuers.url, **texts), subject(-1))
        assert failed.value.result == "refused"


@pytest.mark.parametrize(
    ("fault", "result"),
    [(400, "refused"), (401, "refused"), (410, "unreachable"), (429, "unreachable"), (500, "unreachable"),
     ("redirect", "malformed"), ("echo", "refused")],
)  # fmt: skip
async def test_every_fault_has_its_result_and_no_text_of_the_issuer(fault: int | str, result: str) -> None:
    async with SimulatedIssuers() as issuers, httpx.AsyncClient(trust_env=False) as client:
        await client.put(f"{issuers.url}/_faults", json={"kind": "azure_managed", "fault": fault})
        with pytest.raises(ExchangeFailed) as failed:
            await run(terms("azure_managed", issuers.url, **AZURE), subject())
        assert failed.value.result == result
        assert "marked" not in str(failed.value)
        assert "cognitiveservices" not in str(failed.value)
        await client.put(f"{issuers.url}/_faults", json={"kind": "azure_managed", "fault": None})
        same = await run(terms("azure_managed", issuers.url, **AZURE))
        await client.put(f"{issuers.url}/_faults", json={"kind": "azure_managed", "fault": "same"})
        assert (await run(terms("azure_managed", issuers.url, **AZURE))).text == same.text
        await client.post(f"{issuers.url}/_revoke", json={"kind": "azure_managed"})
        calls = (await client.get(f"{issuers.url}/_calls")).json()
        assert [call["kind"] for call in calls] == ["azure_managed"] * 3
        assert not accepted(issuers, same, "azure_managed")


@cases("status", "words")
def test_each_refusal_of_a_managed_identity_has_its_own_words(status: int, words: str) -> None:
    exchange = exchange_for(terms("azure_managed", "http://127.0.0.1:1", **AZURE), ExchangeInput(0))
    next(exchange)
    with pytest.raises(ExchangeFailed, match=words) as failed:
        exchange.send(WireResponse(status, {}, b"", 0))
    assert failed.value.result == "refused"
    assert status == 400 or "identity" not in str(failed.value)


@cases("method", "path", "headers", "status")
async def test_an_issuer_refuses_what_its_vendor_refuses(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with SimulatedIssuers() as issuers, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.request(method, f"{issuers.url}{path}", headers=headers)).status_code == status


def test_xml_with_a_dtd_is_refused() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x><Credentials><AccessKeyId>&a;</AccessKeyId></Credentials></x>'
    for body in (bomb, bomb.decode().encode("utf-16"), b"<x>", b"\xff"):
        with pytest.raises(ExchangeFailed) as failed:
            credentials_of(read_xml(body), "SessionToken")
        assert failed.value.result == "malformed"


@pytest.mark.parametrize(
    "members", [{}, {"access_token": "a b"}, {"access_token": "x\r\ny: z"}, {"access_token": 1}, {"access_token": ""}]
)
def test_a_token_that_cannot_be_sent_is_malformed(members: dict[str, Any]) -> None:
    with pytest.raises(ExchangeFailed, match="access_token"):
        token_of(members)


def test_ends_in_every_form() -> None:
    assert token_of({"access_token": "t"}).expires_in_s == 300
    assert token_of({"access_token": "t", "expires_in": "60"}).expires_in_s == 60
    assert token_of({"access_token": "t", "expires_on": "1800000000"}, at="expires_on").expires_at_s == 1800000000
    zoned = {"access_token": "t", "e": "2027-01-15T08:00:00Z"}
    assert token_of(zoned, at="e").expires_at_s == 1800000000


def test_only_codes_of_a_safe_form_are_shown() -> None:
    assert read_code("invalid_client") == "invalid_client"
    assert read_code(f"invalid {SECRET}") == read_code("x" * 65) == read_code(None) == ""
    wait = WireResponse(503, {"retry-after": "7"}, b'{"error": "a b"}', 0)
    with pytest.raises(ExchangeFailed, match=r"^status 503$") as failed:
        checked(wait)
    assert failed.value.retry_after_s == 7


def test_neither_terms_nor_tokens_show_secrets() -> None:
    secret = SignInTerms("oauth", {}, {"client_secret": SECRET})
    assert SECRET not in repr(secret) + str(secret) + repr(Issued(SECRET))


def test_the_issuers_serve_as_a_program() -> None:
    command = [sys.executable, "-m", "providers.testkit.issuers", "--port", "0", "--lifetime", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            issued = asyncio.run(run(terms("google_metadata", url)))
            assert issued.expires_in_s == 60
        finally:
            process.kill()  # a runner of tests may ignore SIGTERM, and its children inherit that
