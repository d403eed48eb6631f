"""The end user of a client's token, the forms of real tokens, and a marked token that is searched everywhere."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.caller.request_headers import (
    KnownCaller,
    headers_of,
    known_caller,
    read_caller,
    read_verified_caller,
    remember_caller,
)
from gateway.api.connection import SameHead
from gateway.features.duties.time_of_use import LocalTimes, MemoryStore, TimeOfUse
from gateway.identity.token_rules import first_rule
from gateway.model.client_token import TokenRule
from gateway.model.signed_token import TokenGivesNothing
from gateway.policy.caller import read_consent, user_of
from gateway.policy.client_users import people_named, qualified_user
from gateway.service.location import locate
from gateway.usage.accounting import end_user_pseudonym
from tests.gateway.api.caller.visits import visit, visit_with
from tests.kit.claim_tokens import ISSUER, jwks, public
from tests.kit.claim_tokens import token as claim
from tests.kit.token_gateway import BATCH, CONFIG, RESEARCH, TENANT, TokenGateway, signed

FORMS = json.loads(Path(__file__).with_name("token_forms.json").read_text())
CLAIM = {"audience": "claims", "algorithms": ["ES256"], "jwks": "https://login.example/claims"}


def caller_of(gateway: TokenGateway, token: str, **headers: str) -> Any:
    """Return the caller of a request with this token."""
    visitor = visit_with(token, *((name.replace("_", "-"), value) for name, value in headers.items()))
    limiter = gateway.gateway._chat.limiter
    return gateway.run(read_verified_caller(gateway.gateway.config, visitor, limiter))


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_real_tokens_are_understood(gateway: TokenGateway, name: str) -> None:
    form = FORMS[name]
    issuer = {"jwks": "https://login.example/keys", "algorithms": ["RS256"], **form["config"]}
    rules = [{"client": "research", "where": form["where"]}]
    rules += [{"client": "batch", "where": {"never": "never"}}, {"client": "app", "where": {"never": "never"}}]
    gateway.keys = jwks(public("k1", "RS256"))
    gateway.reload(CONFIG.merge({"token_issuers": {"entra": {"user": None, **issuer, "clients": rules}}}))
    caller = caller_of(gateway, signed("k1", "RS256", header=form["header"], **{"oid": None, **form["members"]}))
    assert (caller.client.name, caller.client.token.user) == ("research", form["user"])


def test_token_names_the_user_unless_its_rule_forbids_it(gateway: TokenGateway) -> None:
    assert user_of(caller_of(gateway, signed(**RESEARCH), x_gateway_user="ben"), None) == qualified_user("entra", "u-1")
    assert user_of(caller_of(gateway, signed(**BATCH), x_gateway_user="ben"), None) == "ben"
    other = {**CONFIG.data["token_issuers"]["entra"], "issuer": "https://other.example"}
    gateway.reload(CONFIG.merge({"token_issuers": {"other": other}}))
    again = caller_of(gateway, signed(iss="https://other.example", **RESEARCH))
    assert user_of(again, None) == qualified_user("other", "u-1")


def test_consent_of_a_user_survives_a_new_token(gateway: TokenGateway) -> None:
    gateway.reload(CONFIG.merge({"deployments": {"chat": {"consent": {"mode": "standing", "recipient": "R"}}}}))
    config = gateway.gateway.config

    def identity(**members: Any) -> str:
        return read_consent(config, caller_of(gateway, signed(**{**RESEARCH, **members})), None).caller

    assert identity() == identity(jti="another token")
    assert len({identity(), identity(oid="u-2"), identity(groups=None, roles=["Batch"])}) == 3


@pytest.mark.parametrize(
    ("issuer", "subject", "rule", "status"),
    [
        (TENANT, "s-1", RESEARCH, 200),
        (TENANT, "s-2", RESEARCH, 403),
        (TENANT, None, RESEARCH, 403),
        (TENANT, "s-2", BATCH, 200),  # `user: false`: a claim names the user as with a key
        (ISSUER, "s-2", RESEARCH, 200),
    ],
)
def test_claim_next_to_a_token_has_the_same_subject(
    gateway: TokenGateway, issuer: str, subject: str | None, rule: dict[str, Any], status: int
) -> None:
    gateway.reload(CONFIG.merge({"location": {"signals": ["claim"], "claim": {"issuer": issuer, **CLAIM}}}))
    sent = claim("k1", iss=issuer, aud="claims", exp=time.time() + 60, sub=subject)
    answer = gateway.ask(signed(**rule), headers={"x-gateway-claim": sent})
    assert answer.status_code == status, answer.text
    if status == 200:
        explained = gateway.get("/v1/explain", signed(**rule), {"x-gateway-claim": sent}).json()
        assert explained["user"]["signal"] == ("token" if rule is RESEARCH else "claim")
        assert explained["location"]["why"] == "claim"


def test_memory_of_a_connection_ends_with_the_token(gateway: TokenGateway) -> None:
    token = signed(**RESEARCH)
    caller, config = caller_of(gateway, token), gateway.gateway.config
    head = SameHead()
    remember_caller(head, KnownCaller(config, visit_with("x"), caller))
    assert gateway.run(known(head, gateway)) is not None
    gateway.ahead_s = 601
    assert gateway.run(known(head, gateway)) is None
    assert known_caller(head, config) is None, "a process without tokens knows no token"


async def known(head: SameHead, gateway: TokenGateway) -> KnownCaller | None:
    return known_caller(head, gateway.gateway.config, gateway.tokens)


def test_request_that_began_before_the_end_of_its_token_goes_on_after_a_reload(gateway: TokenGateway) -> None:
    from gateway.api.chat import HttpExchange
    from gateway.api.dialects.openai_chat import OPENAI_CHAT
    from gateway.model.record import Record

    token = signed(**RESEARCH)
    endpoint = gateway.gateway._chat
    scope = {"headers": [(b"authorization", f"Bearer {token}".encode())], "client": ("10.0.0.1", 1)}
    record = Record("", time.monotonic(), "")
    exchange = HttpExchange(endpoint, scope, None, None, record, OPENAI_CHAT)  # type: ignore[arg-type]  # not used
    exchange._headers = headers_of(scope)
    gateway.ahead_s = 601
    caller = gateway.run(exchange.read_caller(gateway.gateway.config))
    assert caller.client.name == "research"
    assert gateway.ask(token).status_code == 401, "a new request is refused"


def test_marked_token_is_shown_nowhere(gateway: TokenGateway, capsys: pytest.CaptureFixture[str]) -> None:
    exporter = "{endpoint: 'https://traces.example/v1/traces', stores: any, processes: any, regions: [default]}"
    gateway.reload(CONFIG.merge(f"exporters: {{traces: {exporter}}}"))
    marked = {"oid": "MARK-user", "groups": ["g-lab", "MARK-group"], "sub": "MARK-subject", "other": "MARK-member"}
    tokens = [signed(**{**RESEARCH, **marked}), signed(**{**marked, "groups": ["MARK-group"]})]
    tokens += [signed(**{**RESEARCH, **marked, "exp": 10, "iat": 5}), signed("k2", **marked)]
    answers = [gateway.ask(token, stream=stream) for token in tokens for stream in (False, True)]
    answers += [gateway.get(path, token) for token in tokens for path in ("/v1/explain", "/v1/models")]
    gateway.run(gateway.gateway._telemetry.aclose())
    traces = b"".join(gateway.traces).decode("latin-1")
    assert traces.count("gateway.client") == 2, "one for each answer"
    shown = capsys.readouterr()
    metrics = gateway.gateway.metrics
    state = repr(gateway.gateway.recent_requests()) + repr(metrics._counts)
    # A crash dump has the values of frames.
    frames = repr(vars(gateway.tokens)) + repr([caller_of(gateway, tokens[0])])
    places = [traces, shown.out, shown.err, state, frames, repr(gateway.sent)]
    places += [f"{it.headers} {it.text}" for it in answers]
    assert {answer.status_code for answer in answers} == {200, 401, 403}
    for place in places:
        assert "MARK" not in place
        assert not any(part in place for token in tokens for part in token.split(".")[1:])
    assert "'client_tokens'" not in state
    assert metrics._counts["gateway_token_requests_total", ("research", "entra")] == 2


MEMBERS = st.dictionaries(
    st.sampled_from(["a", "b", "groups"]),
    st.one_of(
        st.booleans(), st.integers(0, 1), st.sampled_from(["x", "y"]), st.lists(st.sampled_from(["x", "y", True]))
    ),
)


@given(members=MEMBERS, values=st.sets(st.sampled_from(["x", "y", True, False]), min_size=1), left_out=st.booleans())
def test_rule_holds_exactly_for_equal_values(members: dict[str, Any], values: set[Any], left_out: bool) -> None:
    rules = [TokenRule("one", (("a", tuple(values)), ("groups", ("x",)))), TokenRule("two", (("b", ("y",)),))]
    if left_out:
        with pytest.raises(TokenGivesNothing, match="groups"):
            first_rule("entra", rules, {**members, "_claim_names": {"groups": "src1"}})
        return

    def has(name: str, accepted: Any) -> bool:
        found = members.get(name)
        listed = found if isinstance(found, list) else [found]
        return any((type(one), one) in {(type(it), it) for it in accepted} for one in listed)

    expected = 0 if has("a", values) and has("groups", ["x"]) else 1 if has("b", ["y"]) else None
    assert first_rule("entra", rules, members) == expected


def test_reading_a_caller_needs_a_verified_token(gateway: TokenGateway) -> None:
    from gateway.api.caller.authentication import TokenUnverified

    with pytest.raises(TokenUnverified):
        read_caller(gateway.gateway.config, visit(("x-api-key", signed()), peer="10.0.0.1"))


def test_duties_and_an_export_find_the_user_by_the_issuer_whichever_client_asks(gateway: TokenGateway) -> None:
    rules = [{"client": name, "where": {"groups": name}} for name in ("research", "batch", "app")]
    gateway.reload(CONFIG.merge({"token_issuers": {"entra": {"clients": rules}}}))
    config, key = gateway.gateway.config, b"k" * 32
    times = TimeOfUse(LocalTimes(MemoryStore()), key)

    def counted(token: str, **headers: str) -> str | None:
        caller = caller_of(gateway, token, **headers)
        user = user_of(caller, None)
        found = None if user is None else times._key_of(config, locate(config, caller).location, caller, None, user)
        return None if found is None else f"{found.pseudonym} {found.client}"

    anna = counted(signed(groups="research"))
    assert anna is not None
    assert anna == counted(signed(groups="batch"), x_gateway_user="ben")
    assert anna != counted(signed(groups="research", oid="u-2"))
    names = [people_named(config, "u-1", issuer) for issuer in ("entra", TENANT, "other")]
    found = [end_user_pseudonym(config, key, *of) for it in names for of in it.values()]
    assert [f"{it} " == anna for it in found] == [True, True, False]
