"""Compile `tls` and `proxy` of deployments: how connections to them are made."""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.endpoints import Endpoint
from gateway.config.problems import KeyPath
from gateway.config.schema.routing import DeploymentSection, ProxySection
from gateway.config.schema.sign_in import SignInSection
from gateway.config.secret_references import Resolution
from gateway.config.service_permits import is_this_machine
from gateway.config.source_text import MISSING, digest
from gateway.config.territories import read_territory
from gateway.config.validation import Findings
from gateway.files import open_file
from gateway.model.deployment import Proxy, TlsFiles
from providers.auth import Secret
from providers.json_values import as_map, read_map
from providers.sites import OriginError, Residency, parse_origin
from providers.territories import Places
from providers.value import Value, replace

if TYPE_CHECKING:
    from providers.transport.tls import Link

_MOST_BYTES = 1024 * 1024
_WARNING_DAYS = 14
_FILE_KEYS = ("ca", "client_certificate", "client_key")
_REFERENCE = r"\$\{[^{}]*\}"
_PROXY_URL = re.compile(
    rf"(https?://)(?:({_REFERENCE}|[A-Za-z0-9._~-]+(?=:))(?::({_REFERENCE}))?@)?([^@]*)", re.IGNORECASE
)
_URL_HINT = "write http://${PROXY_USER}:${PROXY_PASSWORD}@proxy.example.com:3128: only the credentials are references"

Linked = DeploymentSection | SignInSection
"""A section with `tls` and `proxy`. `insecure` allows a connection in clear text."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file that the configuration names. `problem`: why it cannot be used, or empty."""

    path: str
    digest: str = MISSING
    text: str = field(default="", repr=False)
    problem: str = ""


def read_tls_files(values: Mapping[str, object], config: str) -> dict[str, FileContent]:
    """Return the files that `tls` names, each read once. Paths are relative to the file `config`."""
    sections = [*read_map(values, "deployments").values(), *read_map(values, "sign_ins").values()]
    names = {read_map(as_map(section), "tls").get(key) for section in sections for key in _FILE_KEYS}
    return {
        name: read_content(str(Path(config).parent / name), _MOST_BYTES, "a PEM file", _pem_text)
        for name in names
        if isinstance(name, str) and name
    }


def read_content(path: str, most_bytes: int, most: str, decode: Callable[[bytes], str]) -> FileContent:
    """Return a file of the configuration. `most` is the bound in words. `decode` may raise UnicodeDecodeError."""
    try:
        with open_file(path) as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have that name"
        return FileContent(path, problem=f"the file {path} can't be read ({reason})")
    if len(data) > most_bytes:
        return FileContent(path, digest(data), problem=f"the file {path} is larger than {most}")
    try:
        return FileContent(path, digest(data), decode(data))
    except UnicodeDecodeError:
        return FileContent(path, digest(data), problem=f"the file {path} is not UTF-8")


def _pem_text(data: bytes) -> str:
    # Comments between certificates may have any encoding, and editors of Windows begin a file with a mark.
    return data.removeprefix(BOM_UTF8).decode("ascii", "replace").replace("\ufffd", "?")


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
    """Compile `tls` and `proxy` of deployments. Without resolved secrets, `files` is None."""

    findings: Findings
    references: Mapping[str, Resolution]
    files: Mapping[str, FileContent] | None
    now_s: float

    def way(self, path: KeyPath, section: Linked, endpoint: Endpoint) -> Way:
        """Return how a deployment is reached, after the errors of `tls` and `proxy` have been reported."""
        if section.tls is None and section.proxy is None:
            return Way(endpoint.residency)
        if endpoint.simulates is not None:
            for key in (key for key in ("tls", "proxy") if getattr(section, key) is not None):
                self.findings.warn((*path, key), "is not used with a simulator", "remove it")
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
        territory = read_territory(self.findings, (*path, "territory"), proxy.territory)
        url = _PROXY_URL.fullmatch(proxy.url)
        if url is None:  # it may contain a password, so it is not shown
            is_url = "://" in proxy.url
            message = f"must {'have references as credentials' if is_url else 'be a URL that names the host'}"
            self.findings.error((*path, "url"), message, _URL_HINT)
            return None
        try:
            origin, rest = parse_origin(url[1] + url[4])
        except OriginError as error:
            self.findings.error((*path, "url"), f"the URL {error}", _URL_HINT)
            return None
        is_local = is_this_machine(origin)
        is_insecure = is_local or section.insecure or proxy.insecure
        if rest:
            self.findings.error((*path, "url"), "the URL has a path", "remove it")
        elif not origin.startswith("https://") and not is_insecure:
            message = "http:// to another machine sends the credentials and the name of each server in clear text"
            self.findings.error((*path, "url"), message, "use https://, or allow it with `insecure: true`")
        elif endpoint.origin.startswith("http://") and not (proxy.inspects and is_insecure):
            message = "could read prompts and keys, because the URL of the endpoint is http://"
            self.findings.error(path, message, "use https:// there, or state `inspects: true` and `insecure: true`")
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
            resolved = self.references[text] if "${" in text else Resolution(secret=Secret(text))
            if resolved.mistake:
                self.findings.error(path, f"{resolved.source or 'a credential'} {resolved.mistake}", resolved.hint)
            elif resolved.secret is None:
                self.findings.warn(path, f"{resolved.source} {resolved.missing}: the deployment is skipped")
                missing.append(resolved.source)
            else:
                texts.append(resolved.secret.reveal())
        if parts[3] is not None and texts and ":" in texts[0]:
            self.findings.error(path, "the user name contains a colon", "a proxy would take the rest for the password")
        pair = ":".join(texts)
        pair = pair if ":" in pair else f"{pair}:"  # a user name without a password
        return f"Basic {b64encode(pair.encode('latin-1')).decode()}", tuple(missing)

    def _read_tls(
        self, path: KeyPath, section: Linked, tls: TlsFiles, endpoint: Endpoint
    ) -> tuple[TlsFiles | None, Link | None]:
        """Return the names of the files and the link with their content, after errors have been reported."""
        path = (*path, "tls")
        if not endpoint.origin.startswith("https://"):
            self.findings.error(path, "has no effect on an http:// URL", "write https:// in `endpoint`, or remove it")
            return None, None
        is_inspected = section.proxy is not None and section.proxy.inspects
        if tls.ca is not None and endpoint.facts is not None and not is_inspected:
            message = f"is not possible: public authorities sign the certificate of the site {endpoint.site}"
            hint = "remove it, because its owner could read prompts; for a proxy that does, state `inspects: true`"
            self.findings.error((*path, "ca"), message, hint)
        if (tls.client_certificate is None) != (tls.client_key is None):
            missing = "client_key" if tls.client_key is None else "client_certificate"
            self.findings.error((*path, missing), "is missing", "name both files, or none of them")
            return tls, None
        return tls, self._with_content(path, tls)

    def _with_content(self, path: KeyPath, tls: TlsFiles) -> Link | None:
        texts: dict[str, str] = {}
        named = {key: name for key in _FILE_KEYS if (name := getattr(tls, key)) is not None}
        for key, name in named.items():
            file = (self.files or {}).get(name)
            if not name:
                self.findings.error((*path, key), "is empty", "name a file, or remove the key")
            elif file is not None and file.problem:
                self.findings.error((*path, key), file.problem, "name a file that the gateway can read")
            elif file is not None:
                texts[key] = file.text
        if self.files is None or len(texts) < len(named):
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
            self.findings.error((*path, "client_key"), message, "write the key that belongs to `client_certificate`")
            return None
        return link

    def _check_dates(self, path: KeyPath, pem: str) -> bool:
        """Warn of certificates that end soon, and return whether the file has certificates at all."""
        try:
            certificates = list(_ends_of(pem))
        except ValueError:
            certificates = []
        if not certificates:
            self.findings.error(path, "is a file without certificates", "it must have certificates in PEM")
        now = datetime.fromtimestamp(self.now_s, UTC)
        for subject, end in certificates:
            if end < now + timedelta(days=_WARNING_DAYS):
                word = "expired" if end < now else "expires"
                self.findings.warn(
                    path, f"the certificate of {subject} {word} on {end.date()}", "replace it in the file"
                )
        return bool(certificates)


def _ends_of(pem: str) -> Iterator[tuple[str, datetime]]:
    """Yield the subject and the end of each certificate. Raises ValueError."""
    from cryptography import x509  # imported late: most configurations name no certificate

    for certificate in x509.load_pem_x509_certificates(pem.encode()):
        yield certificate.subject.rfc4514_string() or "no subject", certificate.not_valid_after_utc


def _with(places: Places, further: Places) -> Places:
    if further.within(places):
        return places
    included = None if places.included is None else places.included | (further.included or frozenset())
    return Places(included, places.excluded - (further.included or frozenset()))
