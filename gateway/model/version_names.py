"""The names under which the gateway shows the version of the config: in response headers, JSON, log lines and metrics.

Until release 0.3, the former names have the same value. To remove them, delete the second word of each tuple, and
of the labels of `gateway_config_info` in `gateway/telemetry/metrics.json`.
Files that an earlier release wrote (receipts, evaluations) have only the former name, so their readers accept both.
"""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")

VERSION_NAMES = ("config_version", "table")
"""The names of fields and labels."""

VERSION_HEADERS = ("x-gateway-config", "x-gateway-table")

VERSION_ATTRIBUTES = ("gateway.config_version", "gateway.table")
"""The names in traces."""


def version_fields(shown: _T) -> dict[str, _T]:
    """Return the fields that show the version: each name with this value."""
    return dict.fromkeys(VERSION_NAMES, shown)


def version_headers(version: str) -> dict[str, str]:
    """Return the response headers that show this version."""
    return dict.fromkeys(VERSION_HEADERS, version)
