"""Which files with a key are open to other users."""

import os

import pytest

from gateway.files import is_open_to_others
from tests.kit.case_files import cases


@cases("owner", "user", "mode", "is_open")
def test_group_may_read_a_file_of_root_and_no_other(
    owner: int, user: int, mode: int, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    status = os.stat_result((0o100000 | mode, 1, 1, 1, owner, 10001, 1, 0, 0, 0))
    assert is_open_to_others(status) is is_open
