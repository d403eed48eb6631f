"""Commands for a gateway in production: `gateway drain`, `backup` and `restore`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from gateway import __version__
from gateway.cli.admin_client import AdminClient, NotReached
from gateway.cli.plan import admin_client
from gateway.cli.terminal import settings_of
from gateway.operator_errors import CommandError, StateError
from gateway.settings import Settings

_OK, _STILL_RUNNING = 0, 3
_POLL_S = 0.25


def drain(options: argparse.Namespace) -> int:
    """Let clients go elsewhere, and wait until no request runs (`gateway drain`)."""
    settings = settings_of(options)
    client = admin_client(options.admin or _admin_of(settings), settings)
    delay_s = _begin(client)
    print("draining: /readyz answers 503, and each answer closes its connection")
    time.sleep(delay_s)
    ends_at = time.monotonic() + options.timeout
    last = None
    while (running := _running(client)) > 0:
        if running != last:
            print(f"{running} {'request runs' if running == 1 else 'requests run'}", file=sys.stderr)
            last = running
        if time.monotonic() >= ends_at:
            print(f"gateway: {running} still run after {options.timeout:g} s", file=sys.stderr)
            return _STILL_RUNNING
        time.sleep(_POLL_S)
    print("no request runs")
    return _OK


def backup(options: argparse.Namespace) -> int:
    """Write an archive of the state directory, also while a gateway uses it (`gateway backup`)."""
    from gateway.state.backup import write_backup

    directory = _state_dir(settings_of(options))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        written = write_backup(directory, options.to, __version__, created, with_keys=options.with_keys)
    except StateError as error:
        raise CommandError(str(error)) from None
    print(f"wrote {options.to}: {len(written.files)} files of {directory}")
    if written.missing_keys:
        print(f"not in it: {', '.join(written.missing_keys)}; keep copies of these, or use --with-keys")
    return _OK


def restore(options: argparse.Namespace) -> int:
    """Restore an archive into an empty state directory (`gateway restore`)."""
    from gateway.state.backup import restore_backup

    directory = _state_dir(settings_of(options))
    try:
        restored = restore_backup(options.file, directory)
    except StateError as error:
        raise CommandError(str(error)) from None
    print(f"restored {len(restored.files)} files of {restored.created} (release {restored.release}) into {directory}")
    if restored.missing_keys:
        names = ", ".join(restored.missing_keys)
        print(f"put these keys into {directory} before the gateway starts, because it would make new ones: {names}")
    return _OK


def _state_dir(settings: Settings) -> Path:
    if settings.state_dir is None:
        raise CommandError("name the state directory: --state DIR, or GATEWAY_STATE_DIR")
    return settings.state_dir


def _begin(client: AdminClient) -> float:
    """Begin the drain and return the seconds in which new connections may still come. Raises CommandError."""
    try:
        status, answer = client.call("POST", "/drain", {}, "")
    except NotReached as error:
        raise CommandError(str(error)) from None
    if status != 200:
        refusal = answer.get("error")
        message = refusal.get("message") if isinstance(refusal, Mapping) else "no reason"
        raise CommandError(f"{client.url} refuses to drain: {message}")
    return float(str(answer["delay_s"]))


def _running(client: AdminClient) -> int:
    """Return how many requests run; 0 if the gateway has ended meanwhile."""
    try:
        _, answer = client.call("GET", "/readyz", None, "")
    except NotReached:
        return 0
    workers = answer.get("workers")
    running = workers.get("running", ()) if isinstance(workers, Mapping) else ()
    return sum(int(worker["running"]) for worker in running)


def _admin_of(settings: Settings) -> str:
    """Return the URL of the admin listener of the gateway that uses the state directory. Raises CommandError."""
    from gateway.state.lock import holder_of

    if settings.state_dir is None:
        raise CommandError("name the running gateway: --admin URL of its admin listener, or --state DIR")
    holder = holder_of(settings.state_dir)
    url = str((holder or {}).get("admin") or "")
    if not url:
        raise CommandError(f"no gateway runs with {settings.state_dir}: name its admin listener with --admin URL")
    return url
