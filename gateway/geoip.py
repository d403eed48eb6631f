"""Look up the country of an IP address in a MaxMind DB file (format 2.0), which is read into memory.

Because the whole file is in memory, a process is not affected if the file is replaced or truncated later.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import maxminddb

from gateway.files import open_file
from gateway.model.location import AddressReport

_MAX_BYTES = 1024 * 1024 * 1024
_REMEMBERED = 16_384
# Exceptions that the reader raises if offsets in the file are wrong. An intact file raises none of them.
_BROKEN = (maxminddb.InvalidDatabaseError, ValueError, TypeError, LookupError, RecursionError, OverflowError)
# Members of `traits` that mark an address as an anonymizer's (MaxMind, "GeoIP2 and GeoLite2 Web Services").
_HIDING = ("is_anonymous", "is_anonymous_proxy", "is_anonymous_vpn", "is_public_proxy", "is_tor_exit_node")


class GeoIpError(Exception):
    """The file is not a usable database of addresses. The message gives the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class GeoIpFile:
    """The content of one version of the file."""

    identity: tuple[int, ...]
    """Device, inode, size and modification time of the file."""
    built_at: float
    """The build time that the file states, as Unix time."""
    _reader: maxminddb.Reader = field(repr=False)
    _remembered: dict[IPv4Address | IPv6Address, AddressReport] = field(default_factory=dict, repr=False)

    def lookup(self, address: IPv4Address | IPv6Address) -> AddressReport:
        """Return the country of a public address, and its subdivision if the file has one."""
        known = self._remembered.get(address)
        if known is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            known = self._remembered[address] = self._look_up(address)
        return known

    def _look_up(self, address: IPv4Address | IPv6Address) -> AddressReport:
        if not address.is_global or address.is_multicast:
            return AddressReport(note="silent: a private or reserved address")
        if address.version == 6 and self._reader.metadata().ip_version == 4:
            return AddressReport(note="silent: the database has no IPv6 addresses")
        try:
            record = self._reader.get(address)
        except _BROKEN:
            return AddressReport(note="in doubt: the database is broken at this address", doubtful=True)
        return _report(record)


def read_geoip(path: str, held: GeoIpFile | None = None) -> GeoIpFile:
    """Return the database in a file, or `held` if the file has not changed. Blocks while it reads.

    Raises:
        GeoIpError: The file cannot be read, or is not a database of addresses.
    """
    try:
        with open_file(path) as file:
            identity = _identity(os.fstat(file.fileno()))
            if held is not None and held.identity == identity:
                return held
            data = file.read(_MAX_BYTES + 1)
            if _identity(os.fstat(file.fileno())) != identity:
                raise GeoIpError("is being written to")
    except OSError as error:
        raise GeoIpError(f"can't be read ({error.strerror})") from None
    if len(data) > _MAX_BYTES:
        raise GeoIpError(f"is larger than {_MAX_BYTES} bytes")
    return _open(data, identity)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _open(data: bytes, identity: tuple[int, ...]) -> GeoIpFile:
    try:
        reader = maxminddb.open_database(io.BytesIO(data), maxminddb.MODE_FD)
        built_at = float(reader.metadata().build_epoch)
    except _BROKEN:
        raise GeoIpError("is not a MaxMind database, or is damaged") from None
    return GeoIpFile(identity, built_at, reader)


def _report(record: object) -> AddressReport:
    """Return the country of the address itself, not of its network's registration (MaxMind, "GeoIP2 Country")."""
    if not isinstance(record, dict):
        return AddressReport(note="silent: the database does not have the address")
    traits = record.get("traits")
    if isinstance(traits, dict) and any(traits.get(name) is True for name in _HIDING):
        return AddressReport(note="hidden: Tor, or an anonymous proxy; no territory", hidden=True)
    country = _code(record.get("country"))
    parts = record.get("subdivisions")
    part = _code(parts[0]) if isinstance(parts, list) and parts else ""
    if not country:
        return AddressReport(note="silent: the database has no country for the address")
    return AddressReport(country, part)


def _code(entry: object) -> str:
    code = entry.get("iso_code") if isinstance(entry, dict) else None
    return code if isinstance(code, str) else ""
