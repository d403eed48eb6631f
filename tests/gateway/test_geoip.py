"""The database of addresses: known and unknown addresses, and files that are not databases."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.geoip import GeoIpError, GeoIpFile, read_geoip
from gateway.model.location import AddressReport
from tests.kit.case_files import cases
from tests.kit.example_counts import examples
from tests.kit.mmdb import country, mmdb

GOOD = mmdb()


def database(folder: Path, data: bytes = GOOD) -> GeoIpFile:
    path = folder / "world.mmdb"
    path.write_bytes(data)
    return read_geoip(str(path))


@pytest.mark.parametrize(
    ("address", "report"),
    [
        ("1.2.3.4", AddressReport("CN")),
        ("2.255.255.255", AddressReport("DE")),
        ("3.2.0.1", AddressReport("US")),
        ("3.1.0.1", AddressReport("US", "CA")),
        ("6.43.1.1", AddressReport("UA", "43")),
        ("9.1.1.1", AddressReport("EU")),
        ("11.1.1.1", AddressReport("A1")),
        ("2a00:1::1", AddressReport("DE")),
        ("2a00:2:ffff::", AddressReport("CN")),
    ],
)
def test_address_has_its_country(tmp_path: Path, address: str, report: AddressReport) -> None:
    file = database(tmp_path)
    assert file.lookup(ip_address(address)) == report
    assert file.lookup(ip_address(address)) is file.lookup(ip_address(address))


@cases("address")
def test_reserved_address_has_no_country(tmp_path: Path, address: str) -> None:
    file = database(tmp_path, mmdb({"0.0.0.0/1": country("CN"), "128.0.0.0/1": country("CN"), "::/1": country("CN")}))
    report = file.lookup(ip_address(address))
    assert report == AddressReport(note="silent: a private or reserved address")


def test_unknown_address_is_silent(tmp_path: Path) -> None:
    file = database(tmp_path)
    for address in ("99.1.1.1", "8.8.8.8", "12.1.1.1", "2a00:3::1"):
        report = file.lookup(ip_address(address))
        assert (report.country, report.hidden, report.doubtful) == ("", False, False)
        assert report.note.startswith("silent: ")
    only_v4 = database(tmp_path, mmdb({"1.0.0.0/8": country("CN")}, ip_version=4))
    assert only_v4.lookup(ip_address("1.1.1.1")) == AddressReport("CN")
    assert only_v4.lookup(ip_address("2a00:1::1")).note == "silent: the database has no IPv6 addresses"


def test_anonymizing_address_is_hidden(tmp_path: Path) -> None:
    report = database(tmp_path).lookup(ip_address("7.7.7.7"))
    assert (report.country, report.hidden) == ("", True)


@pytest.mark.parametrize("record", [{"country": "DE"}, {"country": {"iso_code": 49}}, {"country": []}, {}, "DE"])
def test_record_of_another_form_is_silent(tmp_path: Path, record: object) -> None:
    report = database(tmp_path, mmdb({"1.0.0.0/8": record})).lookup(ip_address("1.1.1.1"))
    assert report.country == ""
    assert report.note.startswith("silent: ")


def test_build_date_is_read_and_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    first = database(tmp_path, mmdb(built_at=1_700_000_000))
    path = str(tmp_path / "world.mmdb")
    assert first.built_at == 1_700_000_000
    assert read_geoip(path, first) is first
    replacement = tmp_path / "new.mmdb"
    replacement.write_bytes(mmdb({"1.0.0.0/8": country("FR")}, built_at=1_700_000_001))
    os.replace(replacement, path)
    second = read_geoip(path, first)
    assert second.lookup(ip_address("1.1.1.1")) == AddressReport("FR")
    assert first.lookup(ip_address("1.1.1.1")) == AddressReport("CN")


def test_file_truncated_during_use_has_no_effect(tmp_path: Path) -> None:
    file = database(tmp_path)
    os.truncate(tmp_path / "world.mmdb", 10)
    assert file.lookup(ip_address("3.1.0.1")) == AddressReport("US", "CA")


def test_invalid_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeoIpError, match=r"can't be read \(No such file"):
        read_geoip(str(tmp_path / "nothing"))
    with pytest.raises(GeoIpError, match=r"is not a regular file|Is a directory"):
        read_geoip(str(tmp_path))
    for data in (b"", b"nonsense", GOOD[:-10], GOOD[:100], b"\xab\xcd\xefMaxMind.com" + b"\xe0" * 10):
        with pytest.raises(GeoIpError, match="not a MaxMind database, or is damaged"):
            database(tmp_path, data)


@given(
    spots=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    address=st.ip_addresses(),
)
@settings(max_examples=examples(300), deadline=None)
def test_damaged_file_raises_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, spots: list[tuple[int, int]], address: object
) -> None:
    data = bytearray(GOOD)
    for index, value in spots:
        data[index] = value
    try:
        file = database(tmp_path_factory.getbasetemp(), bytes(data))
    except GeoIpError:
        return
    for each in (address, ip_address("3.1.0.1"), ip_address("2a00:1::1")):
        assert isinstance(file.lookup(each), AddressReport)  # type: ignore[arg-type]
