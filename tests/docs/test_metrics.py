"""The documented metrics are those of the code, and every query and alert uses existing ones."""

from __future__ import annotations

import re

import pytest
import yaml

from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS
from providers.failures import FailureKind
from tests.kit.doc_pages import ROOT

METRICS = ROOT / "docs" / "operate" / "metrics.md"
TRACES = ROOT / "docs" / "operate" / "traces.md"
OUTCOMES = {"ok", "refused", "failed", "interrupted", "cancelled", "internal_error"}


def queries() -> list[str]:
    return [row[1].strip("`").replace("\\|", "|") for row in split_rows("| question | PromQL")]


def test_page_lists_each_alert_with_its_severity() -> None:
    rules = yaml.safe_load((ROOT / "deploy/helm/assistant-gateway/rules.yml").read_text("utf-8"))["groups"][0]["rules"]
    rows = {name: row[1] for row in split_rows("| alert | severity") for name in re.findall(r"`(\w+)`", row[0])}
    assert rows == {rule["alert"]: rule["labels"]["severity"] for rule in rules}


def split_rows(header: str) -> list[list[str]]:
    """Return rows whose cells may have an escaped bar."""
    lines = METRICS.read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return rows


@pytest.mark.parametrize("query", queries())
def test_queries_use_existing_metrics_labels_and_values(query: str) -> None:
    names = re.findall(r"gateway_\w+", query)
    assert names
    labels: set[str] = {"le"}
    for name in names:
        base = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        assert base in METRIC_DEFINITIONS, name
        assert (base == name) == (METRIC_DEFINITIONS[base].kind != "histogram"), name
        labels |= set(METRIC_DEFINITIONS[base].labels)
    grouped = re.findall(r"(?:by|ignoring) ?\(([^)]*)\)", query)
    used = {word.strip() for some in grouped for word in some.split(",")}
    used |= set(re.findall(r"[{,]\s*(\w+)=", query)) | set(re.findall(r"\$labels\.(\w+)", query))
    assert used <= labels
    for values in re.findall(r'outcome=~?"([^"]*)"', query):
        assert set(values.split("|")) <= OUTCOMES | set(FailureKind)


def test_metrics_are_those_that_the_code_counts() -> None:
    """A name whose parts are put together in the code has a pattern of its own here."""
    sources = [path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'"(gateway_\w+)"', text)}
    counted = {name for name in named if name.endswith(("_total", "_seconds"))}
    assert counted <= {*METRIC_DEFINITIONS}, "gateway/telemetry/metrics.json"
    put_together = {name for name in METRIC_DEFINITIONS if name.endswith("_days_left")}
    assert {*METRIC_DEFINITIONS} - named - put_together == set()


def test_page_lists_the_outcomes_of_a_request() -> None:
    text = METRICS.read_text("utf-8").split("- `outcome` of a request:")[1].split("- `outcome`")[0]
    assert set(re.findall(r"`(\w+)`", text.partition("`code`")[0])) == OUTCOMES


def test_span_attributes_are_those_of_the_code() -> None:
    source = (ROOT / "gateway" / "telemetry" / "otlp.py").read_text("utf-8")
    traces = TRACES.read_text("utf-8").split("## Traces")[1].split("\n## ")[0]
    documented = set(re.findall(r"`((?:gen_ai|gateway)\.[\w.]+|error\.type)`", traces))
    assert documented
    assert {name for name in documented if f'"{name}"' not in source} == set()
    assert set(re.findall(r"\"(gateway\.\w+)\"", source)) - documented == set()


def test_trace_limits_are_those_of_the_code() -> None:
    from gateway.telemetry import trace_export

    traces = TRACES.read_text("utf-8").split("## Delivery")[1].split("\n## ")[0]
    assert f"every {trace_export._GATHER_S:g} s or {trace_export._MOST_IN_BATCH} requests" in traces
    assert f"within {trace_export._CLOSE_S:g} s" in traces
    assert f"at most {trace_export._MOST_QUEUED:,} requests wait" in traces
    assert trace_export._TRIES == 3
