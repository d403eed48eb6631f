"""Standard streams, settings and configuration files of a command, and the messages that it prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from errno import ENOSPC, EPIPE
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.operator_errors import CommandError, expect_file

if TYPE_CHECKING:
    from gateway.config.compile import Compiled
    from gateway.model.config_version import ConfigVersion
    from gateway.settings import Settings


_STDERR = 2


def compile_file(
    path: Path,
    *,
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
    resolve_secrets: bool = True,
) -> Compiled:
    """The compiled config; raises CommandError for one that isn't there or can't be used."""
    from gateway.config.compile import compile_config
    from gateway.config.loading import load_document
    from gateway.config.problems import ConfigRejected
    from providers.registry import load_registry

    expect_file(path)
    try:
        document = load_document(path, os.environ, secrets=resolve_secrets)
        return compile_config(document, registry=load_registry(), simulators=simulators, demo=demo)
    except ConfigRejected as error:
        from gateway.config.check_report import rejected_config

        raise rejected_config(error.problems) from None


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


_SETTINGS = ("config", "host", "port", "admin_port", "workers", "state_dir")


def compiled_table(options: argparse.Namespace) -> ConfigVersion:
    """The table of `--config`; raises CommandError."""
    return compile_file(settings_of(options).config).table


def config_path(options: argparse.Namespace) -> Path:
    """The file of `--config`, or of the settings; raises CommandError."""
    return settings_of(options).config


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of the environment, with the options before them; raises CommandError."""
    from gateway.settings import SettingsError, read_settings

    given = {name: getattr(options, name, None) for name in _SETTINGS}
    try:
        return read_settings({name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        raise CommandError(str(error)) from None


def write_new(directory: Path, files: Mapping[str, str]) -> None:
    """Write files that aren't there yet, all or none; raises CommandError."""
    written = {directory / name: text for name, text in files.items()}
    try:
        if taken := [str(path) for path in written if path.exists()]:
            verb = "exists" if len(taken) == 1 else "exist"
            raise CommandError(f"{', '.join(taken)} {verb} already; nothing was written")
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text, "utf-8")
            print(f"wrote {path}")
    except OSError as error:
        raise CommandError(f"can't write to {directory}: {error.strerror}; name another directory") from None
