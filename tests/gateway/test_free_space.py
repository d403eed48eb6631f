"""The bounds of the free space of the state directory, where it is measured."""

from pathlib import Path

from gateway.free_space import FreeSpace, free_space_of, is_reserved
from tests.kit.case_files import cases

MB = 1024**2


@cases("free_mb", "total_mb", "is_little", "is_left_to_rows")
def test_bounds(free_mb: int, total_mb: int, is_little: bool, is_left_to_rows: bool) -> None:
    space = FreeSpace(free_mb * MB, total_mb * MB)
    assert (space.is_little, space.is_reserved) == (is_little, is_left_to_rows)


def test_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    space = free_space_of(tmp_path)
    assert 0 <= space.free <= space.total
    assert free_space_of(tmp_path / "none") is None
    assert not is_reserved(tmp_path / "none"), "what is not known stops nothing"


def test_words() -> None:
    assert str(FreeSpace(12 * MB, 40 * 1024 * MB)) == "12 MB of 40.0 GB free"
