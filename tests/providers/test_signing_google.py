"""Tokens for Google: signed with a service account's key as by google-auth, or passed on unchanged."""

import datetime
import json
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from google.auth import _helpers, jwt
from google.oauth2 import service_account

from providers.auth import GoogleAccount, Secret, apply, secret_problem
from providers.failures import FailureKind, ProviderFailed
from providers.signing.google import google_bearer
from providers.wire import WireRequest
from tests.kit.google_account import ACCOUNT, KEY

NOW = 1_795_000_123.7
WIRE = WireRequest("POST", "/v1/x", (), b"{}")


def sent(secret: str, now: float = NOW) -> str:
    wire = apply(GoogleAccount(), WIRE, "https://aiplatform.googleapis.com", Secret(secret), now)
    return dict(wire.headers)["authorization"]


def test_a_token_is_signed_as_google_auth_signs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token equals that of Google's own library without a token issuer."""
    issued_at = datetime.datetime.fromtimestamp(NOW // 1800 * 1800, datetime.UTC).replace(tzinfo=None)
    monkeypatch.setattr(_helpers, "utcnow", lambda: issued_at)
    theirs = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        ACCOUNT, scopes=["https://www.googleapis.com/auth/cloud-platform"], always_use_jwt_access=True
    )
    theirs._create_self_signed_jwt(None)
    theirs._jwt_credentials.refresh(None)
    assert sent(json.dumps(ACCOUNT)) == f"Bearer {theirs._jwt_credentials.token.decode()}"


def test_google_token_is_verifiable_and_valid_for_30_to_60_minutes() -> None:
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    tokens = {sent(json.dumps(ACCOUNT), NOW + second) for second in range(0, 7200, 60)}
    assert len(tokens) in (4, 5)
    for second in (0, 1, 1799, 1800, 3599):
        now = NOW + second
        token = google_bearer(json.dumps(ACCOUNT), now)
        claims = jwt.decode(token, verify=False)  # type: ignore[no-untyped-call]
        assert claims["iat"] <= now
        assert 1800 <= claims["exp"] - now <= 3600
        header, payload, signature = token.encode().split(b".")
        from google.auth import crypt

        verifier = crypt.RSAVerifier.from_string(public)  # type: ignore[no-untyped-call]
        padded = signature + b"=" * (-len(signature) % 4)
        import base64

        assert verifier.verify(header + b"." + payload, base64.urlsafe_b64decode(padded))


def test_access_token_is_sent_unchanged() -> None:
    assert sent("ya29.made-up") == "Bearer ya29.made-up"
    assert secret_problem(GoogleAccount(), Secret("ya29.made-up")) is None


@pytest.mark.parametrize("key", ["AQ.Ab8RN6made-up", "AIzaSyMadeUp-0123456789_0123456789012345"])
def test_api_key_is_not_sent_as_bearer(key: str) -> None:
    wire = apply(GoogleAccount(), WIRE, "https://aiplatform.googleapis.com", Secret(key), 0)
    assert wire.headers == (*WIRE.headers, ("x-goog-api-key", key))
    assert secret_problem(GoogleAccount(), Secret(key)) is None


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("{", "is not the JSON of a service account's key"),
        ("{}", "is not a service account's key: it lacks type, client_email, private_key"),
        (json.dumps({**ACCOUNT, "type": "authorized_user"}), "is a key of another type"),
        (
            json.dumps({"type": "external_account", "audience": "//iam"}),
            "is a configuration of workload identity federation",
        ),
        (
            json.dumps({**ACCOUNT, "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"}),
            "can't be read",
        ),
        (json.dumps({**ACCOUNT, "private_key": "not a key"}), "can't be read"),
    ],
    ids=["broken", "empty", "user", "federation", "no key", "no PEM"],
)
def test_unusable_key_is_explained_without_quoting_it(secret: str, why: str) -> None:
    problem = secret_problem(GoogleAccount(), Secret(secret))
    assert problem is not None
    assert why in problem
    with pytest.raises(ProviderFailed) as caught:
        sent(secret)
    failure = caught.value.failure
    assert failure.kind is FailureKind.CREDENTIALS
    assert "gserviceaccount" not in failure.message + failure.detail
    assert "PRIVATE" not in failure.message + failure.detail


def test_missing_extra_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    problem = secret_problem(GoogleAccount(), Secret(json.dumps({**ACCOUNT, "private_key_id": "another"})))
    assert problem == "needs google-auth; pip install google-auth"
