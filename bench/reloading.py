"""Change the gateway's config while it serves, and measure how long that takes."""

from __future__ import annotations

import contextlib
import http.client
import re
import time

from bench.subjects import Running

__all__ = ["reload"]


def reload(running: Running, idle: str) -> float:
    """Change one time limit of the config and return the seconds until the change is active. Raises RuntimeError if it
    fails.

    """
    if running.config is None:
        raise RuntimeError("only the gateway itself can reload")
    changed = re.sub(r"idle: \w+", f"idle: {idle}", running.config.read_text("utf-8"))
    running.config.write_text(changed, "utf-8")
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/reload")
        response = connection.getresponse()
        answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"the reload returned {response.status} {answer[:600].decode('utf-8', 'replace')}")
    return time.monotonic() - began
