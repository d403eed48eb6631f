"""Every case from the field gives its client the right result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.field.field_cases import Case, field_cases, mistakes_of


@pytest.mark.parametrize("case", field_cases(), ids=str)
def test_case_gives_the_wanted_result(case: Case, tmp_path: Path) -> None:
    mistakes = mistakes_of(case, tmp_path)
    if later := case.data.get("waits_for"):
        assert mistakes, f"the case gives the wanted result now: remove `waits_for: {later}`"
        pytest.xfail(f"{later}: {mistakes[0]}")
    assert not mistakes, "\n".join(mistakes)
