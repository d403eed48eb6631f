"""The commit of a checkout, which `gateway --version` shows."""

import subprocess
from pathlib import Path

import pytest

from gateway.release import commit_of

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(["git", *AUTHOR, *words], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_of_a_branch_a_detached_head_a_packed_reference_and_a_worktree(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "checkout")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "first")
    first = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == first
    git(checkout, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "other"))
    git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "--message", "second")
    second = git(checkout, "rev-parse", "other")
    assert commit_of(tmp_path / "other") == second != first
    git(checkout, "pack-refs", "--all")
    assert [commit_of(path) for path in (checkout, tmp_path / "other")] == [first, second]
    git(checkout, "checkout", "--quiet", second)
    assert commit_of(checkout) == second


@pytest.mark.parametrize("head", [None, "ref: refs/heads/unborn", "\xff"], ids=["no checkout", "no commit", "damaged"])
def test_without_a_commit_there_is_none(tmp_path: Path, head: str | None) -> None:
    if head is not None:
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git/HEAD").write_text(head, "latin-1")
    assert commit_of(tmp_path) is None
