"""Functions that several commands share: standard streams, settings, compiling a config and writing new files."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date
from errno import ENOSPC, EPIPE
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.files import open_file
from gateway.operator_errors import CommandError, StateError, expect_file

if TYPE_CHECKING:
    from gateway.cli.admin_client import AdminClient
    from gateway.config.compile import Compiled
    from gateway.config.loading import Document
    from gateway.settings import Settings
    from gateway.state.history import History


_STDERR = 2
_SETTINGS = ("config", "host", "port", "admin_port", "workers", "state_dir")


def compile_file(
    path: Path, *, simulators: Mapping[tuple[str, str], str] | None = None, resolve_secrets: bool = True
) -> Compiled:
    """Compile a config file. Raises CommandError if the file is missing or the config has errors."""
    return compile_document(path, simulators=simulators, resolve_secrets=resolve_secrets)[1]


def compile_document(
    path: Path,
    *,
    simulators: Mapping[tuple[str, str], str] | None = None,
    resolve_secrets: bool = False,
    every_warning: bool = False,
    clock: Callable[[], float] = time.time,
) -> tuple[Document, Compiled]:
    """Return a config file as it was read and compiled at a moment (Unix time). Raises what `compile_file` raises."""
    from gateway.config.loading import load_document
    from gateway.config.problems import ConfigRejected
    from gateway.features.configuration import compile_config
    from providers.registry import load_registry

    expect_file(path)
    try:
        document = load_document(path, os.environ, secrets=resolve_secrets, clock=clock)
        return document, compile_config(document, registry=load_registry(), simulators=simulators)
    except ConfigRejected as error:
        from gateway.config.check_report import rejected_config

        raise rejected_config(error.problems, every_warning=every_warning) from None


def prepare_streams() -> None:
    """Open standard streams that the shell closed (`>&-`), and set the encoding of standard output.

    A file or a pipe gets UTF-8, the encoding of all files that the gateway reads. A terminal keeps its own encoding.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)  # otherwise the next opened file would get the descriptor of the stream
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # stays open
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")


def closed_output_status(error: OSError) -> int:
    """Return the exit status after a write to standard output failed. Raises any other error again."""
    if error.errno not in (EPIPE, ENOSPC):
        raise error
    # The interpreter flushes the stream at exit. That must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == EPIPE:  # the reader of the pipe has ended (`| head`)
        return 0
    tell("the disk is full and the output is incomplete; free some space and run the command again")
    return CommandError.status


def tell(text: object) -> None:
    """Print a message that does not belong to the output of a command."""
    print(f"gateway: {text}", file=sys.stderr)


def operator_of(options: argparse.Namespace) -> str:
    """Return the name for the audit trail: `--as`, or else the user of this machine."""
    if options.operator:
        return str(options.operator)
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run with a user id that has no name
        return ""


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings: the options of the command, then the environment. Raises CommandError."""
    from gateway.settings import SettingsError, read_settings

    given = {name: getattr(options, name, None) for name in _SETTINGS}
    try:
        return read_settings({name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        raise CommandError(str(error)) from None


def print_pinned_version(settings: Settings) -> None:
    """Print a note if a rollback pinned a version in the state directory: an edit of the file has no effect then.

    A state directory of a gateway that serves another file has nothing to do with this one.
    """
    from gateway.state.history import has_history, open_history
    from gateway.state.lock import last_config

    if settings.state_dir is None or not has_history(settings.state_dir):
        return
    if last_config(settings.state_dir) not in ("", os.path.abspath(settings.config)):
        return
    try:
        with closing(open_history(settings.state_dir, make=False)) as history:
            pointer = history.pointer()
    except StateError as error:
        tell(error)
        return
    if pointer is not None and pointer.overrides:
        reason = f"version {pointer.version} is pinned by a rollback, so no config file is activated"
        shares = "the shares of its schedules are frozen, and `/explain` of the admin listener shows who answers"
        tell(f"{reason}; `gateway rollback --release` activates it. {shares.capitalize()}")


def expect_days(first: date | None, last: date | None, today: date) -> None:
    """Raise CommandError unless the days of `--from` and `--to` are in order, and none is in the future."""
    for name, day in (("--from", first), ("--to", last)):
        if day is not None and day > today:
            raise CommandError(f"{name} {day} is in the future: today is {today}")
    if first is not None and last is not None and first > last:
        raise CommandError(f"--from {first} is after --to {last}: exchange them")


def json_text(document: object) -> str:
    """Return a document as the JSON that commands print with `--json`."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def aligned(lines: Sequence[Sequence[str]], labels: int | None = None) -> str:
    """Return lines of cells as columns of equal width. The cells after the first `labels` are aligned right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        [
            cell.ljust(width) if labels is None or number < labels else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in rows)


def write_new(directory: Path, files: Mapping[str, str]) -> None:
    """Write new files. Raises CommandError, and writes none of them, if one already exists."""
    written = {directory / name: text for name, text in files.items()}
    try:
        if existing := [str(path) for path in written if path.exists()]:
            verb = "exists" if len(existing) == 1 else "exist"
            raise CommandError(f"{', '.join(existing)} already {verb}; no file was written")
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text, "utf-8")
            print(f"wrote {path}")
    except OSError as error:
        raise CommandError(f"can't write to {directory}: {error.strerror}; name another directory") from None


def confirmed(about: str) -> bool:
    """Ask on a terminal whether to go on. Without a terminal, return False."""
    if not sys.stdin.isatty():
        return False
    print(f"{about}. Type yes to continue: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == "yes"


def state_directory(settings: Settings) -> Path:
    """Return the state directory. Raises CommandError if none is set."""
    if settings.state_dir is None:
        raise CommandError("no state directory is set: set GATEWAY_STATE_DIR, or use --state DIR")
    return settings.state_dir


def opened_history(settings: Settings) -> closing[History]:
    """Open the history of the state directory for a `with` block. Raises StateError if there is none."""
    from gateway.state.history import open_history

    return closing(open_history(state_directory(settings), make=False))


def admin_client(url: str, settings: Settings) -> AdminClient:
    """Return a client for the admin listener of the running gateway, with the token of the environment."""
    from gateway.cli.admin_client import AdminClient
    from gateway.settings import versions_of

    return AdminClient(url.rstrip("/"), next(iter(versions_of(settings.admin_token)), None))


def read_report(path: Path) -> dict[str, Any]:
    """Return the report of a run, by its file or its folder. Raises CommandError."""
    file = path / "report.json" if path.is_dir() else path
    try:
        with open_file(file) as opened:
            value = json.loads(opened.read())
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{file} is not a report of an evaluation") from None
    if not isinstance(value, dict):
        raise CommandError(f"{file} is not a report of an evaluation")
    return value
