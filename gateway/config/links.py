"""Compile `tls` and `proxy` of deployments: how connections to them are made."""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from gateway.config.endpoints import Endpoint
from gateway.config.loading import TLS_KEYS
from gateway.config.problems import KeyPath
from gateway.config.schema.routing import ProxySection
from gateway.config.secret_references import Resolution
from gateway.config.service_permits import is_this_machine
from gateway.config.territories import read_territory
from gateway.config.validation import Draft
from gateway.model.deployment import Proxy, TlsFiles
from providers.auth import Secret
from providers.sites import OriginError, Residency, parse_origin
from providers.territories import Places
from providers.value import Value, replace

if TYPE_CHECKING:
    from providers.transport.tls import Link

_WARNING_DAYS = 14
_REFERENCE = r"\$\{[^{}]*\}"
_PROXY_URL = re.compile(
    rf"(https?://)(?:({_REFERENCE}|[A-Za-z0-9._~-]+(?=:))(?::({_REFERENCE}))?@)?([^@]*)", re.IGNORECASE
)
_URL_HINT = "write http://${PROXY_USER}:${PROXY_PASSWORD}@proxy.example.com:3128: only the credentials are references"


class Linked(Protocol):
    """A section with `tls` and `proxy`. `insecure` allows a connection in clear text."""

    @property
    def tls(self) -> TlsFiles | None: ...
    @property
    def proxy(self) -> ProxySection | None: ...
    @property
    def insecure(self) -> bool: ...


class Way(Value, frozen=True):
    """How a deployment is reached: `tls` and `proxy` as they are written, and `link` with the content of the files."""

    residency: Residency
    """Where content is stored and processed, with a proxy that reads it."""
    tls: TlsFiles | None = None
    proxy: Proxy | None = None
    link: Link | None = None
    missing: tuple[str, ...] = ()
    """The sources of credentials of the proxy that are not set."""


@dataclass(slots=True)
class Links:
    """Compile `tls` and `proxy` of deployments. Without resolved secrets, the draft has no files of `tls`."""

    draft: Draft

    def way(self, path: KeyPath, section: Linked, endpoint: Endpoint) -> Way:
        """Return how a deployment is reached, after the errors of `tls` and `proxy` have been reported."""
        if section.tls is None and section.proxy is None:
            return Way(endpoint.residency)
        if endpoint.simulates is not None:
            for key in (key for key in ("tls", "proxy") if getattr(section, key) is not None):
                self.draft.warn((*path, key), "is not used with a simulator", "remove it")
            return Way(endpoint.residency)
        tls, link = self._read_tls(path, section, section.tls, endpoint) if section.tls is not None else (None, None)
        if section.proxy is None:
            return Way(endpoint.residency, tls, None, link)
        proxy = self._read_proxy((*path, "proxy"), section, section.proxy, endpoint)
        credentials, missing = self._credentials((*path, "proxy", "url"), section.proxy.url)
        if proxy is None:
            return Way(endpoint.residency, tls)
        from providers.transport.tls import Link

        link = replace(link or Link(), proxy=proxy.origin, authorization=credentials)
        residency = endpoint.residency
        if proxy.inspects:
            residency = replace(residency, processes=_with(residency.processes, proxy.territory))
        return Way(residency, tls, proxy, link, missing)

    def _read_proxy(self, path: KeyPath, section: Linked, proxy: ProxySection, endpoint: Endpoint) -> Proxy | None:
        territory = read_territory(self.draft, (*path, "territory"), proxy.territory)
        url = _PROXY_URL.fullmatch(proxy.url)
        if url is None:  # it may contain a password, so it is not shown
            is_url = "://" in proxy.url
            message = f"must {'have references as credentials' if is_url else 'be a URL that names the host'}"
            self.draft.error((*path, "url"), message, _URL_HINT)
            return None
        try:
            origin, rest = parse_origin(url[1] + url[4])
        except OriginError as error:
            self.draft.error((*path, "url"), f"the URL {error}", _URL_HINT)
            return None
        is_local = is_this_machine(origin)
        is_insecure = is_local or section.insecure or proxy.insecure
        if rest:
            self.draft.error((*path, "url"), "the URL has a path", "remove it")
        elif not origin.startswith("https://") and not is_insecure:
            message = "http:// to another machine sends the credentials and the name of each server in clear text"
            self.draft.error((*path, "url"), message, "use https://, or allow it with `insecure: true`")
        elif endpoint.origin.startswith("http://") and not (proxy.inspects and is_insecure):
            message = "could read prompts and keys, because the URL of the endpoint is http://"
            self.draft.error(path, message, "use https:// there, or state `inspects: true` and `insecure: true`")
        elif territory is not None:
            return Proxy(origin, Places(frozenset({territory})), proxy.inspects)
        return None

    def _credentials(self, path: KeyPath, url: str) -> tuple[str, tuple[str, ...]]:
        """Return the value of `proxy-authorization`, or empty, and the sources that are not set."""
        parts = _PROXY_URL.fullmatch(url)
        if parts is None or parts[2] is None:
            return "", ()
        texts: list[str] = []
        missing: list[str] = []
        for text in filter(None, (parts[2], parts[3])):
            resolved = self.draft.references[text] if "${" in text else Resolution(secret=Secret(text))
            if resolved.mistake:
                self.draft.error(path, f"{resolved.source or 'a credential'} {resolved.mistake}", resolved.hint)
            elif resolved.secret is None:
                self.draft.warn(path, f"{resolved.source} {resolved.missing}: the deployment is skipped")
                missing.append(resolved.source)
            else:
                texts.append(resolved.secret.reveal())
        if parts[3] is not None and texts and ":" in texts[0]:
            self.draft.error(path, "the user name contains a colon", "a proxy would take the rest for the password")
        pair = ":".join(texts)
        pair = pair if ":" in pair else f"{pair}:"  # a user name without a password
        return f"Basic {b64encode(pair.encode('latin-1')).decode()}", tuple(missing)

    def _read_tls(
        self, path: KeyPath, section: Linked, tls: TlsFiles, endpoint: Endpoint
    ) -> tuple[TlsFiles | None, Link | None]:
        """Return the names of the files and the link with their content, after errors have been reported."""
        path = (*path, "tls")
        if not endpoint.origin.startswith("https://"):
            self.draft.error(path, "has no effect on an http:// URL", "write https:// in `endpoint`, or remove it")
            return None, None
        is_inspected = section.proxy is not None and section.proxy.inspects
        if tls.ca is not None and endpoint.facts is not None and not is_inspected:
            message = f"is not possible: public authorities sign the certificate of the site {endpoint.site}"
            hint = "remove it, because its owner could read prompts; for a proxy that does, state `inspects: true`"
            self.draft.error((*path, "ca"), message, hint)
        if (tls.client_certificate is None) != (tls.client_key is None):
            missing = "client_key" if tls.client_key is None else "client_certificate"
            self.draft.error((*path, missing), "is missing", "name both files, or none of them")
            return tls, None
        return tls, self._with_content(path, tls)

    def _with_content(self, path: KeyPath, tls: TlsFiles) -> Link | None:
        texts: dict[str, str] = {}
        named = {key: name for key in TLS_KEYS if (name := getattr(tls, key)) is not None}
        for key, name in named.items():
            file = (self.draft.document.tls_files or {}).get(name)
            if not name:
                self.draft.error((*path, key), "is empty", "name a file, or remove the key")
            elif file is not None and file.problem:
                self.draft.error((*path, key), file.problem, "name a file that the gateway can read")
            elif file is not None:
                texts[key] = file.text
        if self.draft.document.tls_files is None or len(texts) < len(named):
            return None
        from providers.transport.tls import Link

        link = Link(texts.get("ca", ""), texts.get("client_certificate", ""), texts.get("client_key", ""))
        for key in ("ca", "client_certificate"):
            if key in texts and not self._check_dates((*path, key), texts[key]):
                return None
        try:
            link.tls  # noqa: B018  # builds the context, as the first connection will
        except ssl.SSLError as error:
            fits = error.reason != "KEY_VALUES_MISMATCH"
            message = (
                "is not a private key in PEM without a passphrase" if fits else "is not the key of the certificate"
            )
            self.draft.error((*path, "client_key"), message, "write the key that belongs to `client_certificate`")
            return None
        return link

    def _check_dates(self, path: KeyPath, pem: str) -> bool:
        """Warn of certificates that end soon, and return whether the file has certificates at all."""
        from cryptography import x509  # imported late: most configurations name no certificate

        try:
            certificates = [
                (it.subject.rfc4514_string() or "no subject", it.not_valid_after_utc)
                for it in x509.load_pem_x509_certificates(pem.encode())
            ]
        except ValueError:
            certificates = []
        if not certificates:
            self.draft.error(path, "is a file without certificates", "it must have certificates in PEM")
        now = datetime.fromtimestamp(self.draft.document.read_at_s, UTC)
        for subject, end in certificates:
            if end < now + timedelta(days=_WARNING_DAYS):
                word = "expired" if end < now else "expires"
                self.draft.warn(path, f"the certificate of {subject} {word} on {end.date()}", "replace it in the file")
        return bool(certificates)


def _with(places: Places, further: Places) -> Places:
    if further.within(places):
        return places
    included = None if places.included is None else places.included | (further.included or frozenset())
    return Places(included, places.excluded - (further.included or frozenset()))
