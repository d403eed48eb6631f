"""The exchange of each kind of sign-in: one or two small requests, as the vendors' libraries send them.

A kind that federates gives the issuer a token of another issuer, its subject. With AWS as that other issuer, the
subject is a signed request to STS, which Google sends, or the answer of `GetWebIdentityToken`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Generator, Mapping
from urllib.parse import quote, quote_plus, urlencode

from providers.json_values import dumps, dumps_text, read_str
from providers.sign_in.exchange import (
    Exchange,
    ExchangeCall,
    ExchangeFailed,
    ExchangeResult,
    Issued,
    checked,
    credentials_of,
    end_of_jwt,
    read_json,
    read_xml,
    token_of,
)
from providers.signing import KeyProblem
from providers.signing.sigv4 import aws_headers
from providers.value import Value
from providers.wire import WireRequest, WireResponse

ENTRA_HOSTS = {
    "public": "login.microsoftonline.com",
    "us": "login.microsoftonline.us",
    "china": "login.partner.microsoftonline.cn",
}
"""The hosts of Entra ID by cloud."""
SCOPES = ("https://cognitiveservices.azure.com/.default", "https://ai.azure.com/.default")
"""The scopes of Azure's models, the default first."""

_FORM = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
_JSON = (("content-type", "application/json"), ("accept", "application/json"))
_STS_VERSION = "2011-06-15"
_CLOUD = "https://www.googleapis.com/auth/cloud-platform"
_IAM = "https://www.googleapis.com/auth/iam"
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OF_TYPE = "urn:ietf:params:oauth:token-type:"
_AWS_REQUEST = "urn:ietf:params:aws:token-type:aws4_request"
_ENTRA_AUDIENCE = "api://AzureADTokenExchange"
_INSTANCE_ROLES = "/latest/meta-data/iam/security-credentials/"
_HOP_LIMIT = (
    "in a container the hop limit of the instance's metadata may be too low: set HttpPutResponseHopLimit to 2, or use "
    "the pod identity of the cluster"
)
_GOOGLE_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default"


class TokenHost(Value, frozen=True):
    """A token host: its origin, and the path before each path of the exchange (empty: none)."""

    origin: str
    prefix: str = ""

    def path(self, path: str) -> str:
        """Return a path at this host."""
        return f"{self.prefix}{path}"


class SignInTerms(Value, frozen=True):
    """The values of the configuration that an exchange needs.

    Its `repr` does not show the texts, which may be secret.

    Attributes:
        kind: The kind of the sign-in.
        hosts: The hosts by name: `token`, for AWS `sts`, for impersonation `impersonate`.
        texts: The values of its keys and variables. Those of `assume` begin with `assume_`.
        source: The terms of the sign-in whose token is the subject, or None.
    """

    kind: str
    hosts: Mapping[str, TokenHost]
    texts: Mapping[str, str] = {}
    source: SignInTerms | None = None

    def __repr__(self) -> str:
        """Leave out the texts."""
        return f"SignInTerms(kind={self.kind!r}, hosts={self.hosts!r})"

    def identity(self) -> object:
        """Return all values, also secret ones, as one value with a stable `repr`."""
        hosts = sorted((name, it.origin, it.prefix) for name, it in self.hosts.items())
        return self.kind, hosts, sorted(self.texts.items()), self.source.identity() if self.source is not None else None


class ExchangeInput(Value, frozen=True):
    """The values that an exchange is given at the moment of its start.

    Its `repr` shows the time only.

    Attributes:
        now_s: Unix time, which signatures cover.
        subject: The subject: the content of a file, or the token or credentials of another sign-in.
        authorization: The content of the file that a container's credentials need.
    """

    now_s: float
    subject: str = ""
    authorization: str = ""

    def __repr__(self) -> str:
        """Leave out what is secret."""
        return f"ExchangeInput(now_s={self.now_s!r})"


def sts_host(region: str) -> str:
    """Return the origin of AWS's regional STS."""
    return f"https://sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def exchange_for(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    """Return the exchange of a sign-in. It raises ExchangeFailed."""
    issued = yield from _EXCHANGES[terms.kind](terms, given)
    if "assume_role" in terms.texts:
        return (yield from _assumed(terms, given, issued))
    return issued


# --- Azure ----------------------------------------------------------------------------------------


def _azure_workload(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    texts = terms.texts
    assertion = yield from _jwt_subject(terms, given, _ENTRA_AUDIENCE)
    form = {"scope": texts["scope"], "grant_type": "client_credentials", **_asserted(texts["client"], assertion)}
    response = yield _post(terms, "token", f"/{quote(texts['tenant'], safe='')}/oauth2/v2.0/token", form)
    return token_of(read_json(checked(response)))


_NOT_MANAGED = {
    400: "this machine has no such identity",
    401: "the metadata server does not know the address that was called: compare IDENTITY_ENDPOINT, if it is set",
    403: "a proxy, such as that of a container, has probably answered in place of the metadata server",
}
"""What a refusal of a managed identity means, by its status.

source: learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token (401: unknown_source);
azure-identity 1.27.0 `_credentials/imds.py` (400, 403); as_of 2026-11-28
"""


def _azure_managed(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    texts = terms.texts
    is_service = "identity_header" in texts
    query = [("api-version", "2019-08-01" if is_service else "2018-02-01")]
    query.append(("resource", texts["scope"].removesuffix("/.default")))
    query += [("client_id", texts["client"])] if texts.get("client") else []
    header = ("x-identity-header", texts["identity_header"]) if is_service else ("metadata", "true")
    path = texts["path"] if is_service else "/metadata/identity/oauth2/token"
    response = yield _get(terms, path, (header,), query)
    body = checked(response, passing=frozenset({404, 410}), refusal=_NOT_MANAGED.get(response.status, ""))
    return token_of(read_json(body), at="expires_on")


# --- AWS ------------------------------------------------------------------------------------------


def _aws_web_identity(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    texts = terms.texts
    token = yield from _jwt_subject(terms, given, "sts.amazonaws.com")
    named = {"RoleArn": texts["role"], "RoleSessionName": texts["session"], "WebIdentityToken": token}
    response = yield _post(terms, "sts", "/", _action("AssumeRoleWithWebIdentity", named))
    return credentials_of(read_xml(checked(response)), "SessionToken")


def _aws_container(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    headers = (("authorization", given.authorization),) if given.authorization else ()
    response = yield _get(terms, terms.texts["path"], headers)
    return credentials_of(read_json(checked(response)), "Token")


def _aws_instance(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    wire = WireRequest(
        "PUT", terms.hosts["token"].path("/latest/api/token"), (("x-aws-ec2-metadata-token-ttl-seconds", "21600"),), b""
    )
    response = yield ExchangeCall("token", wire, silent=_HOP_LIMIT)
    session = checked(response).decode("ascii", "replace").strip()
    headers = (("x-aws-ec2-metadata-token", session),)
    named = yield _get(terms, _INSTANCE_ROLES, headers)
    roles = checked(named, refusal="the instance has no role").decode("ascii", "replace").split()
    if not roles:
        raise ExchangeFailed(ExchangeResult.REFUSED, "the instance has no role")
    response = yield _get(terms, f"{_INSTANCE_ROLES}{quote(roles[0], safe='')}", headers)
    members = read_json(checked(response))
    if read_str(members, "Code") != "Success":
        raise ExchangeFailed(ExchangeResult.UNREACHABLE, "the instance's credentials are not ready")
    return credentials_of(members, "Token")


def _assumed(terms: SignInTerms, given: ExchangeInput, issued: Issued) -> Exchange:
    texts = terms.texts
    named = {"RoleArn": texts["assume_role"], "RoleSessionName": texts["assume_session"]}
    named |= {"ExternalId": texts["assume_external_id"]} if "assume_external_id" in texts else {}
    response = yield _signed(terms, given, issued.text, _action("AssumeRole", named))
    return credentials_of(read_xml(checked(response)), "SessionToken")


def _action(name: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {"Action": name, "Version": _STS_VERSION, **fields}


def _signed(terms: SignInTerms, given: ExchangeInput, credentials: str, form: Mapping[str, str]) -> ExchangeCall:
    """Return a call of STS that is signed with AWS credentials."""
    call = _post(terms, "sts", "/", form)
    headers = _aws_signature(terms, terms.hosts["sts"].origin, call.wire, credentials, given.now_s)
    return ExchangeCall("sts", WireRequest("POST", call.wire.path, (*call.wire.headers, *headers), call.wire.body))


def _aws_signature(
    terms: SignInTerms, origin: str, wire: WireRequest, credentials: str, now_s: float
) -> tuple[tuple[str, str], ...]:
    try:
        return aws_headers("sts", wire, origin, credentials, now_s, region=terms.texts["region"])
    except KeyProblem as error:
        raise ExchangeFailed(ExchangeResult.MALFORMED, f"the signature {error}") from None


# --- Google ---------------------------------------------------------------------------------------


def _google_metadata(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    audience = terms.texts.get("audience")
    if audience:
        query = [("audience", audience), ("format", "full")]
        response = yield _get(terms, f"{_GOOGLE_ACCOUNT}/identity", _FLAVOR, query)
        token = _of_google(response).decode("ascii", "replace").strip()
        end_s = end_of_jwt(token)
        return token_of({"id_token": token} | ({"exp": end_s} if end_s is not None else {}), "id_token", at="exp")
    response = yield _get(terms, f"{_GOOGLE_ACCOUNT}/token", _FLAVOR)
    return token_of(read_json(_of_google(response)))


_FLAVOR = (("metadata-flavor", "Google"),)


def _of_google(response: WireResponse) -> bytes:
    """Return the body of a metadata server's answer, which must state that it is Google's. Raises ExchangeFailed."""
    body = checked(response, refusal="this machine has no service account")
    if response.headers.get("metadata-flavor", "").lower() != "google":
        raise ExchangeFailed(ExchangeResult.MALFORMED, "the answer is not Google's: it lacks `Metadata-Flavor: Google`")
    return body


def _google_federation(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    texts, account = terms.texts, terms.texts.get("impersonate")
    if terms.source is not None and terms.source.kind.startswith("aws_"):
        subject, subject_type = _caller_identity(terms.source, given, texts["audience"]), _AWS_REQUEST
    else:
        subject, subject_type = given.subject, f"{_OF_TYPE}jwt"
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": texts["audience"],
        "scope": _IAM if account else _CLOUD,
        "requested_token_type": f"{_OF_TYPE}access_token",
        "subject_token": subject,
        "subject_token_type": subject_type,
    }
    response = yield _post(terms, "token", "/v1/token", form)
    issued = token_of(read_json(checked(response)))
    if not account:
        return issued
    path = terms.hosts["impersonate"].path(
        f"/v1/projects/-/serviceAccounts/{quote(account, safe='@')}:generateAccessToken"
    )
    body = dumps({"delegates": [], "scope": [_CLOUD], "lifetime": "3600s"})
    headers = (*_JSON, ("authorization", f"Bearer {issued.text}"))
    response = yield ExchangeCall("impersonate", WireRequest("POST", path, headers, body))
    return token_of(read_json(checked(response)), "accessToken", at="expireTime")


def _caller_identity(source: SignInTerms, given: ExchangeInput, audience: str) -> str:
    """Return a signed request of AWS, which Google sends to find out who has signed it."""
    wire = WireRequest("POST", "/", (), b"", tuple(_action("GetCallerIdentity", {}).items()))
    origin = sts_host(source.texts["region"])
    signed = dict(_aws_signature(source, origin, wire, given.subject, given.now_s))
    headers = {
        "Authorization": signed.pop("authorization"),
        "host": origin.removeprefix("https://"),
        **signed,
        "x-goog-cloud-target-resource": audience,
    }
    request = {
        "url": f"{origin}?{urlencode(wire.query)}",
        "method": wire.method,
        "headers": [{"key": name, "value": value} for name, value in headers.items()],
    }
    return quote(dumps_text(request))


# --- OAuth ----------------------------------------------------------------------------------------


def _oauth(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    texts = terms.texts
    headers: tuple[tuple[str, str], ...] = _FORM
    form = {"grant_type": "client_credentials"}
    if "client_secret" in texts:
        pair = f"{quote_plus(texts['client'])}:{quote_plus(texts['client_secret'])}"
        headers = (*headers, ("authorization", f"Basic {b64encode(pair.encode()).decode()}"))
    else:
        assertion = yield from _jwt_subject(terms, given, texts["url"])
        form |= _asserted(texts["client"], assertion)
    form |= {name: texts[name] for name in ("audience", "scope", "resource") if texts.get(name)}
    response = yield _post(terms, "token", texts["path"], form, headers)
    return token_of(read_json(checked(response)))


# --- subjects and requests ------------------------------------------------------------------------


def _asserted(client: str, assertion: str) -> dict[str, str]:
    """Return the fields by which a client proves who it is with a token of another issuer (RFC 7523, 2.2)."""
    return {"client_id": client, "client_assertion_type": _JWT_BEARER, "client_assertion": assertion}


def _jwt_subject(terms: SignInTerms, given: ExchangeInput, audience: str) -> Generator[ExchangeCall, WireResponse, str]:
    """Return the subject as a JWT. AWS's STS issues one for credentials, by the source's own host."""
    source = terms.source
    if source is None or not source.kind.startswith("aws_"):
        return given.subject
    wanted = {"Audience.member.1": audience, "SigningAlgorithm": "RS256", "DurationSeconds": "300"}
    call = _signed(source, given, given.subject, _action("GetWebIdentityToken", wanted))
    response = yield ExchangeCall("source", call.wire)
    token = read_str(read_xml(checked(response)), "WebIdentityToken")
    if not token:
        raise ExchangeFailed(ExchangeResult.MALFORMED, "the answer has no `WebIdentityToken`")
    return token


def _post(
    terms: SignInTerms, host: str, path: str, form: Mapping[str, str], headers: tuple[tuple[str, str], ...] = _FORM
) -> ExchangeCall:
    body = urlencode(form).encode()
    return ExchangeCall(host, WireRequest("POST", terms.hosts[host].path(path), headers, body))


def _get(
    terms: SignInTerms, path: str, headers: tuple[tuple[str, str], ...], query: list[tuple[str, str]] | None = None
) -> ExchangeCall:
    return ExchangeCall("token", WireRequest("GET", terms.hosts["token"].path(path), headers, b"", tuple(query or ())))


_EXCHANGES: Mapping[str, Callable[[SignInTerms, ExchangeInput], Exchange]] = {
    "azure_workload": _azure_workload,
    "azure_managed": _azure_managed,
    "aws_web_identity": _aws_web_identity,
    "aws_container": _aws_container,
    "aws_instance": _aws_instance,
    "google_metadata": _google_metadata,
    "google_federation": _google_federation,
    "oauth": _oauth,
}
