"""Compile `sign_ins`: the values of each kind, the hosts that are called, and where these are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit

from gateway.config.endpoints import Endpoint
from gateway.config.extras import check_extra
from gateway.config.links import Links, Way
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.schema.sign_in import SignInSection
from gateway.config.secret_references import Resolution, read_literal
from gateway.config.service_permits import is_this_machine, permit_at
from gateway.config.shape import keys_of
from gateway.config.territories import read_territory
from gateway.config.validation import Draft, check_reference
from gateway.model.config_version import Cell
from gateway.model.held_token import TokenPlace
from gateway.model.sign_in import SignIn
from providers.adapter import Adapter
from providers.auth import Bearer, HeaderKey, NoAuth
from providers.catalogue.prices import Retirement
from providers.catalogue.sites import cloud_regions
from providers.json_values import read_map
from providers.sign_in.exchanges import SignInTerms, TokenHost, sts_host
from providers.sign_in.kinds import SCOPES, SignInKind, sign_in_kinds, vendor_hosts
from providers.sites import OriginError, Residency, parse_origin
from providers.territories import ANYWHERE, Places
from providers.value import replace

if TYPE_CHECKING:
    from providers.transport.tls import Link

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}")
_POOL = "//iam.googleapis.com/"
_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "fd00:ec2::/32")))
_CONTAINER = "http://169.254.170.2"
_IMPERSONATION = "iamcredentials.googleapis.com"
_NOT_TEXTS = frozenset({"assume", "cloud", "global_host", "grant", "header", "proxy", "tls"})
"""The keys that have no text of the operator as their value."""
_NOT_MOVED = "`territory` does not move a vendor's host: use the kind of the vendor"
_FULL_URI, _RELATIVE_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
_AUTHORIZATION = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
_UNREAD = "unresolved"
"""Stands for a text that is not set, or not read (`--no-secrets`)."""


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


def compile_sign_ins(draft: Draft, links: Links, cell: Cell | None) -> dict[str, SignIn]:
    """Return the valid sign-ins of a draft. Invalid ones are marked in the draft."""
    sections, compiled = draft.config.sign_ins, dict[str, SignIn]()
    # A sign-in with `from` needs that of its source.
    for name, section in sorted(sections.items(), key=lambda item: item[1].source is not None):
        before = len(draft.problems)
        one = _SignInCompiler(draft, links, cell, name, section, compiled).compiled()
        is_valid = all(it.severity != "error" for it in draft.problems[before:])
        if one is not None and is_valid:
            compiled[name] = one
        else:
            draft.broken.add(("sign_ins", name))
    named = {it.source for it in sections.values()} | {it.sign_in for it in draft.config.deployments.values()}
    is_known = named - {None} <= draft.names("sign_ins")  # else an unknown name may stand for one of these
    if is_known and draft.is_whole("deployments"):
        for name in compiled.keys() - named:
            draft.warn(("sign_ins", name), "no deployment uses this sign-in", "remove it")
    return {name: compiled[name] for name in sections if name in compiled}


@dataclass(slots=True)
class _SignInCompiler:
    """One sign-in that is being compiled. `texts` has a placeholder for each value that is not set."""

    draft: Draft
    links: Links
    cell: Cell | None
    name: str
    section: SignInSection
    others: Mapping[str, SignIn]
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
        section = self.section
        if self.kind.is_aws:
            check_extra(self.draft, self.path, "an AWS sign-in")
        kind = self.kind
        for key in keys_of(SignInSection).keys() - kind.keys - {"kind"}:
            if self._is_written(key):
                hint = f"its keys are: {', '.join(sorted(kind.keys))}"
                self._error(key, f"`{kind.name}` has no key `{key}`", hint, at_key=True)
        self._read_texts()
        source = self._source()
        self._check_values()
        origins, simulated = self._origins(), self._simulated()
        if origins is None or simulated is None:
            return None
        hosts = {name: TokenHost(simulated[0] or origin, simulated[1]) for name, origin in origins.items()}
        places = [place for origin in origins.values() if (place := self._place(origin)) is not None]
        if source is not None:
            places += source.places
        way = self._way()
        if way.proxy is not None:
            places.append(TokenPlace(f"the proxy {way.proxy.origin}", way.proxy.territory))
        permits, links = {}, {}
        for name, host in hosts.items():
            is_local = host.origin.startswith("http://")
            permits[name] = permit_at(host.origin, way.proxy.origin if way.proxy is not None and not is_local else "")
            if not is_local:
                links[name] = _remote(way.link)
        if source is not None and "sts" in source.terms.hosts:
            # The STS of the source is reached as the source reaches it.
            hosts["source"], permits["source"] = source.terms.hosts["sts"], source.permits["sts"]
            links |= {"source": source.links["sts"]} if "sts" in source.links else {}
        token_file = self.texts.pop("token_file", None)
        return SignIn(
            name=self.name,
            kind=section.kind,
            is_aws=self.kind.is_aws,
            terms=SignInTerms(section.kind, hosts, self.texts, source.terms if source is not None else None),
            permits=permits,
            links=links,
            places=tuple(places),
            token_file=token_file,
            authorization_file=self._variable(_AUTHORIZATION) or None if section.kind == "aws_container" else None,
            source=section.source,
            header=section.header,
            missing=(*self.missing, *way.missing, *(source.missing if source is not None else ())),
            read_from=tuple(self.read_from),
        )

    def _error(self, key: str, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.draft.error((*self.path, key), message, hint, key=at_key)

    def _is_written(self, key: str) -> bool:
        """Return whether the file has the key itself with a valid value, and not a misspelt one that was read as it."""
        path = (*self.path, key)
        return self.draft.source.has(path) and path not in self.draft.broken

    def _missing(self, key: str, message: str, hint: str) -> None:
        """Report a key that is missing, unless an unknown key of the section may stand for it."""
        written = read_map(read_map(self.draft.source.values, "sign_ins"), self.name)
        if written.keys() <= keys_of(SignInSection).keys():
            self._error(key, f"is missing: {message}", hint)

    # --- values -----------------------------------------------------------------------------------

    def _read_texts(self) -> None:
        """Read the text of each key. Report those that are needed and not there."""
        section, kind = self.section, self.kind
        for key in (*kind.required, *kind.optional):
            if key not in _NOT_TEXTS:
                self._read(key, f"write `{key}`" if key in kind.required else "")
        if section.assume is not None:
            for part, text in section.assume.model_dump(exclude_none=True).items():
                self.texts[f"assume_{part}"] = self._taken(("assume", part), self._resolution(text))
        if kind.subject and section.source is None and section.client_secret is None:
            others = " or `from`" if "client_secret" not in kind.keys else ", `from` or `client_secret`"
            self._read("token_file", f"write `token_file`{others}")

    def _read(self, key: str, fix: str) -> None:
        """Read a text, from the configuration or a variable of the environment. `fix`: how to write a needed one."""
        text, variable = getattr(self.section, key), self.kind.environment.get(key)
        if text is not None:
            if key == "client_secret" and "${" not in text:
                self._error(key, "must be a reference", "write ${NAME} or ${file:/path}")
            self.texts[key] = self._taken((key,), self._resolution(text)) if self._is_written(key) else _UNREAD
        elif variable is not None:
            resolved = self._resolution(f"${{{variable}}}")
            if resolved.secret is not None:
                self.read_from.append(variable)
            if fix or not resolved.missing:
                self.texts[key] = self._taken((), resolved, f"set it, or {fix}")
        elif fix:
            self._missing(key, f"`{self.kind.name}` needs it", fix)

    def _resolution(self, text: str) -> Resolution:
        if "${" not in text:
            return read_literal(text)
        return self.draft.references.get(text, Resolution(text[2:-1], missing="is not set"))

    def _taken(self, key: tuple[str, ...], resolved: Resolution, hint: str = "") -> str:
        """Return a value, or a placeholder after it has been reported why there is none."""
        path, source = (*self.path, *key), resolved.source or "the value"
        if resolved.mistake:
            self.draft.error(path, f"{source} {resolved.mistake}", resolved.hint)
        elif resolved.secret is None:
            self.draft.warn(path, f"{source} {resolved.missing}: the deployments that use it are skipped", hint)
            self.missing.append(resolved.source or ".".join(key))
        return resolved.secret.reveal() if resolved.secret is not None else _UNREAD

    def _variable(self, name: str) -> str:
        """Return the value of a variable that describes where the gateway runs, or an empty text."""
        resolved = self._resolution(f"${{{name}}}")
        if resolved.secret is None or resolved.is_stand_in:
            return ""
        self.read_from.append(name)
        return resolved.secret.reveal()

    def _source(self) -> SignIn | None:
        """Return the sign-in whose token is the subject, after errors of the subject have been reported."""
        section = self.section
        if not self.kind.subject:
            return None
        written = [key for key in ("from", "token_file", "client_secret") if self._is_written(key)]
        for key in written[1:]:
            self._error(written[0], f"stands in place of `{key}`", "remove one of them")
        if section.source is None:
            return None
        check_reference(self.draft, (*self.path, "from"), "sign_ins", section.source)
        other = self.draft.config.sign_ins.get(section.source)
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
        return self.others.get(section.source)

    def _check_values(self) -> None:
        """Complete the values by the defaults of the kind, and check them. A placeholder is not judged."""
        section, texts, kind = self.section, self.texts, self.section.kind
        if kind.startswith("azure_"):
            scope = texts.setdefault("scope", SCOPES[0])
            is_source = any(it.source == self.name for it in self.draft.config.sign_ins.values())
            if scope not in (*SCOPES, _UNREAD) and not is_source:
                message = f"is not a scope of Azure's models: {quoted(scope)}"
                self._error("scope", message, f"write {' or '.join(SCOPES)}")
        if not _TENANT.fullmatch(texts.get("tenant", _UNREAD)):
            self._error("tenant", "is not the id or the domain of a tenant", "write the id, such as 72f988bf-…")
        if kind == "aws_web_identity":
            texts.setdefault("session", "gateway")
        if "assume_role" in texts and section.region is None and "region" in self.kind.optional:
            hint = "write `region`, such as eu-central-1"
            self._missing("region", "`assume` calls the STS of a region", hint)
        region, known = texts.get("region", _UNREAD), self._regions
        if region not in known and region != _UNREAD:
            self._error("region", f"unknown region {quoted(region)}", choice_hint(region, known))
        if kind == "google_federation" and not texts.get("audience", _UNREAD).startswith((_POOL, _UNREAD)):
            hint = f"write {_POOL}projects/NUMBER/locations/global/workloadIdentityPools/…"
            self._error("audience", "is not the name of a provider of a workload identity pool", hint)
        if kind == "google_metadata" and section.header != "authorization" and section.audience is None:
            self._error("header", "needs `audience`: an access token is for Google's APIs only", "add `audience`")
        if not texts.get("token_file", _UNREAD).startswith(("/", _UNREAD)):
            key = ("token_file",) if section.token_file is not None else ()
            self.draft.error((*self.path, *key), "must be an absolute path", "begin it with /")
        if section.global_host is not None and kind == "azure_workload" and section.cloud != "public":
            message = "has no effect: the host is in its country"
            self.draft.warn((*self.path, "global_host"), message, "remove it")
        if section.endpoint is not None:
            message = "is for simulated issuers on this machine: no real token is asked for"
            self.draft.warn((*self.path, "endpoint"), message, "remove it in production")

    @property
    def _regions(self) -> Mapping[str, str]:
        """The country of each region of its cloud."""
        return cloud_regions()["aws" if self.kind.is_aws else "google"]

    def _origins(self) -> dict[str, str] | None:
        """Return the real origin of each host by its name in the terms, or None after an error has been reported."""
        section, region = self.section, self.texts.get("region")
        token: str | None
        match section.kind:
            case "azure_workload":
                token = f"https://{next(name for name, it in vendor_hosts().items() if it.cloud == section.cloud)}"
            case "google_federation":
                token = f"https://sts.{region}.rep.googleapis.com" if region else "https://sts.googleapis.com"
            case "oauth":
                token = self._of_url()
            case "aws_web_identity":
                token = ""
            case "azure_managed" | "aws_container" | "aws_instance" | "google_metadata":
                token = self._metadata()
            case _:
                assert_never(section.kind)
        if token is None:
            return None
        sts = sts_host(region) if self.kind.is_aws and region else ""
        impersonate = f"https://{_IMPERSONATION}" if section.impersonate is not None else ""
        named = {"token": token, "impersonate": impersonate, "sts": sts}
        return {name: origin for name, origin in named.items() if origin}

    def _place(self, origin: str) -> TokenPlace | None:
        """Return where a host is: as the vendor has it, in its region or as stated. None if that is not known."""
        section = self.section
        if origin.startswith("http://"):
            cell = self.cell
            return TokenPlace("the metadata server", Places(frozenset({cell.territory}))) if cell is not None else None
        host = (urlsplit(origin).hostname or "").rstrip(".")
        known = next((it for name, it in vendor_hosts().items() if host == name or host.endswith(f".{name}")), None)
        if known is not None:
            places = Places(frozenset({known.territory})) if known.territory else ANYWHERE
            fix = known.fix if section.kind != "oauth" else _NOT_MOVED
            is_accepted = known.accepted and section.global_host is not None
            place = TokenPlace(host, places, fix, is_accepted)
            if known.ends is None:
                return place
            end = Retirement(("*",), known.ends, known.as_of, known.source, known.instead, host=host)
            return replace(place, end=end)
        if section.kind == "oauth":
            path = (*self.path, "territory")
            code = read_territory(self.draft, path, section.territory) if section.territory else None
        else:
            code = self._regions.get(self.texts["region"])
        return TokenPlace(host, Places(frozenset({code}))) if code is not None else None

    def _metadata(self) -> str | None:
        """Return the origin of the metadata server, and read the path that the environment names."""
        match self.section.kind:
            case "azure_managed":
                url, header = self._variable("IDENTITY_ENDPOINT"), self._variable("IDENTITY_HEADER")
                if url and header:
                    self.texts["identity_header"] = header
                    return self._at("IDENTITY_ENDPOINT", url)
            case "aws_container":
                for name, start in ((_FULL_URI, ""), (_RELATIVE_URI, _CONTAINER)):
                    if text := self._variable(name):
                        return self._at(name, f"{start}{text}")
                self.texts["path"] = "/v1/credentials"
                if self.section.endpoint is None:
                    hint = "associate a role with the pod's service account, or the task"
                    self._taken((), self._resolution(f"${{{_FULL_URI}}}"), hint)
        return self.kind.metadata

    def _at(self, variable: str, url: str) -> str | None:
        if (problem := address_problem(url)) is not None:
            self.draft.error(self.path, f"{variable} {problem}", "a metadata server is where the gateway runs")
            return None
        parts = urlsplit(url)
        self.texts["path"] = parts.path or "/"
        return f"{parts.scheme}://{parts.netloc}"

    def _of_url(self) -> str | None:
        """Return the origin of the operator's OAuth server, and read the path."""
        url = self.texts.get("url")
        if url is None:
            return None
        if url == _UNREAD:
            url = f"https://{_UNREAD}.invalid"
        split = self._split("url", url, "write the whole URL, such as https://id.example.de/oauth2/token")
        if split is None:
            return None
        if not split[0].startswith("https://"):
            self._error("url", "http:// can be read and changed on the way", "use https://")
            return None
        self.texts["path"] = split[1] or "/"
        return split[0]

    def _simulated(self) -> tuple[str, str] | None:
        """Return the origin and the path of the simulated issuers (empty: none), or None after an error."""
        if self.section.endpoint is None:
            return "", ""
        split = self._split("endpoint", self.section.endpoint, "write http://127.0.0.1:PORT, with an optional path")
        if split is not None and not is_this_machine(split[0]):
            hint = "write http://127.0.0.1:PORT, or remove it to call the real issuer"
            self._error("endpoint", "is not on this machine", hint)
            return None
        return split

    def _split(self, key: str, url: str, hint: str) -> tuple[str, str] | None:
        """Return the origin and the path of a URL, or None after its error has been reported."""
        try:
            origin, path = parse_origin(url)
        except OriginError as error:
            self._error(key, f"the URL {error}", hint)
            return None
        return origin, (path or "").rstrip("/")

    def _way(self) -> Way:
        """Return how the issuer is reached. Neither a metadata server nor a simulated issuer has a proxy."""
        is_local = self.section.endpoint is not None or (bool(self.kind.metadata) and not self.texts.get("region"))
        endpoint = Endpoint("https://issuer.invalid", "", Residency(ANYWHERE, ANYWHERE), None)
        return Way(endpoint.residency) if is_local else self.links.way(self.path, self.section, endpoint)


def _remote(link: Link | None) -> Link:
    from providers.transport.tls import Link

    return replace(link or Link(), is_remote=True)


# --- deployments ----------------------------------------------------------------------------------


def sign_in_of(
    draft: Draft,
    sign_ins: Mapping[str, SignIn],
    path: KeyPath,
    section: DeploymentSection,
    adapter: Adapter,
    endpoint: Endpoint,
) -> SignIn | None:
    """Return the sign-in of a deployment, or None if it has none, or after its errors have been reported."""
    if section.sign_in is None:
        return None
    at = (*path, "sign_in")
    check_reference(draft, at, "sign_ins", section.sign_in)
    if endpoint.simulates is not None:
        draft.warn(at, "a sign-in is not used with a simulator", "remove it")
        return None
    one = sign_ins.get(section.sign_in)
    if one is None:
        return None
    if section.api_key is not None and one.header == "authorization":
        hint = "remove one of them; only a sign-in with `header: proxy-authorization` stands next to a key"
        draft.error(at, "stands in place of `api_key`", hint)
    is_at_url, auth = endpoint.facts is None, adapter.auth
    takes_bearer = isinstance(auth, Bearer | NoAuth) or (isinstance(auth, HeaderKey) and auth.or_token)
    is_for_url = one.kind == "oauth" or (one.kind == "google_metadata" and "audience" in one.terms.texts)
    if one.header == "proxy-authorization":
        serves = is_at_url
    elif is_for_url:
        serves = is_at_url and takes_bearer
    else:
        serves = section.provider in sign_in_kinds()[one.kind].providers
    if not serves:
        fitting = [
            kind.name
            for kind in sign_in_kinds().values()
            if section.provider in kind.providers or (kind.bearer_at_url and is_at_url and takes_bearer)
        ]
        hint = f"use a sign-in of the kind {', '.join(fitting)}" if fitting else "use `api_key`: no kind fits"
        draft.error(at, f"a sign-in of the kind `{one.kind}` does not serve {section.provider}", hint)
        return None
    return one
