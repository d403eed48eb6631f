"""Write the page with the table of outgoing calls, from `outgoing_calls.toml` and the adapters."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from gateway.config.deployments import can_count
from providers.registry import load_registry

_HEAD = """\
# Calls to other servers

All calls that the gateway makes, and what [the fence](../prove/threat-model.md) asks of each.

A call with a byte of a request has a `Permit`, and the origin, the proxy and the location of the chat that it belongs
to, at a step that this caller may use now; else it is not made. A `ServicePermit` comes from the configuration alone,
and its calls have no byte of a request. (`tests/architecture/test_outgoing_calls.py`,
`providers/conformance/test_requests.py`)

"""


def outgoing_calls() -> dict[str, Any]:
    """Return the data of the table."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def counting_providers() -> list[str]:
    """Return the providers whose servers may be asked to count the tokens of a prompt."""
    return [name for name, adapter in sorted(load_registry().adapters.items()) if can_count(adapter, "m", "/v1")]


def calls_page() -> str:
    """Return docs/reference/outgoing-calls.md."""
    data = outgoing_calls()
    counting = ", ".join(f"`{name}`" for name in counting_providers())
    rows = [
        f"| {call['what']} | {call['to'].replace('{counting}', counting)} | {data['permits'][call['permit']]} |\n"
        for call in data["calls"]
    ]
    return f"{_HEAD}| call | goes to | permit |\n|---|---|---|\n{''.join(rows)}"
