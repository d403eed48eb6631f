"""Generate the page of metrics from their definitions."""

from __future__ import annotations

from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS

_HEAD = """\
# Metrics

All metrics of the gateway. [Metrics and alerts](../operate/metrics.md) explains how to scrape them, what
[the labels](../operate/metrics.md#labels) contain, and has useful queries and alerts.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def metrics_page() -> str:
    """Return docs/reference/metrics.md."""
    return _HEAD + "".join(
        f"| `{name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |\n"
        for name, metric in METRIC_DEFINITIONS.items()
    )
