"""What the person at the terminal is told where something can't run like that, and how a file becomes a table there.

Heavy imports stand inside the functions: a command imports what it needs, and `--help` nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from errno import ENOSPC, EPIPE
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.files import is_there

if TYPE_CHECKING:
    from gateway.config.compile import Compiled
    from gateway.config.problems import Problem

__all__ = ["CommandError", "compile_file", "expect_file", "open_streams", "rejected", "told_no_more"]

_STDERR = 2


class CommandError(Exception):
    """The command can't be run like that; the person at the terminal is told how to mend it."""

    status = 2

    @property
    def shown(self) -> str:
        """What is printed."""
        return f"gateway: {self}"


class _Rejected(CommandError):
    """The config is wrong; every problem is told at its place in the file."""

    status = 1

    @property
    def shown(self) -> str:
        return str(self)


def compile_file(
    path: Path,
    *,
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
    resolve_secrets: bool = True,
) -> Compiled:
    """The compiled config; raises CommandError for one that isn't there or can't be used."""
    from gateway.config.compile import compile_config
    from gateway.config.load import load_document
    from gateway.config.problems import ConfigRejected
    from providers.registry import load_registry

    expect_file(path)
    try:
        document = load_document(path, os.environ, secrets=resolve_secrets)
        return compile_config(document, registry=load_registry(), simulators=simulators, demo=demo)
    except ConfigRejected as error:
        raise rejected(error.problems) from None


def expect_file(path: Path) -> None:
    """Raises CommandError where there is no such config."""
    if not is_there(path):
        raise CommandError(f"there is no config at {path}; `gateway init` writes one, `gateway demo` needs none")


def rejected(problems: tuple[Problem, ...]) -> CommandError:
    """What is told of a config with these problems."""
    from gateway.config.report import render_problems

    return _Rejected(render_problems(problems))


def open_streams() -> None:
    """See to it that whatever is printed can be: into streams that were closed (`>&-`), and in any script.

    A file or a pipe gets UTF-8, which is what we read too; a terminal what it can show.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)  # or the next file that is opened would be taken for the stream
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # it is for the whole process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")


def told_no_more(error: OSError) -> int:
    """The exit status where standard output takes no more; any other error is raised again."""
    if error.errno not in (EPIPE, ENOSPC):
        raise error
    # Nothing more can be written, not even by the interpreter at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == EPIPE:  # who reads has seen enough (`| head`)
        return 0
    print("gateway: the disk is full: not all was written; make room, and run it again", file=sys.stderr)
    return CommandError.status
