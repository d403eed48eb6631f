"""The command `gateway drain`, which ends the traffic of a running gateway."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping

from gateway.cli.admin_client import AdminClient, NotReached
from gateway.cli.plan import admin_client
from gateway.cli.terminal import settings_of
from gateway.operator_errors import CommandError
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
