"""The definitions of all metrics: name, type, labels and help text.

They are in `metrics.json`, and those of a feature in its `public_names.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from gateway.model.schedule import VARIANT_BOUNDS_S
from gateway.public_names import with_rows_of_features
from providers.value import Value

_FILE = Path(__file__).with_name("metrics.json")
Kind = Literal["counter", "gauge", "histogram"]

# fmt: off
REQUEST_BOUNDS_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
)
FIRST_TOKEN_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0,
)
# fmt: on
OVERHEAD_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_BOUNDS_S: Mapping[str, tuple[float, ...]] = {
    "request": REQUEST_BOUNDS_S,
    "first_token": FIRST_TOKEN_BOUNDS_S,
    "overhead": OVERHEAD_BOUNDS_S,
    "variant": VARIANT_BOUNDS_S,
}
"""The bucket bounds of histograms, by the word of `bounds` in the file."""


class MetricDefinition(Value, frozen=True):
    """One metric."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    """In the order in which a series has their values. An empty value means unknown or not applicable."""
    bounds_s: tuple[float, ...] = ()
    """The bucket bounds of a histogram, without infinity."""
    per: int = 1
    """Processes count in whole numbers of this part: 1,000,000 for millionths."""

    @property
    def width(self) -> int:
        """The number of values in a series: one, or a histogram's buckets and its sum (in microseconds)."""
        return len(self.bounds_s) + 2 if self.bounds_s else 1


def _definition(kind: Kind, help: str, labels: Iterable[str] = (), bounds: str = "", per: int = 1) -> MetricDefinition:
    """Return the definition that the members of an entry describe."""
    return MetricDefinition(kind, help, tuple(labels), _BOUNDS_S[bounds] if bounds else (), per)


METRIC_DEFINITIONS: Mapping[str, MetricDefinition] = {
    name: _definition(**entry)
    for name, entry in with_rows_of_features("metrics", json.loads(_FILE.read_text("utf-8"))).items()
}
