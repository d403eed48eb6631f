"""Every installed dependency of the gateway has a permissive licence."""

from __future__ import annotations

import re

from scripts.licences import dependencies, licence_of

FREE = {"Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "OLDAP-2.8", "PSF-2.0"}


def test_every_dependency_has_an_allowed_licence() -> None:
    names = list(dependencies())
    assert len(names) > 20
    for name in names:
        words = set(re.findall(r"[A-Za-z0-9.-]+", licence_of(name))) - {"AND", "OR"}
        assert words
        assert words <= FREE, name
