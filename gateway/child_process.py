"""The command and the environment of every child process of ours."""

from __future__ import annotations

import os
import sys


def child_command(module: str, *words: str) -> list[str]:
    """Return the command that runs a module of ours in a child process.

    With `-P`, the child does not import from the current directory, which may contain files of others. It is optimised
    (`-O`) as this process is.
    """
    return [sys.executable, *["-O"] * sys.flags.optimize, "-P", "-m", module, *words]


def child_environment() -> dict[str, str]:
    """Return an environment in which a child imports from its parent's paths, and never from the current directory."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
