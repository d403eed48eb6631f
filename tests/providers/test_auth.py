"""Each scheme adds the credential in its form, and nothing else ever shows it."""

import copy
import json
import logging
import traceback
from collections.abc import Callable
from typing import Any, get_args

import pytest

from providers.auth import AuthScheme, AwsSigV4, Bearer, GoogleAccount, HeaderKey, NoAuth, Secret, apply
from providers.wire import WireRequest

KEY = "sk-very-secret"
WIRE = WireRequest("POST", "/v1/chat", (("content-type", "application/json"),), b"{}", (("alt", "sse"),))
SCHEMES: list[tuple[AuthScheme, tuple[str, str]]] = [
    (Bearer(), ("authorization", f"Bearer {KEY}")),
    (HeaderKey("x-goog-api-key"), ("x-goog-api-key", KEY)),
    (HeaderKey("api-key", or_token=True), ("api-key", KEY)),
    (NoAuth(), ("authorization", f"Bearer {KEY}")),
    (GoogleAccount(), ("authorization", f"Bearer {KEY}")),
    (AwsSigV4("bedrock"), ("authorization", f"Bearer {KEY}")),
]


def test_every_scheme_is_tested() -> None:
    assert {type(scheme) for scheme, _ in SCHEMES} == set(get_args(AuthScheme))


@pytest.mark.parametrize(("scheme", "header"), SCHEMES)
def test_scheme_adds_the_key_and_changes_nothing_else(scheme: AuthScheme, header: tuple[str, str]) -> None:
    signed = apply(scheme, WIRE, "https://example.com", Secret(KEY), 5.0)
    assert signed == WireRequest(WIRE.method, WIRE.path, (*WIRE.headers, header), WIRE.body, WIRE.query)
    assert WIRE.headers == (("content-type", "application/json"),)
    assert apply(scheme, WIRE, "https://example.com", Secret(KEY), 6.0) == signed


def test_token_in_place_of_a_key_is_sent_as_bearer_if_the_provider_accepts_it() -> None:
    token = Secret("eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwczovL2NvZ25pdGl2ZXNlcnZpY2VzIn0.c2ln-bmF_0dXJl")
    signed = apply(HeaderKey("api-key", or_token=True), WIRE, "https://example.com", token, 5.0)
    assert signed.headers[1:] == (("authorization", f"Bearer {token.reveal()}"),)
    for scheme, secret in (
        (HeaderKey("api-key"), token),
        (HeaderKey("api-key", or_token=True), Secret("eyJ0eXAi.b2Rk")),
        (HeaderKey("api-key", or_token=True), Secret(f"x{token.reveal()}")),
    ):
        assert apply(scheme, WIRE, "https://example.com", secret, 5.0).headers[1:] == (("api-key", secret.reveal()),)


@pytest.mark.parametrize(("scheme", "_header"), SCHEMES)
def test_request_without_a_key_is_unchanged(scheme: AuthScheme, _header: object) -> None:
    assert apply(scheme, WIRE, "https://example.com", None, 5.0) is WIRE


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>30}",
        lambda secret: f"{secret!s}",
        lambda secret: f"{[secret]} { ({'key': secret}) }",
        "{}".format,
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: str(ValueError(secret)),
        lambda secret: repr(KeyError("no", secret)),
        lambda secret: f"{dir(secret)}",
        lambda secret: logging.LogRecord("n", 10, "p", 1, "key %s", (secret,), None).getMessage(),
        lambda secret: json.dumps({"key": secret}, default=repr),
        lambda secret: repr(copy.deepcopy(secret)),
        lambda secret: repr(Bearer()) + repr(apply(Bearer(), WIRE, "https://example.com", secret, 5.0)),
    ],
)
def test_secret_is_not_shown_in_its_representation(show: Callable[[Secret], str]) -> None:
    assert KEY not in show(Secret(KEY))


@pytest.mark.parametrize(
    "misuse",
    [
        lambda secret: "".join(["a", secret]),
        lambda secret: "a" + secret,
        lambda secret: format(secret, ">30"),
        lambda secret: int(secret),
        lambda secret: secret.value,
        lambda secret: json.dumps(secret),
        lambda secret: secret < Secret("a"),
        lambda secret: setattr(secret, "other", 1),
    ],
)
def test_misused_secret_is_not_shown_in_the_error(misuse: Callable[[Any], object]) -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        misuse(Secret(KEY))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_request_shows_neither_its_headers_nor_its_body() -> None:
    shown = repr(WireRequest("POST", "/v1/chat", (("authorization", KEY),), b"my diagnosis"))
    assert shown == "WireRequest(method='POST', path='/v1/chat', query=())"


def test_secrets_are_equal_by_their_text_only() -> None:
    assert Secret(KEY).reveal() == KEY
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY), Secret("other")}) == 2
