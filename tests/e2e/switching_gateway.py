"""A gateway with a state directory, and the commands that change its config version."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from gateway.config.loading import content_hash
from gateway.config.yaml_document import parse_yaml
from tests.kit.configs import Config
from tests.kit.gateway_command import as_a_process
from tests.kit.reloading_gateway import Operator


def state_dir_of(path: Path) -> Path:
    return path.parent / "state"


def gateway_command(path: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Return the command, run with the gateway's environment."""
    return as_a_process(*words, environ={**environ_of(path), **environ})


def environ_of(path: Path) -> dict[str, str]:
    return {"GATEWAY_CONFIG": str(path), "GATEWAY_STATE_DIR": str(state_dir_of(path)), "KEY": "sk-one"}


def content_of(text: str) -> str:
    """Return the content hash of a configuration without catalogue files."""
    return content_hash(parse_yaml(text.encode(), "gateway.yaml").values, None)


def audit_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state_dir_of(path) / "audit.jsonl").read_text("utf-8").splitlines()]


def replace_config(operator: Operator, config: Config | str) -> str:
    """Replace the config and return its version."""
    before = operator.version()
    operator.replace(config)
    operator.wait_for_another(before)
    return operator.version()
