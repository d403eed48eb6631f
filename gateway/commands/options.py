"""What several commands make of their options: the settings, the config that is meant, the files that are written."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.terminal import CommandError, compile_file

if TYPE_CHECKING:
    from gateway.model.table import Table
    from gateway.settings import Settings

__all__ = ["compiled_table", "config_path", "settings_of", "write_new"]

_SETTINGS = ("config", "host", "port", "admin_port", "workers", "state_dir")


def compiled_table(options: argparse.Namespace) -> Table:
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
