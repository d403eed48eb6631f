"""Tencent Cloud's signature, version 3 (TC3-HMAC-SHA256).

Source: Tencent Cloud API 3.0, "Signature v3", and tencentcloud-sdk-python-common 3.1.180, read 2026-11-20.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

__all__ = ["authorization"]

_ALGORITHM = "TC3-HMAC-SHA256"
_SIGNED = "content-type;host"


def authorization(
    *, service: str, host: str, content_type: str, body: bytes, secret_id: str, secret_key: str, now: float
) -> tuple[str, str]:
    """The values of `x-tc-timestamp` and `authorization`. `content_type` must equal the header byte for byte.

    Method, path and query are fixed: POST, `/` and none. The date is UTC's, whatever zone the machine is in.
    """
    timestamp = str(int(now))
    date = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    canonical = "\n".join(
        ("POST", "/", "", f"content-type:{content_type}", f"host:{host}", "", _SIGNED, hashlib.sha256(body).hexdigest())
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, "\n".join((_ALGORITHM, timestamp, scope, digest)).encode(), "sha256").hex()
    return timestamp, f"{_ALGORITHM} Credential={secret_id}/{scope}, SignedHeaders={_SIGNED}, Signature={signature}"
