"""A plug-in that was written for the modules of an earlier release passes the kit unchanged, with a warning."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

FIXTURE = Path(__file__).parents[1] / "fixtures" / "old_imports"
SUBJECT = ("--adapter", "parrot:ADAPTER", "--dialect", "parrot_simulator:DIALECT")
ALIASES = (
    *("assembly", "classify", "fitting", "folding", "phrases", "rate_limits", "stops", "streaming", "adapters.rows"),
    *("simulator", "simulator.dialect", "simulator.pieces", "simulator.rows", "simulator.server"),
)


def test_plug_in_with_old_imports_passes_the_kit() -> None:
    kit = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command = [*kit, "--rootdir", str(FIXTURE), "--pyargs", "providers.conformance", *SUBJECT]
    done = subprocess.run(command, cwd=FIXTURE, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.filterwarnings("always::DeprecationWarning")
@pytest.mark.parametrize("name", ALIASES)
def test_old_import_path_warns_and_has_every_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"providers.{name}", raising=False)
    with pytest.warns(DeprecationWarning, match=rf"providers\.{name} is deprecated"):
        module = import_module(f"providers.{name}")
    assert [one for one in module.__all__ if not hasattr(module, one)] == []
