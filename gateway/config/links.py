"""Compile `tls` of deployments: how connections are made to a server that public authorities do not sign."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.endpoints import Endpoint
from gateway.config.problems import KeyPath
from gateway.config.schema.routing import DeploymentSection, TlsSection
from gateway.config.secret_references import Resolution
from gateway.config.source_text import MISSING, digest
from gateway.config.validation import Findings
from gateway.files import open_file
from gateway.model.deployment import TlsFiles

if TYPE_CHECKING:
    from providers.transport import Link

_MOST_BYTES = 1024 * 1024
_WARNING_DAYS = 14
_FILE_KEYS = ("ca", "client_certificate", "client_key")


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file that `tls` names. `problem`: why it cannot be used, or empty."""

    path: str
    digest: str = MISSING
    text: str = field(default="", repr=False)
    problem: str = ""


def read_tls_files(values: Mapping[str, object], config: str) -> dict[str, FileContent]:
    """Return the files that `tls` of the deployments names, each read once. Paths are relative to the file `config`."""
    deployments = values.get("deployments")
    sections = deployments.values() if isinstance(deployments, dict) else ()
    stated = [section.get("tls") for section in sections if isinstance(section, dict)]
    names = {one.get(key) for one in stated if isinstance(one, dict) for key in _FILE_KEYS}
    return {name: _read(str(Path(config).parent / name)) for name in names if isinstance(name, str) and name}


def _read(path: str) -> FileContent:
    try:
        with open_file(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have that name"
        return FileContent(path, problem=f"the file {path} can't be read ({reason})")
    if len(data) > _MOST_BYTES or not data.isascii():
        return FileContent(path, digest(data), problem=f"the file {path} is not a PEM file")
    return FileContent(path, digest(data), data.decode("ascii"))


@dataclass(slots=True)
class Links:
    """Compile `tls` of deployments.

    Attributes:
        references: The resolved references by their text.
        files: The files by their name in the configuration. None if secrets are not resolved.
        now_s: Unix time, for certificates that end soon.
    """

    findings: Findings
    references: Mapping[str, Resolution]
    files: Mapping[str, FileContent] | None
    now_s: float

    def read_tls(
        self, path: KeyPath, section: DeploymentSection, endpoint: Endpoint
    ) -> tuple[TlsFiles | None, Link | None]:
        """Return the names of the files and the link with their content, after errors have been reported."""
        tls = section.tls
        if tls is None:
            return None, None
        path = (*path, "tls")
        names = TlsFiles(tls.ca or "", tls.client_certificate or "", tls.client_key or "")
        if endpoint.simulates is not None:
            self.findings.warn(path, "is not used with a simulator", "remove it")
            return None, None
        if not endpoint.origin.startswith("https://"):
            self.findings.error(path, "has no effect on an http:// URL", "write https:// in `endpoint`, or remove it")
            return None, None
        if tls.ca is not None and endpoint.facts is not None:
            message = f"is not possible: public authorities sign the certificate of the site {endpoint.site}"
            self.findings.error((*path, "ca"), message, "remove it; whoever has another authority could read prompts")
        if (tls.client_certificate is None) != (tls.client_key is None):
            lacking = "client_key" if tls.client_key is None else "client_certificate"
            self.findings.error((*path, lacking), "is missing", "name both files, or none of them")
            return names, None
        return names, self._with_content(path, tls)

    def _with_content(self, path: KeyPath, tls: TlsSection) -> Link | None:
        texts: dict[str, str] = {}
        for key, name in ((key, getattr(tls, key)) for key in _FILE_KEYS):
            file = (self.files or {}).get(name) if name is not None else None
            if file is not None and file.problem:
                self.findings.error((*path, key), file.problem, "name a file that the gateway can read")
            elif file is not None:
                texts[key] = file.text
        if self.files is None or len(texts) < len(tls.model_fields_set):
            return None
        from providers.transport import Link

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
