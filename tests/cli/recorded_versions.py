"""Versions of a configuration in the history of a state directory, as a gateway records them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.config.loading import content_hash
from gateway.state.history import Activation, Version, open_history
from tests.kit.configs import Config


def recorded(config: Config, at: str, who: str, previous: str = "") -> tuple[Version, Activation]:
    """Return the version, and its activation on a day by a person."""
    content = content_hash(dict(config.data), None)
    version = Version(content[:12], content, config.text.encode())
    at_s = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    return version, Activation(version.version, previous, "file", who, at_s, "~some")


def add_version(directory: Path, config: Config, at: str, who: str, previous: str) -> str:
    """Record the version as active from a day on, and return its name."""
    version, activation = recorded(config, at, who, previous)
    with closing(open_history(directory)) as history:
        history.add(version, activation)
    return version.version
