"""`gateway duties report`: counts of duties of a state directory, and of a running gateway."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.usage.duty_counts import DutyKey, SourceCounts, encode_key
from gateway.usage.ledger import Ledger, ledger_file
from tests.cli.conftest import Command
from tests.cli.recorded_versions import add_version
from tests.kit.configs import BASE

KEY = DutyKey("2027-03", "us-wa", "US-WA", "tutor", "child", "crisis")
YEAR = ("--from", "2027-01", "--to", "2027-12")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    counts = {KEY: 4, KEY._replace(month="2027-11"): 3, KEY._replace(region="eu", territory="", age_band=""): 12}
    with closing(Ledger(ledger_file(tmp_path / "state"), lambda: UTC)) as ledger:
        ledger.keep_duties(SourceCounts("one", [(encode_key(key), number) for key, number in counts.items()]))
    return tmp_path / "state"


def test_report_of_a_year_in_each_form(gateway: Command, state: Path) -> None:
    shown = gateway("duties", "report", *YEAR, "--by", "year", "--state", state, "--json")
    assert (shown.status, shown.err) == (0, "")
    of_wa = {
        "year": "2027", "region": "us-wa", "territory": "US-WA", "assistant": "tutor", "age_band": "child",
        "kind": "crisis", "count": 7,
    }  # fmt: skip
    of_eu = {**of_wa, "region": "eu", "territory": None, "age_band": None, "count": 12}
    assert json.loads(shown.out) == {"object": "duties.report", "rows": [of_eu, of_wa]}
    lines = gateway("duties", "report", *YEAR, "--state", state, "--least", 5, "--csv").out
    assert [row["count"] for row in csv.DictReader(io.StringIO(lines))] == ["12", "<5", "<5"]
    assert lines.startswith("month,region,territory,assistant,age_band,kind,count\n2027-03,eu,,tutor,,crisis,12\n")
    text = gateway(
        "duties", "report", "--from", "2027-03", "--to", "2027-10", "--region", "us-wa", "--state", state
    ).out
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["month", "region", "territory", "assistant", "age_band", "kind", "count"],
        [*KEY, "4"],
    ]
    this = gateway("duties", "report", "--state", state).out.splitlines()[0]
    assert this == f"duties of {datetime.now(UTC):%Y-%m} to {datetime.now(UTC):%Y-%m}"
    assert "duties of 2027-03 to 2027-03\n" in gateway("duties", "report", "--to", "2027-03", "--state", state).out
    none = gateway("duties", "report", "--from", "2026-01", "--to", "2026-12", "--state", state)
    assert (none.status, none.out) == (0, "duties of 2026-01 to 2026-12\n\nnothing was counted\n")


def test_wrong_options_end_with_status_2(gateway: Command, state: Path, tmp_path: Path) -> None:
    backwards = gateway("duties", "report", "--from", "2027-12", "--to", "2027-01", "--state", state)
    assert backwards.status == 2
    assert "--to 2027-01 is before --from 2027-12" in backwards.err
    misspelt = gateway("duties", "report", *YEAR, "--state", state, "--region", "us-va")
    assert misspelt.status == 2
    assert "--region: unknown region 'us-va'; did you mean 'us-wa'?" in misspelt.err
    nowhere = gateway("duties", "report", *YEAR, "--state", tmp_path / "none")
    assert nowhere.status == 2
    assert "none" in nowhere.err


def test_a_region_without_counts_is_known_from_the_configuration(gateway: Command, state: Path, tmp_path: Path) -> None:
    add_version(state, BASE, "2027-01-01", "ada", "")
    (tmp_path / "gateway.yaml").write_text(BASE.text)
    for options in (), ("--config", tmp_path / "gateway.yaml"):
        shown = gateway("duties", "report", *YEAR, "--state", state, "--region", "cn", *options)
        assert (shown.status, shown.out.splitlines()[-1]) == (0, "nothing was counted"), shown.err
    other_year = gateway("duties", "report", "--from", "2020-01", "--to", "2020-12", "--state", state, "--region", "eu")
    assert (other_year.status, other_year.out.splitlines()[-1]) == (0, "nothing was counted")
