"""Nothing is installed with a gateway under a licence that its operator would have to ask a lawyer about."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
LICENCES = runpy.run_path(str(ROOT / "scripts" / "licences.py"))
FREE = {"Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}


def test_every_dependency_is_free_and_told() -> None:
    assert (ROOT / "docs" / "licences.md").read_text("utf-8") == LICENCES["page"]()
    names = list(LICENCES["dependencies"]())
    assert len(names) > 20
    for name in names:
        words = set(re.findall(r"[A-Za-z0-9.-]+", LICENCES["licence_of"](name))) - {"AND", "OR"}
        assert words
        assert words <= FREE, name
