"""The user of a request: a claim's subject, else the backend's header, else none."""

from dataclasses import replace

import pytest

from gateway.model.config_version import Client
from gateway.model.location import ClaimReport
from gateway.policy.caller import explain_user, user_of
from tests.gateway.api.caller.visits import visit
from tests.gateway.location_reports import caller_of
from tests.kit.configs import BASE, table_of

TABLE = table_of(BASE)
APP = next(client for client in TABLE.clients.values() if client.name == "app")
BACKEND = replace(APP, name="backend", may_assert=frozenset({"user"}))


@pytest.mark.parametrize(
    ("subject", "client", "user"),
    [
        ("anna", BACKEND, "anna"),
        ("anna", None, "anna"),
        # An empty subject does not replace the header.
        ("", BACKEND, "bert"),
        (None, BACKEND, "bert"),
        (None, APP, None),
        ("", APP, None),
        (None, None, None),
    ],
)
def test_answer_and_explanation_use_the_same_user(subject: str | None, client: Client | None, user: str | None) -> None:
    claim = ClaimReport("DE", subject=subject)
    caller = caller_of(TABLE, client, visit(("x-gateway-user", "bert")))
    assert user_of(caller, claim) == user
    assert explain_user(caller, claim)[0] == user
