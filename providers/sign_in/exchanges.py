"""The exchange of each kind of sign-in. Its calls are the rows of `exchanges.toml`, and this module makes them.

A kind that federates gives the issuer a token of another issuer, its subject. With AWS as that other issuer, the
subject is a signed request to STS, which Google sends, or the answer of `GetWebIdentityToken`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Generator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Literal
from urllib.parse import quote, quote_plus, urlencode

from providers.catalogue import FactsFile
from providers.json_values import dumps, dumps_text, read_str
from providers.sign_in.exchange import (
    Exchange,
    ExchangeCall,
    ExchangeFailed,
    ExchangeResult,
    Issued,
    checked,
    credentials_of,
    read_json,
    read_text,
    read_xml,
    token_of,
)
from providers.sign_in.kinds import sign_in_kinds
from providers.signing import KeyProblem
from providers.signing.sigv4 import aws_headers
from providers.value import Value, replace
from providers.wire import WireRequest, WireResponse

_EXCHANGES = FactsFile("providers.sign_in", "exchanges")
_READERS = {"json": read_json, "xml": read_xml, "text": read_text}
_FORM = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
_JSON = (("content-type", "application/json"), ("accept", "application/json"))
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_AWS_REQUEST = "urn:ietf:params:aws:token-type:aws4_request"


class TokenHost(Value, frozen=True):
    """A token host: its origin, and the path before each path of the exchange, which may be empty."""

    origin: str
    prefix: str = ""


class SignInTerms(Value, frozen=True):
    """The values of the configuration that an exchange needs. Its `repr` hides the texts, which may be secret."""

    kind: str
    hosts: Mapping[str, TokenHost]
    """The hosts by name: `token`, for AWS `sts`, for impersonation `impersonate`."""
    texts: Mapping[str, str] = {}
    """The values of its keys and variables. The names of `assume` begin with `assume_`."""
    source: SignInTerms | None = None
    """The terms of the sign-in whose token is the subject, or None."""

    def __repr__(self) -> str:
        """Leave out the texts."""
        return f"SignInTerms(kind={self.kind!r}, hosts={self.hosts!r})"


class ExchangeInput(Value, frozen=True):
    """The values that an exchange is given at the moment of its start. Its `repr` shows the time only.

    Signatures cover Unix time. The subject is the content of a file, or the token or credentials of another sign-in.
    `authorization` is the content of the file that a container's credentials need.
    """

    now_s: float
    subject: str = ""
    authorization: str = ""

    def __repr__(self) -> str:
        """Leave out what is secret."""
        return f"ExchangeInput(now_s={self.now_s!r})"


class _Row(Value, frozen=True, forbid_unknown_fields=True):
    """One call of an exchange. `exchanges.toml` explains its fields."""

    method: str
    path: str
    needs: str = ""
    unless: str = ""
    host: str = "token"
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    form: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = None
    signed: bool = False
    silent: str = ""
    passing: frozenset[int] = frozenset()
    refusals: Mapping[str, str] = {}
    refusal: str = ""
    answer: Literal["json", "xml", "text"] = "json"
    header: tuple[str, str] | None = None
    success: str = ""
    session: str = ""
    member: str = "access_token"
    end: str = ""
    keep: str = ""


@cache
def _rows() -> Mapping[str, tuple[_Row, ...]]:
    return _EXCHANGES.read_as(dict[str, tuple[_Row, ...]])


def sts_host(region: str) -> str:
    """Return the origin of AWS's regional STS."""
    return f"https://sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def exchange_for(terms: SignInTerms, given: ExchangeInput) -> Exchange:
    """Return the exchange of a sign-in. It raises ExchangeFailed."""
    texts = {name: text for name, text in terms.texts.items() if text}
    texts |= {"authorization": given.authorization} if given.authorization else {}
    texts |= yield from _subject(terms, given)
    if "scope" in texts:
        texts["resource_of_scope"] = texts["scope"].removesuffix("/.default")
    if "client_secret" in texts:
        pair = f"{quote_plus(texts['client'])}:{quote_plus(texts['client_secret'])}"
        texts["client_and_secret"] = b64encode(pair.encode()).decode()
    issued = Issued("")
    for row in (*_rows()[terms.kind], *_rows()["assume"]):
        if row.unless in texts or (row.needs and row.needs not in texts):
            continue
        issued = yield from _issued(row, terms, texts, issued.text, given.now_s)
        if row.keep:
            texts[row.keep] = issued.text
    return issued


def _subject(terms: SignInTerms, given: ExchangeInput) -> Generator[ExchangeCall, WireResponse, Mapping[str, str]]:
    """Return the subject that was given, or that AWS credentials of the source give, and its type."""
    source = terms.source
    if source is None or not sign_in_kinds()[source.kind].is_aws:
        return {"subject": given.subject, "subject_type": _JWT} if given.subject else {}
    audience = sign_in_kinds()[terms.kind].subject.format_map(terms.texts)
    if terms.kind == "google_federation":
        return {"subject": _caller_identity(source, given, audience), "subject_type": _AWS_REQUEST}
    texts = {"audience": audience, "region": source.texts["region"]}
    [row] = _rows()["web_identity_token"]
    token = yield from _issued(row, terms, texts, given.subject, given.now_s)
    return {"subject": token.text, "subject_type": _JWT}


def _issued(row: _Row, terms: SignInTerms, texts: Mapping[str, str], credentials: str, now_s: float) -> Exchange:
    """Make one call, and return what was issued. AWS credentials sign it, if that is needed. Raises ExchangeFailed."""
    host = terms.hosts[row.host]
    in_path = {name: text if name == "path" else quote(text, safe="@") for name, text in texts.items()}
    path = f"{host.prefix}{row.path.format_map(in_path)}"
    headers, body = _filled(row.headers, texts), b""
    if row.form is not None:
        headers, body = (*_FORM, *headers), urlencode(_filled(row.form, texts)).encode()
    elif row.json is not None:
        headers, body = (*_JSON, *headers), dumps(row.json)
    wire = WireRequest(row.method, path, headers, body, _filled(row.query, texts))
    if row.signed:
        signature = _aws_signature(host.origin, wire, credentials, now_s, texts["region"])
        wire = replace(wire, headers=(*wire.headers, *signature))
    response = yield ExchangeCall(row.host, wire, row.silent)
    refusal = row.refusals.get(str(response.status), row.refusal)
    members = _READERS[row.answer](checked(response, passing=row.passing, refusal=refusal))
    if row.header is not None and response.headers.get(row.header[0].lower(), "").lower() != row.header[1].lower():
        name, value = row.header
        raise ExchangeFailed(ExchangeResult.MALFORMED, f"the answer is not {value}'s: it lacks `{name}: {value}`")
    if row.success and read_str(members, row.success) != "Success":
        raise ExchangeFailed(ExchangeResult.UNREACHABLE, "the instance's credentials are not ready")
    if row.answer == "text" and not members[row.member]:
        raise ExchangeFailed(ExchangeResult.REFUSED, row.refusal or "the answer is empty")
    return credentials_of(members, row.session) if row.session else token_of(members, row.member, at=row.end)


def _filled(fields: Mapping[str, str], texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the fields with their values. A field whose value is not there is left out."""
    filled = []
    for name, template in fields.items():
        with suppress(KeyError):
            filled.append((name, template.format_map(texts)))
    return tuple(filled)


def _aws_signature(
    origin: str, wire: WireRequest, credentials: str, now_s: float, region: str
) -> tuple[tuple[str, str], ...]:
    try:
        return aws_headers("sts", wire, origin, credentials, now_s, region=region)
    except KeyProblem as error:
        raise ExchangeFailed(ExchangeResult.MALFORMED, f"the signature {error}") from None


def _caller_identity(source: SignInTerms, given: ExchangeInput, audience: str) -> str:
    """Return a signed request of AWS, which Google sends to find out who has signed it."""
    wire = WireRequest("POST", "/", (), b"", (("Action", "GetCallerIdentity"), ("Version", "2011-06-15")))
    region = source.texts["region"]
    origin = sts_host(region)
    signed = dict(_aws_signature(origin, wire, given.subject, given.now_s, region))
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
