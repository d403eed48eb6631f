"""`gateway restart`: replace a running gateway without a refused connection."""

from __future__ import annotations

import argparse
import os

from gateway.cli.terminal import settings_of, state_directory, tell
from gateway.operator_errors import CommandError
from gateway.state.lock import holder_of

_OK, _NOT_RESTARTED = 0, 1


def restart(options: argparse.Namespace) -> int:
    """Replace a running gateway without a refused connection (`gateway restart`)."""
    from gateway.server.handover import RestartBusy, ask_for_restart

    directory = state_directory(settings_of(options))
    running = holder_of(directory)
    if running is None:
        raise CommandError(f"no gateway runs with {directory}")
    pid = running.get("pid")
    if not running.get("restarts") or not isinstance(pid, int):
        raise CommandError(
            f"the gateway that uses {directory} is starting, is a demo, or is of a release that cannot hand over: try "
            "again, or stop and start"
        )
    python = os.path.abspath(options.python) if options.python is not None else None
    try:
        result = ask_for_restart(directory, pid, python)
    except RestartBusy:
        raise CommandError("another `gateway restart` is under way") from None
    except TimeoutError:
        raise CommandError(f"process {pid} does not answer: read its log") from None
    except OSError as error:
        raise CommandError(f"process {pid} cannot be asked to hand over: {error.strerror}") from None
    if "error" in result:
        tell(f"nothing has changed: {result['error']}")
        return _NOT_RESTARTED
    print(f"process {result['pid']} serves now, release {result['release']}; process {pid} finishes its requests")
    return _OK
