"""Sign requests to AWS with Signature Version 4. botocore signs; the time is an argument.

A secret is `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, optionally with `:SESSION_TOKEN`, or the JSON that `aws sts` prints, or a
Bedrock API key, which is sent as a bearer token. botocore (the extra `aws`) gets no socket.
Source: botocore 1.44.5 (auth.py), AWS General Reference on Signature Version 4, read 2026-11-20.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

from providers.json_values import JsonError, as_map, loads_text, read_map, read_str
from providers.signing import KeyProblem
from providers.wire import WireRequest

_REGION = re.compile(r"(?:^|\.)bedrock(?:-runtime(?:-fips)?)?\.(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d)\.")
_ANY_REGION = "us-east-1"
_PLAIN = re.compile(r"(?P<id>[!-9;-~]+):(?P<secret>[!-9;-~]+)(?::(?P<session>[!-~]+))?")
_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED = frozenset({"content-type", "accept"})


@dataclass(frozen=True, slots=True)
class _Keys:
    """An AWS key pair, with its session token if there is one."""

    id: str
    secret: str = field(repr=False)
    session: str | None = field(default=None, repr=False)


def aws_headers(
    service: str, wire: WireRequest, origin: str, secret: str, now: float, region: str = ""
) -> tuple[tuple[str, str], ...]:
    """Return the headers that authenticate a request. The same input gives the same signature. Raises KeyProblem.

    Without a `region`, the region is read from the name of the origin.
    """
    keys = _keys(secret)
    if keys is None:
        return (("authorization", f"Bearer {secret}"),)
    try:
        from botocore.auth import SigV4Auth  # type: ignore[import-untyped]  # botocore has no types
        from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
        from botocore.credentials import Credentials  # type: ignore[import-untyped]
    except ImportError as error:
        raise KeyProblem("needs botocore; pip install botocore") from error
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = [("x-amz-date", stamp)]
    if keys.session:
        added.append(("x-amz-security-token", keys.session))
    url = f"{origin}{wire.path}" + (f"?{urlencode(wire.query)}" if wire.query else "")
    covered = [(name, value) for name, value in wire.headers if name in _SIGNED]
    request = AWSRequest(method=wire.method, url=url, data=wire.body, headers=dict([*covered, *added]))
    # As botocore's `add_auth`, but that reads the clock.
    request.context["timestamp"] = stamp
    signer = SigV4Auth(Credentials(keys.id, keys.secret, keys.session), service, region or _region(origin))
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    authorization = f"{_ALGORITHM} Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    return (*added, ("authorization", authorization))


def aws_key_problem(secret: str) -> str | None:
    """Return why this secret can never work, or None if it may work."""
    try:
        aws_headers("any", WireRequest("POST", "/", (), b""), "https://localhost", secret, 0)
    except KeyProblem as error:
        return str(error)
    return None


def _region(origin: str) -> str:
    """Return the region in a host name, or a default for a host without one, such as a local server."""
    match = _REGION.search(urlsplit(origin).hostname or "")
    return match["region"] if match else _ANY_REGION


def _keys(secret: str) -> _Keys | None:
    """Return the key pair in a secret, or None for a bearer token."""
    if secret.lstrip().startswith("{"):
        try:
            document = as_map(loads_text(secret))
        except JsonError:
            raise KeyProblem("is not the JSON of a key pair") from None
        credentials = read_map(document, "Credentials") or document
        key_id, key = read_str(credentials, "AccessKeyId"), read_str(credentials, "SecretAccessKey")
        if not key_id or not key:
            raise KeyProblem("is not a key pair: it lacks AccessKeyId or SecretAccessKey")
        return _Keys(key_id, key, read_str(credentials, "SessionToken"))
    if ":" not in secret:
        return None
    match = _PLAIN.fullmatch(secret)
    if match is None:
        raise KeyProblem("is not `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with an optional `:SESSION_TOKEN`")
    return _Keys(match["id"], match["secret"], match["session"])
