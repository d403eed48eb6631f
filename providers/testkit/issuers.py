"""Simulated issuers of tokens: Entra ID, AWS, Google and OAuth servers on this machine, with faults on demand.

`python -m providers.testkit.issuers --port 0 [--lifetime S]` prints `{"url": …}` and serves until it is stopped. Each
family has its paths below `/azure`, `/aws`, `/google` and `/oauth`; metadata servers are below them too. An issuer
refuses what its vendor refuses: version 1 of a metadata service, a request without its header, a subject that has
expired. A subject that is not a JWT has no end here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from providers.json_values import JsonError, as_map, loads, read_str
from providers.sign_in.exchange import end_of_jwt
from providers.signing import KeyProblem
from providers.signing.sigv4 import aws_headers
from providers.testkit.server import LoopbackServer
from providers.testkit.simulator import IncomingRequest
from providers.wire import WireRequest

_Fields = Mapping[str, str]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<signed>[^,]+), Signature=[0-9a-f]{64}"
)
_FAULTS = (400, 401, 410, 429, 500, "slow", "redirect", "huge", "echo", "same", None)
_SLOW_S = 60.0
_MOST_CALLS = 10_000
_SKEW_S = 300.0


@dataclass(slots=True)
class _Answer:
    """An answer of an issuer. `token` is what it issues."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = ""


@dataclass(slots=True)
class _Issue:
    """One issued token or pair of keys. `secret` is the secret key of AWS credentials."""

    kind: str
    ends_at_s: float
    secret: str = ""
    session: str = ""
    is_revoked: bool = False


class _Refusal(Exception):
    """A request that the issuer refuses."""

    def __init__(self, status: int, code: str, number: int = 0) -> None:
        super().__init__(code)
        self.status, self.code, self.number = status, code, number


class SimulatedIssuers(LoopbackServer):
    """A server for all simulated issuers. Use it as an asynchronous context manager, or in a `SimulatorThread`.

    `PUT /_faults` with `{"kind": KIND, "fault": FAULT}` sets a fault, `POST /_revoke` revokes what was issued (of one
    kind with `{"kind": KIND}`), and `GET /_calls` returns the list of calls. A kind is that of the configuration, or
    `assume`, `impersonate` or `web_identity_token`, or a family such as `aws`.

    Args:
        lifetime_s: The lifetime of what is issued, in seconds.
        host: The address to listen on.
        port: The port, or 0 for a free one.

    Attributes:
        lifetime_s: The argument of this name. It may be changed at any time.
        ahead_s: How far the clock of the issuers is ahead of this machine's, in seconds.
        calls: The calls as JSON data: `kind`, `method`, `path`, `fields`, `headers`, `status` and `at`.
        faults: The faults by kind.

    Examples:
        `async with SimulatedIssuers() as issuers: ... issuers.url`
    """

    def __init__(self, lifetime_s: float = 3600.0, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(self._serve, host, port)
        self.lifetime_s = lifetime_s
        self.ahead_s = 0.0
        self.calls: list[dict[str, object]] = []
        self.faults: dict[str, int | str] = {}
        self._issued: dict[str, _Issue] = {}
        self._last: dict[str, _Answer] = {}
        self._sessions: set[str] = set()

    @property
    def url(self) -> str:
        """The origin of the started server."""
        return self.origin

    # --- what providers ask -----------------------------------------------------------------------

    def knows(self, incoming: IncomingRequest) -> bool:
        """Return whether the credential of a request was issued here, and is neither revoked nor ended."""
        for name in ("authorization", "proxy-authorization"):
            text = incoming.headers.get(name, "")
            if text.lower().startswith("bearer ") and self._is_valid(text[7:].strip()):
                return True
        return self._is_signed(incoming)

    def revoke(self, kind: str | None = None) -> None:
        """Revoke what was issued until now, of one kind or of all."""
        for issue in self._issued.values():
            if kind is None or issue.kind == kind:
                issue.is_revoked = True
        self._last.clear()

    def _now_s(self) -> float:
        return time.time() + self.ahead_s

    def _is_valid(self, key: str) -> bool:
        issue = self._issued.get(key)
        return issue is not None and not issue.is_revoked and issue.ends_at_s > self._now_s()

    def _is_signed(self, incoming: IncomingRequest) -> bool:
        """Return whether the request has AWS's signature with credentials that were issued here."""
        headers = incoming.headers
        authorization = headers.get("authorization", "")
        match = _SIGNATURE.fullmatch(authorization)
        issue = self._issued.get(match["id"]) if match is not None else None
        if match is None or issue is None or not self._is_valid(match["id"]):
            return False
        if headers.get("x-amz-security-token") != issue.session:
            return False
        try:
            signed_at = datetime.strptime(headers.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            covered = tuple((name, headers[name]) for name in match["signed"].split(";") if name in headers)
            query = tuple(parse_qsl(incoming.query, keep_blank_values=True))
            wire = WireRequest(incoming.method, incoming.path, covered, incoming.body, query)
            key = f"{match['id']}:{issue.secret}:{issue.session}"
            origin = f"http://{headers.get('host', '')}"
            again = aws_headers(match["service"], wire, origin, key, signed_at.timestamp(), match["region"])
        except (ValueError, KeyProblem):
            return False
        return abs(signed_at.timestamp() - self._now_s()) < _SKEW_S and dict(again)["authorization"] == authorization

    # --- the server -------------------------------------------------------------------------------

    async def _serve(self, scope: Mapping[str, Any], receive: _Receive, send: _Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        incoming = IncomingRequest(scope["method"], path.partition("?")[0], query, headers, body)
        answer = self._control(incoming) or await self._issue(incoming)
        if answer.status:
            start = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
            start.append((b"content-length", str(len(answer.body)).encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": start})
            await send({"type": "http.response.body", "body": answer.body})

    def _control(self, incoming: IncomingRequest) -> _Answer | None:
        if not incoming.path.startswith("/_"):
            return None
        asked = as_map(loads(incoming.body)) if incoming.body else {}
        match incoming.method, incoming.path:
            case "GET", "/_calls":
                return _json(200, self.calls)
            case "POST", "/_revoke":
                self.revoke(read_str(asked, "kind"))
                return _json(200, {})
            case "PUT", "/_faults":
                kind, fault = read_str(asked, "kind"), asked.get("fault")
                if not kind or not isinstance(fault, int | str | None) or fault not in _FAULTS:
                    return _json(400, {"error": f"`kind` must be a name, and `fault` one of {_FAULTS}"})
                if fault is None:
                    self.faults.pop(kind, None)
                else:
                    self.faults[kind] = fault
                return _json(200, self.faults)
        return _json(404, {"error": "not found"})

    async def _issue(self, incoming: IncomingRequest) -> _Answer:
        fields = _fields_of(incoming)
        kind = _kind_of(incoming, fields)
        family = incoming.path.split("/")[1]
        fault = self.faults.get(kind, self.faults.get(family))
        answer = await self._with_fault(kind, family, fault, incoming, fields)
        call: dict[str, object] = {
            "kind": kind,
            "method": incoming.method,
            "path": incoming.path,
            "fields": dict(fields),
            "headers": dict(incoming.headers),
            "status": answer.status,
            "at": self._now_s(),
        }
        self.calls.append(call)
        del self.calls[:-_MOST_CALLS]
        answer.headers.setdefault("date", formatdate(self._now_s(), usegmt=True))
        return answer

    async def _with_fault(
        self, kind: str, family: str, fault: int | str | None, incoming: IncomingRequest, fields: _Fields
    ) -> _Answer:
        match fault:
            case int():
                return _refused(
                    family, _Refusal(fault, "temporarily_unavailable" if fault > 401 else "invalid_request")
                )
            case "slow":
                await asyncio.sleep(_SLOW_S)
                return _Answer(0, b"")
            case "redirect":
                return _Answer(302, b"", {"location": "http://127.0.0.1:1/"})
            case "huge":
                return _Answer(200, b"x" * (1024 * 1024), {"content-type": "application/json"})
            case "echo":
                echoed = " ".join([*fields.values(), *incoming.headers.values()])
                body = {"error": "invalid_client", "error_description": echoed, "error_codes": [700024]}
                return _json(401, body)
            case "same" if kind in self._last:
                return self._last[kind]
        try:
            answer = self._answer(kind, incoming, fields)
        except _Refusal as refusal:
            return _refused(family, refusal)
        self._last[kind] = answer
        return answer

    # --- the issuers ------------------------------------------------------------------------------

    def _answer(self, kind: str, incoming: IncomingRequest, fields: _Fields) -> _Answer:
        """Return the answer of an issuer. Raises _Refusal."""
        headers, method = incoming.headers, incoming.method
        match kind:
            case "azure_workload":
                _need(method == "POST", 405, "invalid_request")
                _need(fields.get("grant_type") == "client_credentials", 400, "unsupported_grant_type")
                _need(fields.get("scope", "").endswith("/.default"), 400, "invalid_scope")
                self._check_subject(fields.get("client_assertion", ""), "invalid_client", 700024)
                return self._bearer(kind)
            case "azure_managed":
                is_metadata = "/metadata/" in incoming.path
                _need(
                    headers.get("metadata") == "true" if is_metadata else "x-identity-header" in headers,
                    400,
                    "bad_request",
                )
                _need(bool(fields.get("resource")) and bool(fields.get("api-version")), 400, "invalid_request")
                token, ends_at_s = self._token(kind)
                body = {"access_token": token, "expires_on": str(int(ends_at_s)), "token_type": "Bearer"}
                body |= {"expires_in": str(int(self.lifetime_s))} if is_metadata else {}
                return _json(200, body | {"resource": fields["resource"]})
            case "aws_web_identity":
                _need(bool(fields.get("RoleArn")) and bool(fields.get("RoleSessionName")), 400, "ValidationError")
                self._check_subject(fields.get("WebIdentityToken", ""), "ExpiredTokenException")
                return self._sts("AssumeRoleWithWebIdentity", self._keys(kind))
            case "assume":
                _need(self._is_signed(incoming), 403, "InvalidClientTokenId")
                _need(bool(fields.get("RoleArn")) and bool(fields.get("RoleSessionName")), 400, "ValidationError")
                return self._sts("AssumeRole", self._keys(kind))
            case "web_identity_token":
                _need(self._is_signed(incoming), 403, "InvalidClientTokenId")
                token, ends_at_s = self._token(kind, aud=fields.get("Audience.member.1", ""))
                result = f"<WebIdentityToken>{token}</WebIdentityToken><Expiration>{_moment(ends_at_s)}</Expiration>"
                return _xml("GetWebIdentityToken", result)
            case "aws_container":
                _need(method == "GET", 405, "MethodNotAllowed")
                return _json(200, self._keys(kind))
            case "aws_instance":
                return self._instance(incoming)
            case "google_metadata":
                return self._google_metadata(incoming, fields)
            case "google_federation":
                return self._google_federation(fields)
            case "impersonate":
                _need(self._is_valid(headers.get("authorization", "")[7:]), 401, "UNAUTHENTICATED")
                token, ends_at_s = self._token(kind)
                return _json(200, {"accessToken": token, "expireTime": _moment(ends_at_s)})
            case "oauth":
                _need(method == "POST", 405, "invalid_request")
                _need(fields.get("grant_type") == "client_credentials", 400, "unsupported_grant_type")
                if not headers.get("authorization", "").startswith("Basic "):
                    self._check_subject(fields.get("client_assertion", ""), "invalid_client")
                return self._bearer(kind)
        raise _Refusal(404, "not_found")

    def _instance(self, incoming: IncomingRequest) -> _Answer:
        _, _, path = incoming.path.partition("/latest/")
        if incoming.method == "PUT" and path == "api/token":
            _need("x-aws-ec2-metadata-token-ttl-seconds" in incoming.headers, 400, "BadRequest")
            session = secrets.token_urlsafe(32)
            self._sessions.add(session)
            return _Answer(200, session.encode(), {"content-type": "text/plain"})
        # Version 1 is a GET without the token of a session.
        _need(incoming.headers.get("x-aws-ec2-metadata-token") in self._sessions, 401, "Unauthorized")
        roles = "meta-data/iam/security-credentials/"
        if path == roles:
            return _Answer(200, b"simulated-role", {"content-type": "text/plain"})
        _need(path == f"{roles}simulated-role", 404, "NotFound")
        return _json(200, {"Code": "Success", "Type": "AWS-HMAC", **self._keys("aws_instance")})

    def _google_metadata(self, incoming: IncomingRequest, fields: _Fields) -> _Answer:
        _need(incoming.headers.get("metadata-flavor") == "Google", 403, "PERMISSION_DENIED")
        flavor = {"metadata-flavor": "Google"}
        if incoming.path.endswith("/identity"):
            _need(bool(fields.get("audience")), 400, "INVALID_ARGUMENT")
            token, _ = self._token("google_metadata", aud=fields["audience"])
            return _Answer(200, token.encode(), {**flavor, "content-type": "text/html"})
        _need(incoming.path.endswith("/token"), 404, "NOT_FOUND")
        answer = self._bearer("google_metadata")
        answer.headers.update(flavor)
        return answer

    def _google_federation(self, fields: _Fields) -> _Answer:
        _need(fields.get("grant_type", "").endswith(":token-exchange"), 400, "unsupported_grant_type")
        _need(fields.get("audience", "").startswith("//iam.googleapis.com/"), 400, "invalid_target")
        _need(bool(fields.get("scope")), 400, "invalid_scope")
        subject = fields.get("subject_token", "")
        if fields.get("subject_token_type", "").endswith(":aws4_request"):
            self._check_caller(subject, fields["audience"])
        else:
            self._check_subject(subject, "invalid_grant")
        return self._bearer("google_federation")

    def _check_caller(self, subject: str, audience: str) -> None:
        """Check a signed request of AWS as Google's STS does, which sends it."""
        try:
            request: Any = json.loads(unquote(subject))
            headers = {each["key"].lower(): each["value"] for each in request["headers"]}
            method, query = str(request["method"]), str(request["url"]).partition("?")[2]
        except (ValueError, KeyError, TypeError):
            raise _Refusal(400, "invalid_grant") from None
        _need(headers.get("x-goog-cloud-target-resource") == audience, 400, "invalid_grant")
        # The signature covers the real host, to which Google sends it.
        incoming = IncomingRequest(method, "/", query, headers, b"")
        match = _SIGNATURE.fullmatch(headers.get("authorization", ""))
        _need(match is not None and self._is_valid(match["id"]) and self._is_signed(incoming), 400, "invalid_grant")

    def _check_subject(self, subject: str, code: str, number: int = 0) -> None:
        """Refuse a subject that is missing or has expired."""
        _need(subject, 400, "invalid_request")
        end_s = end_of_jwt(subject)
        if end_s is not None and end_s <= self._now_s():
            raise _Refusal(401 if number else 400, code, number)

    # --- what is issued ---------------------------------------------------------------------------

    def _token(self, kind: str, **claims: str) -> tuple[str, float]:
        ends_at_s = self._now_s() + self.lifetime_s
        head = {"alg": "RS256", "typ": "JWT"}
        payload = {"iss": "https://issuer.invalid", "sub": "workload", "exp": ends_at_s, "jti": secrets.token_hex(8)}
        parts = [
            urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in (head, payload | claims)
        ]
        token = ".".join([*parts, secrets.token_urlsafe(32)])
        self._issued[token] = _Issue(kind, ends_at_s)
        return token, ends_at_s

    def _bearer(self, kind: str) -> _Answer:
        token, _ = self._token(kind)
        return _json(200, {"access_token": token, "expires_in": int(self.lifetime_s), "token_type": "Bearer"})

    def _keys(self, kind: str) -> dict[str, str]:
        ends_at_s = self._now_s() + self.lifetime_s
        key_id, key, session = (
            f"ASIA{secrets.token_hex(8).upper()}",
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(60),
        )
        self._issued[key_id] = _Issue(kind, ends_at_s, key, session)
        return {"AccessKeyId": key_id, "SecretAccessKey": key, "Token": session, "Expiration": _moment(ends_at_s)}

    def _sts(self, action: str, keys: Mapping[str, str]) -> _Answer:
        named = {"SessionToken" if name == "Token" else name: value for name, value in keys.items()}
        texts = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in named.items())
        return _xml(action, f"<Credentials>{texts}</Credentials>")


def _fields_of(incoming: IncomingRequest) -> dict[str, str]:
    """Return the fields of the query and of the body, which is a form or JSON."""
    fields = dict(parse_qsl(incoming.query, keep_blank_values=True))
    if incoming.headers.get("content-type", "").startswith("application/json"):
        try:
            members = as_map(loads(incoming.body))
        except JsonError:
            return fields
        return fields | {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in members.items()
        }
    return fields | dict(parse_qsl(incoming.body.decode("latin-1"), keep_blank_values=True))


def _kind_of(incoming: IncomingRequest, fields: _Fields) -> str:
    path = incoming.path
    if path.startswith("/azure/"):
        return "azure_workload" if path.endswith("/oauth2/v2.0/token") else "azure_managed"
    if path.startswith("/aws"):
        if "/latest/" in path:
            return "aws_instance"
        actions = {
            "AssumeRoleWithWebIdentity": "aws_web_identity",
            "AssumeRole": "assume",
            "GetWebIdentityToken": "web_identity_token",
        }
        return actions.get(fields.get("Action", ""), "unknown" if incoming.method == "POST" else "aws_container")
    if path.startswith("/google/"):
        if "/computeMetadata/" in path:
            return "google_metadata"
        return "impersonate" if path.endswith(":generateAccessToken") else "google_federation"
    return "oauth" if path.startswith("/oauth") else "unknown"


def _need(is_met: object, status: int, code: str) -> None:
    if not is_met:
        raise _Refusal(status, code)


def _refused(family: str, refusal: _Refusal) -> _Answer:
    """Return a refusal in the vendor's form."""
    status, code = refusal.status, refusal.code
    if family == "aws":
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>Refused</Message></Error>"
        body = f"<ErrorResponse>{error}</ErrorResponse>"
        return _Answer(status, body.encode(), {"content-type": "text/xml"})
    if family == "google" and code.isupper():
        return _json(status, {"error": {"code": status, "status": code, "message": "Refused"}})
    numbers = {"error_codes": [refusal.number]} if refusal.number else {}
    return _json(status, {"error": code, "error_description": "Refused", **numbers})


def _json(status: int, body: object) -> _Answer:
    return _Answer(status, json.dumps(body).encode(), {"content-type": "application/json"})


def _xml(action: str, result: str) -> _Answer:
    namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
    text = f'<{action}Response xmlns="{namespace}"><{action}Result>{result}</{action}Result></{action}Response>'
    return _Answer(200, text.encode(), {"content-type": "text/xml"})


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def _run(port: int, lifetime_s: float) -> None:
    async with SimulatedIssuers(lifetime_s, port=port) as issuers:
        print(json.dumps({"url": issuers.url}), flush=True)
        await asyncio.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m providers.testkit.issuers", description="Simulated token issuers.")
    parser.add_argument("--port", type=int, default=0, help="the port; 0 for a free one")
    parser.add_argument("--lifetime", type=float, default=3600.0, metavar="S", help="seconds until a token ends")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(given.port, given.lifetime))


if __name__ == "__main__":
    _main()
