"""Every list of rows in a file of cases is the table of a test."""

import re
from pathlib import Path

import pytest
from tests.providers.case_files import rows_in

TESTS = Path(__file__).parent.parent
FILES = sorted(path.relative_to(TESTS) for path in TESTS.glob("**/cases/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_list_of_rows_belongs_to_a_test(file: Path) -> None:
    module = TESTS / file.parent.parent / f"test_{file.stem}.py"
    users = re.findall(r"^@cases\(.*\n(?:@.*\n)*def test_(\w+)", module.read_text("utf-8"), re.MULTILINE)
    assert set(rows_in(TESTS / file)) == set(users)
