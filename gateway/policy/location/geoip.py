"""The signal `geoip`: the country of the client's address, from a database."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import Address, AddressReport, Evidence, Question, Reports
from gateway.model.location_rules import LocationRules
from gateway.model.section import PlainSection, key, section
from gateway.model.units import AgeSeconds
from gateway.policy.location.client_address import address_headers, client_address
from gateway.policy.location.signal import (
    OwnSection,
    Reading,
    SectionReader,
    Signal,
    absolute_path,
    read_territory,
    shown,
)
from gateway.policy.location.trusted_edge import SignalInput
from providers.value import replace

_DAY_S = 86_400.0


@section
class GeoIpRules(PlainSection):
    """A database of addresses, a MaxMind DB file (.mmdb)."""

    path: str = key("The file, relative to this one. It is opened again after it is replaced.")
    max_age_s: AgeSeconds = key(
        "A database older than this by its build date is not used.", default=30 * _DAY_S, name="max_age", written="30d"
    )


@dataclass(frozen=True, slots=True)
class AddressQuestion(Question):
    """An address that still has to be looked up."""

    address: Address


def _compiled(section: GeoIpRules, reader: SectionReader) -> GeoIpRules:
    path = absolute_path(section.path, reader.folder)
    state = reader.file(path) if path is not None else None
    if path is None:
        hint = "such as /var/lib/GeoIP/GeoLite2-Country.mmdb"
        if "://" in section.path:
            hint = f"nothing is downloaded: keep a file up to date on this machine, {hint}"
        reader.error("path", "must be the path of a file", hint)
        return section
    if state is not None and state.problem:
        reader.warn("path", f"the file {state.problem}", "`geoip` gives no result until it can be read")
    elif state is not None and state.age_s > section.max_age_s:
        message = f"the database is {state.age_s / _DAY_S:.0f} days old by its build date, more than `max_age`"
        reader.warn("path", message, "`geoip` gives no result until a newer database is installed")
    elif state is not None and state.age_s < -_DAY_S:
        message = f"the build date of the database is {-state.age_s / _DAY_S:.0f} days in the future"
        reader.warn("path", message, "check the clock of this machine: `geoip` gives no result until that day")
    return replace(section, path=path)


def _report(rules: LocationRules, given: SignalInput) -> AddressQuestion | AddressReport:
    address = client_address(rules, given)
    return address if isinstance(address, AddressReport) else AddressQuestion(address)


def _read(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("geoip")
    if report is None:
        return None
    if not isinstance(report, AddressReport):
        raise TypeError("the address has not been looked up yet")
    if report.doubtful or report.hidden or not report.country:
        evidence = Evidence("geoip", shown((report.country,)), note=report.note)
        return Reading(evidence, unknown=report.hidden, doubtful=report.doubtful)
    return read_territory(config, "geoip", (report.country,), (report.part,))


GEOIP = Signal(
    "geoip",
    _report,
    _read,
    headers=address_headers,
    can_locate=lambda config: config.location.rules.of(GeoIpRules) is not None,
    section="geoip",
    settings=OwnSection(
        GeoIpRules,
        "The database that gives the country of an IP address.",
        GeoIpRules,
        _compiled,
        file_key="path",
        is_relative=True,
    ),
    reads_edges=True,
    needs_lookup=True,
    source="a database of IP addresses",
    use="no proxy in front of the gateway knows the country",
)
