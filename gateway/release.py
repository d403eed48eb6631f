"""The release of this gateway, and the commit of a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gateway import __version__

_ROOT = Path(__file__).parents[1]
_SHOWN = 12  # characters of a commit


@cache
def release_name() -> str:
    """Return the version, such as `0.2.0`; in a checkout with the commit: `0.2.0 (commit 1a2b3c4d5e6f)`."""
    commit = commit_of(_ROOT)
    return __version__ if commit is None else f"{__version__} (commit {commit[:_SHOWN]})"


def commit_of(checkout: Path) -> str | None:
    """Return the commit that a Git checkout is at, or None if this is not a checkout.

    The files are read instead of asking `git`, because a container often has the checkout without the program.
    """
    try:
        git = checkout / ".git"
        if git.is_file():  # a worktree: the file names its directory, which names the common one
            git = checkout / git.read_text("utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref:"):
            return head
        ref = head.removeprefix("ref:").strip()
        common = git / (git / "commondir").read_text("utf-8").strip() if (git / "commondir").exists() else git
        if (common / ref).exists():
            return (common / ref).read_text("utf-8").strip()
        packed = (line.split() for line in (common / "packed-refs").read_text("utf-8").splitlines())
        return next((words[0] for words in packed if words[1:] == [ref]), None)
    except (OSError, UnicodeDecodeError):
        return None
