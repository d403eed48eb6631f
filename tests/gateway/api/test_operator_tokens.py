"""The admin listener with tokens of `token_issuers`: roles, refusals, what they are next to, and the audit name."""

import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from gateway.api.admin import build_admin
from gateway.api.admin_guard import Guard
from gateway.api.caller.authentication import MOST_FAILED_KEYS
from gateway.compact_jws import read_jws
from gateway.identity.operator_tokens import OperatorTokens
from gateway.model.status import audited
from gateway.model.stored_client import AdminToken, Role
from tests.gateway.admin_calls import AdminCallbacks
from tests.kit.case_files import cases
from tests.kit.claim_tokens import jwks, public, unsigned
from tests.kit.configs import Config, table_of
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.token_gateway import CONFIG, TENANT, signed

ROLES = [
    {"role": "operator", "where": {"groups": ["g-ops"], "mfa": True}},
    {"role": "admin", "where": {"roles": "Gateway.Admin"}},
    {"role": "viewer", "where": {"groups": ["g-ops", "g-audit"]}},
]
WITH_ROLES = CONFIG.merge({"token_issuers": {"entra": {"roles": ROLES}}})
OPERATOR: dict[str, Any] = {"groups": ["g-ops"], "mfa": True, "roles": ["Gateway.Admin"]}
WAY_IN = "the-token-of-the-settings"


class Listener:
    """The admin listener of a version, with a scripted issuer.

    Attributes:
        keys: The key set that the issuer serves, or the status of its refusal.
    """

    def __init__(self, config: Config = WITH_ROLES) -> None:
        self.keys: bytes | int = jwks(public("k1"))
        self.callbacks = AdminCallbacks()
        self.log: list[str] = []
        self.config = table_of(config, {})
        self.issued = OperatorTokens(lambda: self.config.token_issuers, self._transport(), self.log.append)

    def _transport(self) -> HttpxTransport:
        return HttpxTransport(httpx.MockTransport(self._answer))

    def _answer(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(self.keys) if isinstance(self.keys, int) else httpx.Response(200, content=self.keys)

    async def call(self, method: str, path: str, token: str | None, guard: Guard | None = None) -> httpx.Response:
        """Call the listener with a token."""
        guard = guard or Guard(issued=self.issued)
        transport = httpx.ASGITransport(build_admin(self.callbacks, guard))
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as client:
            return await client.request(method, path, headers=headers)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    one = Listener()
    yield one
    await one.issued.aclose()


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error.get("token")


@pytest.mark.parametrize(
    ("members", "statuses"),
    [
        (OPERATOR, (200, 200, 403)),  # the first rule that holds, not the strongest one
        ({"roles": ["Gateway.Admin"]}, (200, 200, 200)),
        ({"groups": ["g-ops"]}, (200, 403, 403)),
        ({"groups": ["g-audit"], "mfa": True}, (200, 403, 403)),
    ],
)
async def test_first_rule_that_holds_gives_the_role(
    listener: Listener, members: dict[str, Any], statuses: tuple[int, ...]
) -> None:
    token, actions = signed(**members), (("GET", "/metrics"), ("POST", "/reload"), ("POST", "/v1/admin/tokens"))
    answers = [await listener.call(*action, token) for action in actions]
    # An admin gets past the guard: the action then needs a body.
    assert [403 if answer.status_code == 403 else 200 for answer in answers] == list(statuses)
    assert listener.callbacks.reloads == (1 if statuses[1] == 200 else 0)


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/events", "/v1/admin/openapi.json"])
async def test_roles_count_as_a_token_that_exists(listener: Listener, path: str) -> None:
    assert refused(await listener.call("GET", path, None)) == (401, "invalid_api_key", None)
    without = Listener(CONFIG)
    if path != "/events":
        assert (await without.call("GET", path, None)).status_code == 200, "without roles, this machine may call"
    answer = await without.call("GET", path, signed(**OPERATOR), Guard(((WAY_IN, Role.ADMIN),)))
    assert refused(answer) == (401, "invalid_api_key", None)


@cases("changes", "expected")
async def test_token_that_gives_nothing_is_refused(
    listener: Listener, changes: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    token = signed(**{"groups": ["g-audit"], **changes})
    answer = await listener.call("GET", "/readyz", token)
    assert refused(answer) == expected
    assert token.split(".")[1] not in answer.text
    if expected[0] == 401:
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_forged_tokens_are_refused_counted_and_logged_without_a_part_of_them(listener: Listener) -> None:
    good = signed(**OPERATOR)
    head, body, signature = good.split(".")
    now = int(time.time())
    members = {"iss": TENANT, "aud": "api://gateway", "oid": "u", "iat": now, "exp": now + 60, **OPERATOR}
    forged = [f"{head}.{body}.{signature[:-8]}AAAAAAAA", unsigned({"alg": "none"}, members), signed("k2", **OPERATOR)]
    with structlog.testing.capture_logs() as log:
        for token in forged:
            assert (await listener.call("GET", "/readyz", token)).status_code == 401
        guard = Guard(issued=listener.issued)
        statuses = [
            (await listener.call("GET", "/readyz", forged[0], guard)).status_code for _ in range(MOST_FAILED_KEYS + 1)
        ]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert (await listener.call("GET", "/readyz", good, guard)).status_code == 200, "a valid token still works"
        expired = signed(exp=10, iat=5)
        for _ in range(MOST_FAILED_KEYS + 1):
            assert (await listener.call("GET", "/readyz", expired, fresh := Guard(issued=listener.issued))).status_code
        assert (await listener.call("GET", "/readyz", expired, fresh)).status_code == 401
    assert {line["event"] for line in log} == {"admin_refused"}
    assert not [part for part in (body, signature) if part in str(log)]


async def test_token_of_the_settings_is_the_way_in_while_the_issuer_is_down(listener: Listener) -> None:
    listener.keys = 503
    guard = Guard(((WAY_IN, Role.ADMIN),), issued=listener.issued)
    assert refused(await listener.call("GET", "/readyz", signed(**OPERATOR), guard))[:2] == (503, "keys_unavailable")
    assert (await listener.call("POST", "/reload", WAY_IN, guard)).status_code == 200


async def test_a_revoked_rule_ends_the_role_and_a_closed_listener_takes_tokens(listener: Listener) -> None:
    stored = {"0" * 64: AdminToken("id", Role.VIEWER, "", 1.0)}
    closed = Guard(is_closed=lambda: True, issued=listener.issued)
    for guard in (closed, Guard(tokens=lambda: stored, issued=listener.issued)):
        assert (await listener.call("GET", "/readyz", signed(**OPERATOR), guard)).status_code == 200
    listener.config = table_of(WITH_ROLES.merge({"token_issuers": {"entra": {"roles": ROLES[1:2]}}}), {})
    assert refused(await listener.call("GET", "/readyz", signed(groups=["g-audit"]), closed))[0] == 403
    listener.config = table_of(WITH_ROLES.merge({"token_issuers": {"entra": {"denied": {"oid": ["u-1"]}}}}), {})
    assert refused(await listener.call("GET", "/readyz", signed(**OPERATOR), closed))[2] == "denied"


async def test_token_that_ends_before_it_was_issued_is_refused(listener: Listener) -> None:
    now = time.time()
    answer = await listener.call("GET", "/readyz", signed(iat=now + 20, exp=now + 10, **OPERATOR))
    assert refused(answer) == (401, "invalid_api_key", "not_yet_valid")


async def test_blocked_token_is_refused(listener: Listener) -> None:
    token = signed(**OPERATOR)
    blocked: dict[str, object] = {}
    listener.issued._blocked = lambda: blocked
    assert (await listener.call("GET", "/readyz", token)).status_code == 200
    blocked[read_jws(token, 16_384).digests()[-1]] = 1.0
    assert refused(await listener.call("GET", "/readyz", token)) == (401, "invalid_api_key", "denied")


async def test_audit_name_is_the_user_of_the_token(listener: Listener) -> None:
    """A name that the sender gives itself does not replace it."""
    guard = Guard(issued=listener.issued)
    for user, shown in (("anna@example.com", "anna@example.com"), ("a\nb", "'a\\nb'")):
        scope = {"headers": [(b"authorization", f"Bearer {signed(oid=user, **OPERATOR)}".encode())]}
        identity = await guard.check(scope, Role.OPERATOR)
        assert (identity.role, identity.who, identity.token_id) == (Role.OPERATOR, shown, "")
        assert identity.how == "issuer:entra"


async def test_user_named_as_the_token_of_the_settings_has_another_way_in_in_the_audit_trail(
    listener: Listener,
) -> None:
    stored = "a-stored-token"
    tokens = {hashlib.sha256(stored.encode()).hexdigest(): AdminToken("id1", Role.ADMIN, "", 1.0)}
    guard = Guard(((WAY_IN, Role.ADMIN),), tokens=lambda: tokens, issued=listener.issued)
    found = []
    for token in (WAY_IN, stored, signed(oid="GATEWAY_ADMIN_TOKEN", **OPERATOR)):
        callbacks = listener.callbacks = AdminCallbacks()
        asked: list[str] = []
        callbacks.reload = lambda who, asked=asked: asked.append(who) or AdminCallbacks().reload(who)  # type: ignore[method-assign, misc]
        await listener.call("POST", "/reload", token, guard)
        found.append(audited(asked[0]))
    assert found == [
        {"who": "", "how": "built-in"},
        {"who": "(token id1)", "how": "token"},
        {"who": "GATEWAY_ADMIN_TOKEN", "how": "issuer:entra"},
    ]
    assert audited("ines") == {"who": "ines"}
