"""Compile the shares of log lines and receipts that are kept, and report their errors."""

import pytest

from gateway.changes.plan import changed_values, plan_of
from gateway.config.check_report import render_matrix
from tests.kit.config_cases import compiled, marked, rejected, sections
from tests.kit.configs import BASE, table_of


def test_default_keeps_every_log_line_and_every_receipt() -> None:
    config = compiled(sections()).config
    assert (config.log.sample, config.receipts.sample, config.receipts.keep_s) == (1.0, 1.0, 30 * 86_400)
    assert ".sample" not in render_matrix(config)


@pytest.mark.parametrize(
    ("written", "share"),
    [("1", 1.0), ("1.0", 1.0), ("100%", 1.0), ("0.1", 0.1), ("10%", 0.1), ("0.5%", 0.005), ("1e-6", 0.000001)],
)
def test_sample_is_a_number_or_a_percentage(written: str, share: float) -> None:
    config = compiled(sections(receipts=f"receipts: {{sample: {written}}}", log=f"log: {{sample: {written}}}")).config
    assert (config.log.sample, config.receipts.sample) == (share, share)


@pytest.mark.parametrize("section", ["log", "receipts"])
@pytest.mark.parametrize(
    "written",
    ["2", "0", "0.0", "yes", "1e-400", "1e-7", "-1", ".nan", ".inf", "true", "0%", "101%", "10 %", "'0.1'", "1.01"],
)
def test_invalid_sample_is_an_error_that_shows_how_to_write_it(section: str, written: str) -> None:
    text, places = marked(sections(**{section: f"{section}: {{sample: ▸{written}}}"}))
    (problem,) = rejected(text)
    assert str(problem) == (
        f"gateway.yaml:{places[0][0]}:{places[0][1]}: {section}.sample: must be a share from 0.000001 to 1, or a "
        "percentage; write 0.1 or 10% to keep one of ten, or 1 to keep all"
    )


def test_check_and_plan_show_the_samples() -> None:
    before, after = (BASE.merge(f"log: {{sample: {share}}}", "receipts: {keep: 90d}") for share in ("1", "0.1"))
    after = after.merge("receipts: {sample: 25%}")
    report = " ".join(render_matrix(table_of(after)).split())
    assert "log.sample: log lines are kept for 10% of the successful requests, and for all others" in report
    assert "receipts.sample: receipts are kept for 25% of the successful requests" in report
    plan = plan_of(table_of(before), table_of(after), tuple(changed_values(before.data, after.data)))
    assert plan.sections == ("receipts", "log")
    changes = {change.what: (change.before, change.after) for change in plan.values}
    assert changes == {"log.sample": ("1", "0.1"), "receipts.sample": ("not set", "25%")}
