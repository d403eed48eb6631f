"""Duties and the time of users in a real gateway: each counts once, and they survive its workers and itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cell.postgres import upgrade
from gateway.installation import duty_sums
from tests.kit.chat_http import CHAT, body
from tests.kit.metered_gateway import client_of, of_client, serving
from tests.kit.postgres_server import running_postgres
from tests.kit.store_cell import Cell, cell, instance
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts gateways")
NOTICE = {"name": "house", "text": {"en": "I am an AI."}, "show": "first_turn", "repeat": "3h"}
REGION = {
    "territories": ["*"],
    "boundary": ["*"],
    "use": {"timezone": "America/Los_Angeles"},
    "labels": [NOTICE],
    "age_bands": {"child": {"use": {"session": "1h"}}, "adult": {}},
    "age_missing": "child",
}


def counted(folder: Path) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key, number in duty_sums(None, folder / "state", ("2000-01", "2999-12")).items():
        assert (key.region, key.assistant, key.age_band) == ("default", "assistant", "child")
        sums[key.kind] = sums.get(key.kind, 0) + number
    return sums


@pytest.mark.parametrize("workers", [1, 2])
def test_counts_are_exact_when_the_gateway_is_killed(tmp_path: Path, workers: int) -> None:
    """Two devices, whole answers and streams, an answer within the session, and users that no signal names."""
    patches: tuple[Any, ...] = ({"regions": {"default": REGION}}, of_client(may_assert=["user"]))
    with serving(tmp_path, "ok", *patches, workers=workers) as (gateway, _):
        with client_of(gateway) as client:

            def ask(user: str | None, **more: Any) -> httpx.Response:
                headers = {"x-gateway-user": user} if user is not None else {}
                return client.post(CHAT, json=body(**more), headers=headers)

            for number in range(3):
                assert "I am an AI." in ask(f"user-{number}").text
                assert "I am an AI." not in ask(f"user-{number}", messages=_going_on()).text
                assert "I am an AI." in ask(f"streams-{number}", stream=True).text
                refused = ask(None, stream=number == 1)
                assert (refused.status_code, refused.json()["error"]["age"]["rule"]) == (403, "user_unknown")
            # At once: each answer has reached its client.
            gateway.process.kill()
            gateway.process.wait(60)
        assert counted(tmp_path) == {"notice": 6, "use_unknown": 3}
    with serving(tmp_path, "ok", *patches) as (gateway, _), client_of(gateway) as client:
        assert client.post(CHAT, json=body(), headers={"x-gateway-user": "another"}).status_code == 200
        answer = client.post(CHAT, json=body(messages=_going_on()), headers={"x-gateway-user": "user-0"})
        assert (answer.status_code, "I am an AI." in answer.text) == (200, False), "the session goes on"
        assert answer.headers["x-gateway-use"].startswith("session=")
        assert counted(tmp_path) == {"notice": 7, "use_unknown": 3}
        metrics = httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text
        assert 'gateway_duties_total{kind="notice",region="default"} 1.0' in metrics
        assert gateway.stop() == 0
    assert counted(tmp_path) == {"notice": 7, "use_unknown": 3}


def test_two_instances_of_a_cell_count_into_one_report(tmp_path: Path) -> None:
    """One is killed, and its next start adds what it had counted. The Valkey is away and emptied meanwhile."""
    patches: tuple[Any, ...] = ({"regions": {"default": REGION}}, of_client(may_assert=["user"]))

    def reported(both: Cell) -> dict[str, int]:
        words = ("duties", "report", "--from", "2000-01", "--to", "2999-12", "--by", "year", "--json")
        return {row["kind"]: row["count"] for row in json.loads(both.run(*words))["rows"]}

    with running_postgres() as postgres:
        upgrade(postgres.address())
        with cell(tmp_path, postgres, *patches) as both:
            for number in (0, 1):
                with client_of(both.instances[number]) as client:
                    assert client.post(CHAT, json=body(), headers={"x-gateway-user": "anna"}).status_code == 200
                    assert client.post(CHAT, json=body()).status_code == 403
            # The same user at both: one notice for each new conversation.
            eventually(lambda: reported(both) == {"notice": 2, "use_unknown": 2})
            anna = {"json": body(messages=_going_on()), "headers": {"x-gateway-user": "anna"}}
            with client_of(both.instances[1]) as client:
                assert "I am an AI." not in client.post(CHAT, **anna).text, "a session of both instances"
            with client_of(both.instances[1]) as client:
                assert client.post(CHAT, json=body()).status_code == 403
                both.instances[1].process.kill()
                both.instances[1].process.wait(60)
            both.valkey.kill()
            with client_of(both.instances[0]) as client:
                answer = client.post(CHAT, **anna)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gate_unavailable")
                assert "the time of this user can't be read" in answer.json()["error"]["message"]
                both.valkey.restart()
                answers: list[httpx.Response] = []

                def is_answered() -> bool:
                    answers.append(client.post(CHAT, **anna))
                    return answers[-1].status_code == 200

                eventually(is_answered)
                # It is emptied, so the user's time begins anew.
                assert answers[-1].headers["x-gateway-use"] == "session=0; session-limit=3600"
                assert "I am an AI." in answers[-1].text
            with instance(both.path, 1, 1):
                eventually(lambda: reported(both) == {"notice": 3, "use_unknown": 3})


def _going_on() -> list[dict[str, str]]:
    return [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "I am an AI.\n\nHello."},
        {"role": "user", "content": "And now?"},
    ]
