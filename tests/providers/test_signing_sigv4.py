"""AWS signatures: AWS's own test vectors, botocore's own signer, and secrets in every form."""

import datetime
import json
import sys
from dataclasses import replace
from typing import Any

import botocore.auth  # type: ignore[import-untyped]
import pytest
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from providers.auth import AwsSigV4, Secret, apply, secret_problem
from providers.failures import FailureKind, ProviderFailed
from providers.wire import WireRequest
from tests.kit.case_files import cases

ID, KEY, SESSION = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEXAMPLE=="
NOW = datetime.datetime(2026, 11, 20, 6, 30, 5, tzinfo=datetime.UTC).timestamp()
ORIGIN = "https://bedrock-runtime.eu-central-1.amazonaws.com"
WIRE = WireRequest(
    "POST",
    "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
    (("content-type", "application/json"), ("accept", "application/json")),
    b'{"messages":[]}',
)


def signed(secret: str, wire: WireRequest = WIRE, origin: str = ORIGIN, service: str = "bedrock") -> dict[str, str]:
    return dict(apply(AwsSigV4(service), wire, origin, Secret(secret), NOW).headers)


@cases("method", "query", "signature")
def test_awss_own_vectors(method: str, query: tuple[tuple[str, str], ...], signature: str) -> None:
    """get-vanilla, post-vanilla and get-vanilla-query-order-key-case of the AWS Signature Version 4 test suite."""
    secret = json.dumps({"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
    then = datetime.datetime(2015, 8, 30, 12, 36, tzinfo=datetime.UTC).timestamp()
    wire = WireRequest(method, "/", (), b"", query)
    wire = apply(AwsSigV4("service"), wire, "https://example.amazonaws.com", Secret(secret), then)
    assert dict(wire.headers) == {
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}",
    }


@pytest.mark.parametrize("session", [None, SESSION])
def test_a_request_is_signed_as_botocore_signs_it(session: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    theirs: Any = AWSRequest(method="POST", url=ORIGIN + WIRE.path, data=WIRE.body, headers=dict(WIRE.headers))
    botocore.auth.SigV4Auth(Credentials(ID, KEY, session), "bedrock", "eu-central-1").add_auth(theirs)
    ours = signed(":".join(filter(None, (ID, KEY, session))))
    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours["x-amz-date"] == theirs.headers["X-Amz-Date"]
    assert ours.get("x-amz-security-token") == session


def test_signature_covers_time_and_body_only() -> None:
    one = apply(AwsSigV4("bedrock"), WIRE, ORIGIN, Secret(f"{ID}:{KEY}"), NOW)
    assert apply(AwsSigV4("bedrock"), WIRE, ORIGIN, Secret(f"{ID}:{KEY}"), NOW) == one
    later = apply(AwsSigV4("bedrock"), WIRE, ORIGIN, Secret(f"{ID}:{KEY}"), NOW + 1)
    other = apply(
        AwsSigV4("bedrock"), WireRequest("POST", WIRE.path, WIRE.headers, b"{}"), ORIGIN, Secret(f"{ID}:{KEY}"), NOW
    )
    assert len({dict(wire.headers)["authorization"] for wire in (one, later, other)}) == 3
    assert (one.path, one.body, one.headers[:2]) == (WIRE.path, WIRE.body, WIRE.headers)
    beside = replace(WIRE, headers=(*WIRE.headers, ("traceparent", "00-1")))
    assert signed(f"{ID}:{KEY}", beside)["authorization"] == dict(one.headers)["authorization"]


@pytest.mark.parametrize(
    ("origin", "region"),
    [
        (ORIGIN, "eu-central-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-1a2b.bedrock-runtime.ap-northeast-1.vpce.amazonaws.com", "ap-northeast-1"),
        ("http://127.0.0.1:8000", "us-east-1"),
    ],
)
def test_the_region_is_the_hosts(origin: str, region: str) -> None:
    assert f"/20261120/{region}/bedrock/aws4_request" in signed(f"{ID}:{KEY}", origin=origin)["authorization"]


def test_a_secret_in_every_form() -> None:
    plain = signed(f"{ID}:{KEY}:{SESSION}")
    flat = {"AccessKeyId": ID, "SecretAccessKey": KEY, "SessionToken": SESSION}
    assert signed(json.dumps(flat)) == signed(json.dumps({"Credentials": flat})) == plain
    for token in ("bedrock-api-key-YmVkcm9jaw==", "ABSKQmVkcm9jaw=="):
        assert signed(token)["authorization"] == f"Bearer {token}"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (":KEY", "is not `ACCESS_KEY_ID:SECRET_ACCESS_KEY`"),
        (f"{ID}:{KEY} with words", "is not `ACCESS_KEY_ID:SECRET_ACCESS_KEY`"),
        ("{", "is not the JSON of a key pair"),
        ('{"AccessKeyId": "x"}', "is not a key pair"),
        ('{"AccessKeyId": "", "SecretAccessKey": "x"}', "is not a key pair"),
    ],
)
def test_unusable_secret_is_explained_without_quoting_it(secret: str, why: str) -> None:
    problem = secret_problem(AwsSigV4("bedrock"), Secret(secret))
    assert problem is not None
    assert why in problem
    assert KEY not in problem
    with pytest.raises(ProviderFailed) as caught:
        signed(secret)
    assert caught.value.failure.kind is FailureKind.CREDENTIALS


def test_missing_extra_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    problem = secret_problem(AwsSigV4("bedrock"), Secret(f"{ID}:{KEY}"))
    assert problem == "needs botocore; pip install botocore"
    assert secret_problem(AwsSigV4("bedrock"), Secret("an-api-key")) is None
