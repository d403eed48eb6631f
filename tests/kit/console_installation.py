"""A running gateway with a console, its state directory, and an admin token of each role."""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import APP_KEY, GatewayProcess
from tests.kit.operator_console import ConsoleClient

__all__ = ["PORT", "Installation"]

PORT = {"GATEWAY_CONSOLE_PORT": "0"}


class Installation:
    """A gateway with a console, its state directory and a token of each role."""

    def __init__(self, gateway: GatewayProcess, state: Path, path: Path) -> None:
        self.gateway, self.state, self.path = gateway, state, path
        self.tokens = {
            role: self.run("admin-token", "create", "--role", role) for role in ("admin", "operator", "viewer")
        }

    def run(self, *words: str) -> str:
        done = in_this_process(*words, "--state", str(self.state))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def visit(self, role: str = "viewer") -> ConsoleClient:
        """Return a visitor who has signed in."""
        client = ConsoleClient(self.gateway.console_url)
        answer = client.sign_in(self.tokens[role])
        assert (answer.status_code, answer.headers["location"]) == (303, "/requests")
        return client

    def version(self) -> str:
        """Return the active version."""
        with httpx.Client(trust_env=False, timeout=60) as client:
            headers = {"authorization": f"Bearer {self.tokens['viewer']}"}
            answer = client.get(f"{self.gateway.admin_url}/readyz", headers=headers).json()
        return str(answer["config_version"]["version"])

    def trail(self) -> list[dict[str, Any]]:
        """Return the lines of the audit trail."""
        return [json.loads(line) for line in (self.state / "audit.jsonl").read_text().splitlines()]

    def ask(self) -> str:
        """Send a chat request and return its id."""
        headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "DE"}
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.post(f"{self.gateway.url}{CHAT}", json=body(), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-request-id"]
