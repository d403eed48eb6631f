"""How connections are made: contexts of verified TLS, an operator's own authorities and certificates, a proxy."""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache

import certifi


@dataclass(frozen=True, slots=True)
class Link:
    """How connections to an origin are made. Two requests share a connection only if their links are equal."""

    ca: str = field(default="", repr=False)
    """The authorities to trust instead of the public authorities, as PEM, or empty."""
    certificate: str = field(default="", repr=False)
    """The client's certificate with its chain, as PEM, or empty."""
    key: str = field(default="", repr=False)
    """The private key of the certificate, as PEM without a passphrase."""
    proxy: str = ""
    """The origin of the HTTP proxy to which connections are made in place of the origin, or empty."""
    authorization: str = field(default="", repr=False)
    """The value of `proxy-authorization`, or empty."""
    is_remote: bool = False
    """No connection is made to an address of this machine or of its link."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for TLS with the origin, or None for the usual one. Raises ssl.SSLError for files of no use."""
        return _context(self.ca, self.certificate, self.key) if self.ca or self.certificate else None

    @property
    def proxy_tls(self) -> ssl.SSLContext | None:
        """The context for TLS with an https:// proxy, which a public authority or one of `ca` may have signed."""
        return _proxy_context(self.ca) if self.proxy.startswith("https://") else None


Key = str | tuple[str, Link]
"""An origin, with its link if it has one: requests with the same key may share a connection."""


def tls_context(authorities: str = "") -> ssl.SSLContext:
    """Return a context for verified TLS with the authorities, as PEM, or with Mozilla's root certificates (certifi).

    It is built here, because `ssl.create_default_context` writes the session keys of every connection to the file that
    the environment names in SSLKEYLOGFILE.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # requires a certificate with the name of the host
    if sys.version_info >= (3, 13):  # as in a default context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    if authorities:
        # Many authorities of companies lack an extension that the strict form of RFC 5280 requires.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=authorities)
    else:
        context.load_verify_locations(certifi.where())
    # Debian's Python, for one, leaves this to OpenSSL, whose configuration may require more.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_alpn_protocols(["http/1.1"])
    return context


@lru_cache(maxsize=64)
def _context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return a context that is built once, because loading the public authorities takes 20 milliseconds."""
    context = tls_context(ca)
    if certificate:
        _load_chain(context, f"{certificate}\n{key}".encode())
    return context


@lru_cache(maxsize=64)
def _proxy_context(ca: str) -> ssl.SSLContext:
    context = tls_context()
    if ca:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=ca)
    return context


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a certificate and its key. The `ssl` module reads files only, and a key must not be left on a disk."""
    is_linux = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("pem"), "wb") if is_linux else tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        # Without the password, OpenSSL would ask for that of an encrypted key on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}" if is_linux else file.name, password="")
