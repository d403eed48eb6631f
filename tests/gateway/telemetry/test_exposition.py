"""The metrics text of a gateway can be read back, for the share of traffic in a plan."""

import pytest

from gateway.telemetry.exposition import read_requests, render
from gateway.telemetry.metrics import Metrics
from tests.kit.request_records import answered


def test_requests_are_read_back_by_assistant_and_region() -> None:
    counted = Metrics()
    for _ in range(3):
        counted.observe(answered())
    text = render(counted.snapshot())[0].decode()
    assert read_requests(text) == {("assistant", "eu"): 3.0}
    assert read_requests("") == {}
    with pytest.raises(ValueError, match=r".+"):
        read_requests("<html><body>no metrics</body></html>")
