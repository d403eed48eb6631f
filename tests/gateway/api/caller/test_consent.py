"""Consent in the headers of a request, and the callers that may state it."""

from dataclasses import replace

import pytest

from gateway.api.caller.request_headers import read_caller
from gateway.api.errors import ApiError, encode_error, from_domain
from gateway.model.consent import NO_STATEMENT, ConsentRequest, ConsentStatement
from gateway.model.decision import Refusal, RefusalCode, Refused
from gateway.model.location import ClaimProblem, ClaimReport
from gateway.policy.caller import read_consent
from tests.gateway.api.caller.visits import visit, visit_with
from tests.gateway.location_reports import caller_of
from tests.kit.configs import BASE, key_hash, table_of


def digest(key: str) -> str:
    return key_hash(key).removeprefix("sha256:")


CONFIG = BASE.merge(
    {
        "clients": {
            "app": {"keys": [key_hash("app")]},
            "backend": {"keys": [key_hash("backend")], "may_assert": ["territory", "consent"]},
        },
        "deployments": {"chatgpt-us": {"consent": {"mode": "standing"}}},
        "location": {
            "signals": ["claim", "api_key", "assertion", "edge_header"],
            "claim": {
                "issuer": "i",
                "audience": "a",
                "algorithms": ["HS256"],
                "secret": "a-secret-of-thirty-two-characters",
            },
        },
    }
)
TABLE = table_of(CONFIG)
GRANTED = ("x-gateway-consent", "granted")


def statement_of(key: str, *values: str, claim: ClaimReport | None = None) -> ConsentStatement:
    visitor = visit_with(key, *(("x-gateway-consent", value) for value in values))
    return read_consent(TABLE, read_caller(TABLE, visitor), claim)


def test_nothing_is_read_if_no_deployment_needs_consent() -> None:
    plain = table_of(BASE)
    assert read_consent(plain, caller_of(plain, None, visit(GRANTED)), None) is NO_STATEMENT


def test_backend_may_state_consent_only_if_the_config_allows_it() -> None:
    asserted = ConsentStatement(digest("backend"), asserted=True)
    assert statement_of("backend", "granted") == statement_of("backend", " granted \t") == asserted
    refused = statement_of("app", "granted")
    assert (refused.asserted, refused.token) == (False, None)
    assert refused.note == "`granted` is ignored: this key may not assert consent"


def test_caller_without_a_key_cannot_state_consent() -> None:
    keyless = table_of(CONFIG.without("clients"))
    statement = read_consent(keyless, read_caller(keyless, visit(GRANTED)), None)
    assert (statement.caller, statement.asserted, statement.token) == ("", False, None)
    assert statement.note


@pytest.mark.parametrize("value", ["GRANTED", "granted.", "granted, granted", "yes", "", "c1.1.x"])
def test_other_consent_values_are_read_as_a_token(value: str) -> None:
    expected = ConsentStatement(digest("backend"), token=value)
    assert statement_of("backend", value) == statement_of("backend", f"{value} ") == expected


@pytest.mark.parametrize("values", [("granted", "granted"), ("c1.1.x", "granted"), ("granted", "c1.1.x")])
def test_two_consent_headers_are_refused(values: tuple[str, ...]) -> None:
    found = statement_of("backend", *values)
    assert (found.asserted, found.token, found.note) == (False, None, "`x-gateway-consent` was sent more than once")


def test_consents_of_a_claim_count_only_if_it_is_verified() -> None:
    consents = frozenset({"openai"})
    assert statement_of("app", claim=ClaimReport("US", consents=consents)).standing == consents
    assert statement_of("app", claim=ClaimReport("US", ClaimProblem.EXPIRED, consents)).standing == frozenset()
    unread = table_of(CONFIG.merge("location: {signals: [api_key, assertion, edge_header]}"))
    claim = ClaimReport("US", consents=consents)
    assert read_consent(unread, read_caller(unread, visit_with("app")), claim).standing == frozenset()


def test_keys_are_distinguished_and_not_shown() -> None:
    assert statement_of("app").caller != statement_of("backend").caller
    assert "app" not in statement_of("app").caller


def test_named_users_with_one_key_are_distinguished_and_not_shown() -> None:
    anna, ben = ClaimReport("US", subject="anna"), ClaimReport("US", subject="ben")
    callers = {statement_of("app", claim=claim).caller for claim in (anna, ben, ClaimReport("US"))}
    assert len(callers | {statement_of("backend", claim=anna).caller}) == 4
    assert statement_of("app", claim=anna) == statement_of("app", claim=replace(anna, territory="DE"))
    assert not any("anna" in caller for caller in callers)
    assert statement_of("app", claim=ClaimReport("US", ClaimProblem.EXPIRED, subject="anna")) == statement_of("app")


def test_permitted_backend_may_name_the_user_of_a_token() -> None:
    table = table_of(CONFIG.merge("clients: {backend: {may_assert: [user]}}"))
    visitors = [visit_with(key, ("x-gateway-user", user)) for key in ("backend", "app") for user in ("anna", "ben")]
    asked = [read_consent(table, read_caller(table, visitor), None).caller for visitor in visitors]
    assert asked[0] != asked[1]
    assert asked[2] == asked[3] == statement_of("app").caller


def test_consent_error_has_all_fields_that_an_app_needs() -> None:
    asked = ConsentRequest("OpenAI", "US", "any", ("messages", "tools"), "c1.5.x", 5)
    error = from_domain(Refused(Refusal(RefusalCode.CONSENT_REQUIRED, "ask"), asked), [])
    assert isinstance(error, ApiError)
    assert error.status == 403
    body = encode_error(error)["error"]
    assert body == {
        "message": "ask",
        "type": "permission_error",
        "param": None,
        "code": "consent_required",
        "reason": "consent",
        "consent": {
            "recipient": "OpenAI",
            "place": {"stores": "US", "processes": "any"},
            "would_send": ["messages", "tools"],
            "token": "c1.5.x",
            "expires_at": 5,
        },
    }
    noted = from_domain(Refused(Refusal(RefusalCode.CONSENT_REQUIRED, "ask"), replace(asked, note="expired")), [])
    assert noted.extra["consent"]["note"] == "expired"  # type: ignore[index]
