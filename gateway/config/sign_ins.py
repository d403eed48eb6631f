"""Compile `sign_ins`: the values of each kind, the hosts that are called, and where these are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.config.endpoints import Endpoint
from gateway.config.links import Links, Way
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.schema.sign_in import SignInSection
from gateway.config.secret_references import Resolution, read_literal
from gateway.config.service_permits import is_this_machine, permit_at
from gateway.config.territories import read_territory
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.config_version import Cell
from gateway.model.deployment import Deployment
from gateway.model.sign_in import SignIn, TokenPlace
from providers.adapter import Adapter
from providers.auth import Bearer, HeaderKey, NoAuth
from providers.sign_in import (
    ENTRA_HOSTS,
    SCOPES,
    SignInKind,
    SignInTerms,
    TokenHost,
    needs_sts,
    sign_in_kinds,
    sign_in_regions,
    sts_host,
)
from providers.sites import OriginError, Residency, parse_origin
from providers.territories import ANYWHERE, Places
from providers.value import replace

if TYPE_CHECKING:
    from providers.transport import Link

_ABSOLUTE = "an absolute path"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}")
_ENTRA = Places(frozenset({"US"})), Places(frozenset({"CN"}))
_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "fd00:ec2::/32")))
_METADATA = "http://169.254.169.254"
_CONTAINER = "http://169.254.170.2"
_POD_IDENTITY = "http://169.254.170.23"
OTHER_METADATA: Mapping[str, tuple[str, ...]] = {
    "google_metadata": ("http://169.254.169.252:988",),
    "aws_container": (_CONTAINER, _POD_IDENTITY, "http://[fd00:ec2::23]"),
}
"""Further origins of metadata servers by kind: of GKE's nodes, and of ECS and EKS, whose addresses are variables.

source: docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html (its IPv6 address); as_of 2026-11-28
"""
_IMPERSONATION = "iamcredentials.googleapis.com"
_GLOBAL_STS = "sts.googleapis.com"
_VENDORS: Mapping[str, Places] = {
    **dict.fromkeys((ENTRA_HOSTS["public"], "login.microsoft.com", "login.windows.net", "sts.windows.net"), ANYWHERE),
    ENTRA_HOSTS["us"]: _ENTRA[False],
    **dict.fromkeys((ENTRA_HOSTS["china"], "login.chinacloudapi.cn"), _ENTRA[True]),
    **dict.fromkeys((_GLOBAL_STS, _IMPERSONATION, "oauth2.googleapis.com", "accounts.google.com"), ANYWHERE),
    **dict.fromkeys(("auth.openai.com", "sts.amazonaws.com"), ANYWHERE),
}
"""Where the vendors' own token hosts are, and the hosts below them. No `territory` of an operator changes that."""
_ACCEPT = "write `global_host: accepted`"
_SHARED = frozenset({"proxy", "tls"})
_DEFAULTS: Mapping[str, object] = {"cloud": "public", "grant": "client_credentials", "header": "authorization"}


def environment_of(values: Mapping[str, object]) -> Iterator[str]:
    """Yield a reference to each variable of the environment that stands in for a key of the sign-ins."""
    sections = values.get("sign_ins")
    for section in sections.values() if isinstance(sections, dict) else ():
        kind = sign_in_kinds().get(str(section.get("kind"))) if isinstance(section, dict) else None
        if kind is None:
            continue
        has_subject = isinstance(section, dict) and "from" in section
        for key, name in kind.environment.items():
            if key not in section and not (key == "token_file" and has_subject):
                yield f"${{{name}}}"
        yield from (f"${{{name}}}" for name in kind.variables)


def address_problem(url: str) -> str | None:
    """Return why the address of a metadata server in the environment cannot be used, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        return "is not an http:// URL"
    if is_this_machine(url):
        return None
    try:
        is_local = any(ip_address(host) in network for network in _LOCAL)
    except ValueError:
        is_local = False
    return None if is_local else "is neither on this machine nor in 169.254.0.0/16 nor in fd00:ec2::/32"


@dataclass(slots=True)
class SignInCompiler:
    """Compiles the sign-ins of a draft."""

    draft: Draft
    findings: Findings
    references: Mapping[str, Resolution]
    links: Links
    cell: Cell | None
    _compiled: dict[str, SignIn] = field(default_factory=dict)

    def compiled(self) -> dict[str, SignIn]:
        """Return the valid sign-ins. Invalid ones are marked in the draft."""
        sections = self.draft.config.sign_ins
        # A sign-in with `from` needs that of its source.
        for name, section in sorted(sections.items(), key=lambda item: item[1].source is not None):
            before = len(self.findings.problems)
            one = _OneSignIn(self, name, section).compiled()
            is_valid = all(it.severity != "error" for it in self.findings.problems[before:])
            if one is not None and is_valid:
                self._compiled[name] = one
            else:
                self.draft.broken.add(("sign_ins", name))
        self._warn_of_unused()
        return {name: self._compiled[name] for name in sections if name in self._compiled}

    def _warn_of_unused(self) -> None:
        """Warn of sign-ins that no deployment and no other sign-in names."""
        config = self.draft.config
        named = {it.source for it in config.sign_ins.values()} | {it.sign_in for it in config.deployments.values()}
        is_known = named - {None} <= self.draft.names("sign_ins")  # else an unknown name may stand for one of these
        if is_known and self.draft.is_whole("deployments"):
            for name in self._compiled.keys() - named:
                self.findings.warn(("sign_ins", name), "no deployment uses this sign-in", "remove it")


@dataclass(slots=True)
class _OneSignIn:
    """One sign-in that is being compiled."""

    all: SignInCompiler
    name: str
    section: SignInSection
    texts: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    read_from: list[str] = field(default_factory=list)

    @property
    def path(self) -> KeyPath:
        """The path of the section."""
        return ("sign_ins", self.name)

    @property
    def kind(self) -> SignInKind:
        """The facts of its kind."""
        return sign_in_kinds()[self.section.kind]

    def compiled(self) -> SignIn | None:
        section, kind = self.section, self.kind
        self._check_keys()
        for key in (*kind.required, *kind.optional):
            self._read(key)
        source = self._source()
        token_file = self._subject() if section.source is None else None
        self._check_values(source)
        hosts, places = self._hosts()
        if hosts is None:
            return None
        if source is not None:
            places += source.places
        way = self._way()
        if way.proxy is not None:
            places.append(TokenPlace(f"the proxy {way.proxy.origin}", way.proxy.territory))
        names, permits, links = dict(hosts), {}, {}
        for host, at in hosts.items():
            is_local = at.origin.startswith("http://")
            proxy = way.proxy.origin if way.proxy is not None and not is_local else ""
            permits[host] = permit_at(at.origin, proxy)
            if not is_local:
                links[host] = _remote(way.link)
        if source is not None and "sts" in source.terms.hosts:
            # The STS of the source is reached as the source reaches it.
            names["source"], permits["source"] = source.terms.hosts["sts"], source.permits["sts"]
            links |= {"source": source.links["sts"]} if "sts" in source.links else {}
        terms = SignInTerms(section.kind, names, self.texts, source.terms if source is not None else None)
        return SignIn(
            name=self.name,
            terms=terms,
            permits=permits,
            links=links,
            places=tuple(places),
            token_file=token_file,
            authorization_file=self._authorization_file(),
            source=section.source,
            header=section.header,
            missing=(*self.missing, *way.missing, *(source.missing if source is not None else ())),
            read_from=tuple(self.read_from),
        )

    # --- values -----------------------------------------------------------------------------------

    def _error(self, key: str, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.all.findings.error((*self.path, key), message, hint, key=at_key)

    def _check_keys(self) -> None:
        """Report keys that the kind does not have."""
        kind = self.kind
        for name, info in type(self.section).model_fields.items():
            key = info.alias or name
            if key == "kind" or name not in self.section.model_fields_set or key in kind.keys:
                continue
            if getattr(self.section, name) is None:
                continue
            hint = f"its keys are: {', '.join(sorted(kind.keys))}"
            self._error(key, f"`{kind.name}` has no key `{key}`", hint, at_key=True)

    def _read(self, key: str) -> None:
        """Read the text of a key, from the configuration or from its variable of the environment."""
        if key in _SHARED or key in ("assume", "global_host", "grant", "header", "cloud"):
            if key == "assume" and self.section.assume is not None:
                for part in ("role", "session", "external_id"):
                    text = getattr(self.section.assume, part)
                    if text is not None:
                        self._take(f"assume_{part}", ("assume", part), text)
            return
        text = getattr(self.section, key)
        if key == "client_secret" and text is not None and "${" not in text:
            self._error(key, "must be a reference", "write ${NAME} or ${file:/path}")
            return
        if text is not None:
            self._take(key, (key,), text)
            return
        variable = self.kind.environment.get(key)
        resolved = self.all.references.get(f"${{{variable}}}") if variable is not None else None
        if resolved is not None and resolved.secret is not None:
            self.texts[key] = resolved.secret.reveal()
            self.read_from.append(str(variable))
        elif resolved is not None and resolved.mistake:
            self.all.findings.error(self.path, f"{variable} {resolved.mistake}", resolved.hint)
        elif key in self.kind.required:
            if variable is None:
                self._error(key, f"is missing: `{self.kind.name}` needs it", f"write `{key}`")
            else:
                message = f"{variable} is not set: the deployments that use it are skipped"
                self.all.findings.warn(self.path, message, f"set it, or write `{key}`")
                self.missing.append(variable)
                self.texts[key] = ""

    def _take(self, name: str, key: tuple[str, ...], text: str) -> None:
        resolved = self.all.references[text] if "${" in text else read_literal(text)
        source = resolved.source or "the value"
        if resolved.mistake:
            self.all.findings.error((*self.path, *key), f"{source} {resolved.mistake}", resolved.hint)
        elif resolved.secret is None:
            message = f"{source} {resolved.missing}: the deployments that use it are skipped"
            self.all.findings.warn((*self.path, *key), message)
            self.missing.append(resolved.source or ".".join(key))
            self.texts[name] = ""
        else:
            self.texts[name] = resolved.secret.reveal()

    def _variable(self, name: str) -> str:
        resolved = self.all.references.get(f"${{{name}}}")
        if resolved is None or resolved.secret is None or resolved.is_stand_in:
            return ""
        self.read_from.append(name)
        return resolved.secret.reveal()

    @property
    def _is_unread(self) -> bool:
        """Whether the environment is not read, so that each variable is taken as set."""
        names = (f"${{{name}}}" for name in (*self.kind.environment.values(), *self.kind.variables))
        return any(it.is_stand_in for name in names if (it := self.all.references.get(name)) is not None)

    def _source(self) -> SignIn | None:
        """Return the sign-in whose token is the subject, after errors have been reported."""
        section, all_ = self.section, self.all
        if section.source is None or not self.kind.subject:
            return None
        check_reference(all_.draft, all_.findings, (*self.path, "from"), "sign_ins", section.source)
        if section.token_file is not None:
            self._error("from", "stands in place of `token_file`", "remove one of them")
        if section.client_secret is not None:
            self._error("from", "stands in place of `client_secret`", "remove one of them")
        other = all_.draft.config.sign_ins.get(section.source)
        if other is None:
            return None
        is_id_token = other.kind == "google_metadata" and other.audience is not None
        if other.source is not None or section.source == self.name:
            self._error("from", f"{quoted(section.source)} has `from` itself", "name a sign-in without it")
        elif not (other.kind.startswith(("azure_", "aws_")) or is_id_token):
            hint = "use azure_*, aws_*, or google_metadata with `audience`"
            self._error("from", f"a token of `{other.kind}` is no subject", hint)
        elif other.kind.startswith("aws_") and other.region is None:
            message = f"needs `region` of {quoted(section.source)}, whose STS makes the subject"
            self._error("from", message, "write it there")
        return all_._compiled.get(section.source)

    def _subject(self) -> str | None:
        """Return the file with the subject."""
        section, kind = self.section, self.kind
        if not kind.subject:
            return None
        if section.client_secret is not None:
            if section.token_file is not None:
                self._error("token_file", "stands in place of `client_secret`", "remove one of them")
            return None
        self._read_file("token_file")
        if "token_file" not in self.texts:
            keys = "`token_file` or `from`" + (", or `client_secret`" if "client_secret" in kind.keys else "")
            if "token_file" not in kind.environment:
                self.all.findings.error(self.path, f"`{kind.name}` needs {keys}", "write one of them")
            return None
        path = self.texts.pop("token_file")
        if path and not path.startswith("/") and not self._is_unread:
            key = ("token_file",) if section.token_file is not None else ()
            self.all.findings.error((*self.path, *key), f"must be {_ABSOLUTE}", "begin it with /")
        return path

    def _read_file(self, key: str) -> None:
        self._read(key)
        variable = self.kind.environment.get(key)
        if key not in self.texts and variable is not None:
            message = f"{variable} is not set: the deployments that use it are skipped"
            self.all.findings.warn(self.path, message, "set it, or write `token_file` or `from`")
            self.missing.append(variable)

    def _authorization_file(self) -> str | None:
        if self.section.kind != "aws_container":
            return None
        return self._variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") or None

    def _check_values(self, source: SignIn | None) -> None:
        """Complete the values by the defaults of the kind, and check them."""
        section, texts, kind = self.section, self.texts, self.section.kind
        is_source = any(it.source == self.name for it in self.all.draft.config.sign_ins.values())
        if kind.startswith("azure_"):
            scope = texts.setdefault("scope", SCOPES[0])
            if scope not in SCOPES and not is_source and scope != "unresolved":
                self._error(
                    "scope", f"is not a scope of Azure's models: {quoted(scope)}", f"write {' or '.join(SCOPES)}"
                )
        if texts.get("tenant") and not _TENANT.fullmatch(texts["tenant"]):
            self._error("tenant", "is not the id or the domain of a tenant", "write the id, such as 72f988bf-…")
        if kind == "aws_web_identity":
            texts.setdefault("session", "gateway")
        if needs_sts(kind, texts) and section.region is None and kind != "aws_web_identity":
            self._error(
                "region", "is missing: `assume` calls the STS of a region", "write `region`, such as eu-central-1"
            )
        cloud = "aws" if self.kind.is_aws else "google"
        if section.region is not None and "region" in self.kind.keys:
            region = texts.get("region", "")
            if region not in sign_in_regions()[cloud] and region not in ("", "unresolved"):
                hint = choice_hint(region, sign_in_regions()[cloud])
                self._error("region", f"unknown region {quoted(region)}", hint)
        audience = texts.get("audience", "")
        is_pool = audience in ("", "unresolved") or audience.startswith("//iam.googleapis.com/")
        if kind == "google_federation" and not is_pool:
            hint = "write //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/…"
            self._error("audience", "is not the name of a provider of a workload identity pool", hint)
        if kind == "google_metadata" and section.header != "authorization" and section.audience is None:
            self._error("header", "needs `audience`: an access token is for Google's APIs only", "add `audience`")
        if section.global_host is not None and kind == "azure_workload" and section.cloud != "public":
            self.all.findings.warn(
                (*self.path, "global_host"), "has no effect: the host is in its country", "remove it"
            )
        if section.endpoint is not None:
            message = "is for simulated issuers on this machine: no real token is asked for"
            self.all.findings.warn((*self.path, "endpoint"), message, "remove it in production")

    # --- hosts ------------------------------------------------------------------------------------

    def _hosts(self) -> tuple[dict[str, TokenHost] | None, list[TokenPlace]]:
        """Return the hosts by their name in the terms, and where they really are."""
        section, texts, kind = self.section, self.texts, self.section.kind
        accepted = section.global_host is not None
        origins: dict[str, str] = {}
        places: list[TokenPlace] = []
        if kind == "azure_workload":
            host = ENTRA_HOSTS[section.cloud]
            origins["token"] = f"https://{host}"
            if section.cloud == "public":
                fix = f"{_ACCEPT}, or use `azure_managed`, which calls no global host from here"
                places.append(TokenPlace(host, ANYWHERE, fix, accepted))
            else:
                places.append(TokenPlace(host, _ENTRA[section.cloud == "china"]))
        elif kind == "google_federation":
            region = texts.get("region")
            host = f"sts.{region}.rep.googleapis.com" if region else _GLOBAL_STS
            origins["token"] = f"https://{host}"
            if region:
                places.append(TokenPlace(host, _place_of("google", region)))
            else:
                fix = "write `region`, such as europe-west3: sts.europe-west3.rep.googleapis.com is called then"
                places.append(TokenPlace(host, ANYWHERE, fix))
            if section.impersonate is not None:
                origins["impersonate"] = f"https://{_IMPERSONATION}"
                fix = f"{_ACCEPT}, or give the federated principal itself the rights, without `impersonate`"
                places.append(TokenPlace(_IMPERSONATION, ANYWHERE, fix, accepted))
        elif kind == "oauth":
            origin = self._of_url()
            territory = section.territory
            code = read_territory(self.all.findings, (*self.path, "territory"), territory) if territory else None
            if origin is None or code is None:
                return None, places
            origins["token"] = origin
            places.append(_oauth_place((urlsplit(origin).hostname or "").rstrip("."), Places(frozenset({code}))))
        elif kind == "aws_web_identity":
            pass
        else:
            origin = self._metadata()
            if origin is None:
                return None, places
            origins["token"] = origin
            if self.all.cell is not None:
                places.append(TokenPlace("the metadata server", Places(frozenset({self.all.cell.territory}))))
        if self.kind.is_aws and texts.get("region"):
            origins["sts"] = sts_host(texts["region"])
            host = origins["sts"].removeprefix("https://")
            places.append(TokenPlace(host, _place_of("aws", texts["region"])))
        prefix = ""
        if section.endpoint is not None:
            at = self._of_endpoint(section.endpoint)
            if at is None:
                return None, places
            origin, prefix = at
            origins = dict.fromkeys(origins, origin)
        return {name: TokenHost(origin, prefix) for name, origin in origins.items()}, places

    def _metadata(self) -> str | None:
        """Return the origin of the metadata server, and read the path that the environment names."""
        kind = self.section.kind
        if kind == "azure_managed":
            url, header = self._variable("IDENTITY_ENDPOINT"), self._variable("IDENTITY_HEADER")
            if not (url and header):
                return _METADATA
            self.texts["identity_header"] = header
            return self._at("IDENTITY_ENDPOINT", url)
        if kind == "aws_container":
            if url := self._variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
                return self._at("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
            if path := self._variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
                return self._at("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", f"{_CONTAINER}{path}")
            self.texts["path"] = "/v1/credentials"
            if not self._is_unread and self.section.endpoint is None:
                name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
                message = f"{name} is not set: the deployments that use it are skipped"
                self.all.findings.warn(
                    self.path, message, "associate a role with the pod's service account, or the task"
                )
                self.missing.append(name)
            return _POD_IDENTITY
        return _METADATA

    def _at(self, variable: str, url: str) -> str | None:
        if (problem := address_problem(url)) is not None:
            self.all.findings.error(self.path, f"{variable} {problem}", "a metadata server is where the gateway runs")
            return None
        parts = urlsplit(url)
        self.texts["path"] = parts.path or "/"
        return f"{parts.scheme}://{parts.netloc}"

    def _of_url(self) -> str | None:
        url = self.texts.get("url", "")
        if url in ("", "unresolved"):
            self.texts["path"] = "/"
            return "https://unresolved.invalid" if url or self.missing else None
        try:
            origin, path = parse_origin(url)
        except OriginError as error:
            self._error("url", f"the URL {error}", "write the whole URL, such as https://id.example.de/oauth2/token")
            return None
        if not origin.startswith("https://"):
            self._error("url", "http:// can be read and changed on the way", "use https://")
            return None
        self.texts["path"] = path or "/"
        return origin

    def _of_endpoint(self, text: str) -> tuple[str, str] | None:
        try:
            origin, path = parse_origin(text)
        except OriginError as error:
            self._error("endpoint", f"the URL {error}", "write http://127.0.0.1:PORT, with an optional path")
            return None
        if not is_this_machine(origin):
            hint = "write http://127.0.0.1:PORT, or remove it to call the real issuer"
            self._error("endpoint", "is not on this machine", hint)
            return None
        return origin, (path or "").rstrip("/")

    def _way(self) -> Way:
        """Return how the issuer is reached. Neither a metadata server nor a simulated issuer has a proxy."""
        is_local = self.section.endpoint is not None or (self.kind.is_metadata and not self.texts.get("region"))
        endpoint = Endpoint("https://issuer.invalid", "", Residency(ANYWHERE, ANYWHERE), None)
        return Way(endpoint.residency) if is_local else self.all.links.way(self.path, self.section, endpoint)


def _place_of(cloud: str, region: str) -> Places:
    code = sign_in_regions()[cloud].get(region)
    return Places(frozenset({code})) if code is not None else ANYWHERE


def _oauth_place(host: str, stated: Places) -> TokenPlace:
    """Return where an OAuth server is: in the stated territory, unless it is a vendor's host that is known."""
    known = next((at for name, at in _VENDORS.items() if host == name or host.endswith(f".{name}")), None)
    if known is None:
        return TokenPlace(host, stated)
    return TokenPlace(host, known, "`territory` does not move a vendor's host: use the kind of the vendor")


def _remote(link: Link | None) -> Link:
    from providers.transport import Link

    return replace(link or Link(), is_remote=True)


# --- deployments ----------------------------------------------------------------------------------


def sign_in_of(
    draft: Draft,
    findings: Findings,
    path: KeyPath,
    section: DeploymentSection,
    adapter: Adapter,
    endpoint: Endpoint,
    sign_ins: Mapping[str, SignIn],
) -> SignIn | None:
    """Return the sign-in of a deployment, or None if it has none, or after its errors have been reported."""
    if section.sign_in is None:
        return None
    at = (*path, "sign_in")
    check_reference(draft, findings, at, "sign_ins", section.sign_in)
    if endpoint.simulates is not None:
        findings.warn(at, "a sign-in is not used with a simulator", "remove it")
        return None
    one = sign_ins.get(section.sign_in)
    if one is None:
        return None
    if section.api_key is not None and one.header == "authorization":
        hint = "remove one of them; only a sign-in with `header: proxy-authorization` stands next to a key"
        findings.error(at, "stands in place of `api_key`", hint)
    is_at_url = endpoint.facts is None
    if not _serves(one, section.provider, adapter, is_at_url=is_at_url):
        fitting = [kind.name for kind in sign_in_kinds().values() if section.provider in kind.providers]
        if is_at_url and _takes_bearer(adapter):
            fitting += [
                kind.name for kind in sign_in_kinds().values() if kind.bearer_at_url and kind.name not in fitting
            ]
        hint = f"use a sign-in of the kind {', '.join(fitting)}" if fitting else "use `api_key`: no kind fits"
        findings.error(at, f"a sign-in of the kind `{one.kind}` does not serve {section.provider}", hint)
        return None
    return one


def _serves(one: SignIn, provider: str, adapter: Adapter, *, is_at_url: bool) -> bool:
    kind = sign_in_kinds()[one.kind]
    if one.header == "proxy-authorization":
        return is_at_url
    is_id_token = one.kind == "google_metadata" and bool(one.terms.texts.get("audience"))
    if provider in kind.providers:
        return not is_id_token
    return (
        kind.bearer_at_url and is_at_url and _takes_bearer(adapter) and (is_id_token or one.kind != "google_metadata")
    )


def _takes_bearer(adapter: Adapter) -> bool:
    auth = adapter.auth
    return isinstance(auth, Bearer | NoAuth) or (isinstance(auth, HeaderKey) and auth.or_token)


def sign_ins_used(deployments: Iterable[Deployment]) -> dict[str, list[str]]:
    """Return the names of the deployments by the sign-in that they use, also as the source of another one."""
    used: dict[str, list[str]] = {}
    for deployment in deployments:
        if deployment.sign_in is not None:
            for name in filter(None, (deployment.sign_in.source, deployment.sign_in.name)):
                used.setdefault(name, []).append(deployment.name)
    return used
