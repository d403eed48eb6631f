"""The extras: packages that only some configurations need, and that an installation may lack.

Without one, each request that needs it would fail, so that it is an error of the configuration: of `gateway check`, of
the start, and of a reload. The key of an AWS account or of a Google service account is tried when it is read
(`providers.auth.secret_problem`), because its form alone shows whether it needs one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

from gateway.config.problems import KeyPath
from gateway.config.validation import Findings


class Extra(NamedTuple):
    """An extra of the gateway in `pyproject.toml`, with a module that it brings and the package that has the module."""

    name: str
    module: str
    package: str


EXTRAS: Mapping[str, Extra] = {
    "an AWS sign-in": Extra("aws", "botocore.auth", "botocore"),
    "an exporter": Extra("otel", "opentelemetry.proto.collector.trace.v1", "opentelemetry-proto"),
    "a redaction": Extra("redaction", "re2", "google-re2"),
    "a database": Extra("stores", "asyncpg", "asyncpg"),
    "Valkey": Extra("stores", "libvalkey", "libvalkey"),
}
"""By what needs it."""


def check_extra(findings: Findings, path: KeyPath, need: str) -> bool:
    """Report a part of the configuration whose packages are not installed. Return whether they are."""
    extra = EXTRAS[need]
    if _has(extra.module):
        return True
    findings.error(path, f"needs the extra `{extra.name}`, which is not installed", f"pip install {extra.package}")
    return False


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
