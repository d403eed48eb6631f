"""A database of addresses (MaxMind DB file format 2.0), held in memory whole.

A file that is replaced or cut while it is in use can't harm a process that has read it.
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
# What a reader raises on a file whose parts point astray; a whole file raises none of them.
_BROKEN = (maxminddb.InvalidDatabaseError, ValueError, TypeError, LookupError, RecursionError, OverflowError)
# Members of `traits` that say that somebody hides behind the address (MaxMind, "GeoIP2 and GeoLite2 Web Services").
_HIDING = ("is_anonymous", "is_anonymous_proxy", "is_anonymous_vpn", "is_public_proxy", "is_tor_exit_node")


class GeoIpError(Exception):
    """The file is no database of addresses; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class GeoIpFile:
    """One reading of the file. identity: what the file system says of it; built_at: its own date, Unix time."""

    identity: tuple[int, ...]
    built_at: float
    _reader: maxminddb.Reader = field(repr=False)
    _remembered: dict[IPv4Address | IPv6Address, AddressReport] = field(default_factory=dict, repr=False)

    def lookup(self, address: IPv4Address | IPv6Address) -> AddressReport:
        """The country of a public address, and the part of it if the file has it."""
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
    """The database in a file, the same again if the file hasn't changed; raises GeoIpError. Blocks while it reads."""
    try:
        with open_file(path) as file:
            found = os.fstat(file.fileno())
            identity = _identity(found)
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


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _open(data: bytes, identity: tuple[int, ...]) -> GeoIpFile:
    try:
        reader = maxminddb.open_database(io.BytesIO(data), maxminddb.MODE_FD)
        built_at = float(reader.metadata().build_epoch)
    except _BROKEN:
        raise GeoIpError("is no MaxMind database, or a broken one") from None
    return GeoIpFile(identity, built_at, reader)


def _report(record: object) -> AddressReport:
    """The country where the address is, not where its network is registered (MaxMind, "GeoIP2 Country database")."""
    if not isinstance(record, dict):
        return AddressReport(note="silent: the database doesn't know the address")
    traits = record.get("traits")
    if isinstance(traits, dict) and any(traits.get(name) is True for name in _HIDING):
        return AddressReport(note="hidden: Tor, or an anonymous proxy; no territory", hidden=True)
    country = _code(record.get("country"))
    parts = record.get("subdivisions")
    part = _code(parts[0]) if isinstance(parts, list) and parts else ""
    if not country:
        return AddressReport(note="silent: the database doesn't know the country")
    return AddressReport(country, part)


def _code(place: object) -> str:
    code = place.get("iso_code") if isinstance(place, dict) else None
    return code if isinstance(code, str) else ""
