"""Tencent Cloud's signature: values that its own client makes for the same request, key and second."""

from __future__ import annotations

import pytest

from providers.auth import Secret, TencentSignature, apply
from providers.failures import FailureKind, ProviderFailed
from providers.wire import WireRequest

HOST = "hunyuan.ap-guangzhou.tencentcloudapi.com"
# tencentcloud-sdk-python-common 3.1.195 writes the body in this form; tests/sdks compares both.
BODY = b'{"Model": "hunyuan-lite", "Messages": [{"Role": "user", "Content": "\\u4f60\\u597d"}]}'
WIRE = WireRequest("POST", "/", (("content-type", "application/json"),), BODY)
LAST_SECOND_OF_A_DAY = 1795132799.9


def signed(
    secret: str = "AKIDEXAMPLE:example-secret-key:example-token", now: float = LAST_SECOND_OF_A_DAY
) -> dict[str, str]:
    return dict(apply(TencentSignature("hunyuan"), WIRE, f"https://{HOST}", Secret(secret), now).headers)


def test_the_signature_is_the_official_client_s() -> None:
    assert signed() == {
        "content-type": "application/json",
        "x-tc-timestamp": "1795132799",
        "authorization": "TC3-HMAC-SHA256 Credential=AKIDEXAMPLE/2026-11-19/hunyuan/tc3_request, "
        "SignedHeaders=content-type;host, "
        "Signature=f8e7777e3903a3a2990eec51b63686f68eb067d4c34ad9f0f5e1805f139c8df3",
        "x-tc-token": "example-token",
    }


def test_signature_uses_the_utc_date_and_omits_a_missing_token() -> None:
    next_day = signed("AKIDEXAMPLE:example-secret-key", LAST_SECOND_OF_A_DAY + 1)
    assert "/2026-11-20/hunyuan/tc3_request" in next_day["authorization"]
    assert "x-tc-token" not in next_day


def test_signature_covers_host_headers_and_body() -> None:
    scheme, secret = TencentSignature("hunyuan"), Secret("a:b")
    wires = [
        (WIRE, HOST),
        (WIRE, "hunyuan.tencentcloudapi.com"),
        (WireRequest("POST", "/", WIRE.headers, BODY + b" "), HOST),
        (WireRequest("POST", "/", (("content-type", "application/json; charset=utf-8"),), BODY), HOST),
    ]
    made = {dict(apply(scheme, wire, f"https://{host}", secret, 0).headers)["authorization"] for wire, host in wires}
    assert len(made) == len(wires)


@pytest.mark.parametrize("secret", ["", "AKID", ":key", "AKID:", "AKID::token"])
def test_a_secret_in_another_form_is_a_refused_credential_that_is_never_shown(secret: str) -> None:
    with pytest.raises(ProviderFailed) as raised:
        signed(secret)
    failure = raised.value.failure
    assert failure.kind is FailureKind.CREDENTIALS
    assert "SECRET_ID:SECRET_KEY" in failure.detail
    assert "AKID" not in repr(failure)
