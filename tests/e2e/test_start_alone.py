"""A start without a network: no name is looked up, and no file is written outside the state directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kit.doc_pages import ROOT
from tests.kit.start_alone import assert_starts_alone

pytestmark = pytest.mark.slow("starts gateways in a namespace")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_looks_up_no_name_and_writes_into_the_state_directory_only(workers: str, tmp_path: Path) -> None:
    assert_starts_alone(sys.executable, tmp_path, ROOT / "config/gateway.yaml", workers, path=str(ROOT))
