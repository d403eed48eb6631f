"""Planted values are searched for everywhere: at each recipient, in each file, and in what the gateway writes about requests."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.features.redaction.policy.requests import NOTICE
from gateway.signing import new_key
from tests.kit.configs import Config, key_hash
from tests.kit.gateway_process import APP_KEY, running_gateway
from tests.kit.recipients import Recipient, receiving
from tests.kit.waiting import eventually

VALUES = ("jane.doe@planted.example", "+49 171 7654321", "4111 1111 1111 1111", "Project Nightjar")
PROMPT = "Write to {}, call {}, pay with {} and ask for {}.".format(*VALUES)
SENT = "Write to QEMAIL1Z, call QPHONE1Z, pay with QCARD1Z and ask for QTERM1Z."


class Recipients(Recipient):
    """Every recipient, by the first part of its path. `first` fails in turn in each way, and repeats what it was sent."""

    failures: Iterator[str]

    def do_POST(self) -> None:
        body = self.body()
        name = self.path.split("/")[1]
        self.received.append((name, f"{self.path}\n{self.headers}\n".encode() + body))
        if name == "traces":
            return self.answer(200, b"")
        asked = json.loads(body)
        if name == "judge":
            result = {"flagged": False, "categories": {}, "category_scores": {}}
            return self.answer(200, json.dumps({"id": "x", "model": "j", "results": [result]}).encode())
        text = asked["messages"][-1]["content"]
        failure = next(self.failures) if name == "first" else "none"
        if failure in ("500", "400"):
            error = {"error": {"message": f"can't read {json.dumps(asked)}", "type": "x", "code": None}}
            return self.answer(int(failure), json.dumps(error).encode())
        if not asked.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            return self.answer(200, json.dumps(head).encode())
        pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
        deltas: list[tuple[dict[str, str], str | None]] = [({"content": piece}, None) for piece in pieces]
        deltas = deltas[:9] if failure == "cut" else [*deltas, ({}, "stop")]
        events = [
            {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            for delta, finish in deltas
        ]  # fmt: skip
        data = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.answer(200, (data if failure == "cut" else f"{data}data: [DONE]\n\n").encode(), "text/event-stream")


def config(origin: str, terms: Path) -> Config:
    names = ("first", "second", "behind", "shadow", "judge")
    anywhere = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE", "api_key": "${KEY}"}
    steps: list[Any] = ["first", "second"]
    return Config({
        "version": 1,
        "cell": {"territory": "DE"},
        "redactions": {"personal": {"terms": [f"${{file:{terms}}}"]}},
        "regions": {"eu": {"territories": ["DE"], "boundary": ["DE"], "redact": "personal",
                           "moderation": {"input": ["judge"], "output": ["judge"], "on_failure": "closed"}}},
        "assistants": {
            "assistant": {"routes": {"eu": steps},
                          "shadow": {"eu": {"deployment": "shadow", "share": "100%", "keep_text": True}}},
            "handing": {"routes": {"eu": ["first", {"hand_off": {"when": ["failure"]}}, "behind"]}},
        },
        "deployments": {name: {**anywhere, "endpoint": f"{origin}/{name}/v1"} for name in names},
        "clients": {"app": {"keys": [key_hash(APP_KEY)], "region": "eu"}},
        "exporters": {"traces": {"endpoint": f"{origin}/traces", "stores": "DE", "processes": "DE", "regions": ["eu"]}},
        "resilience": {"breaker": "off", "retry_budget": "off"},
    })  # fmt: skip


@pytest.mark.slow("asks a gateway in a process of its own many times")
def test_no_value_reaches_a_recipient_a_file_or_a_record(tmp_path: Path) -> None:
    pem, _ = new_key()
    key = tmp_path / "receipts.pem"
    key.write_bytes(pem)
    key.chmod(0o600)
    state = tmp_path / "state"
    terms = tmp_path / "terms.txt"
    terms.write_text(VALUES[-1], "utf-8")
    environ = {"KEY": "k", "GATEWAY_STATE_DIR": str(state), "GATEWAY_RECEIPT_KEY": str(key)}
    outcomes: Counter[int] = Counter()
    with (
        receiving(Recipients, failures=itertools.cycle(("500", "cut", "400", "none"))) as (origin, received),
        running_gateway(config(origin, terms).write(tmp_path), environ) as gateway,
    ):
        app = {"authorization": f"Bearer {APP_KEY}"}
        with (
            httpx.Client(base_url=gateway.url, headers=app, trust_env=False, timeout=30) as client,
            httpx.Client(base_url=gateway.admin_url, trust_env=False, timeout=30) as admin,
        ):
            written: list[str] = []
            for number in range(24):
                named = {"model": ("assistant", "handing")[number % 2], "stream": number % 3 != 0}
                chat = {**named, "messages": [{"role": "user", "content": PROMPT}], "user": VALUES[0]}
                path, body = (
                    ("/v1/responses", {**named, "input": PROMPT}) if number % 4 == 3 else ("/v1/chat/completions", chat)
                )
                answer = client.post(path, json=body)
                outcomes[answer.status_code] += 1
                written.append(str(answer.headers) if answer.status_code == 200 else f"{answer.headers} {answer.text}")
                request_id = answer.headers["x-request-id"]
                eventually(lambda: client.get(f"/v1/receipts/{request_id}").status_code == 200)  # noqa: B023
                written.append(client.get(f"/v1/receipts/{request_id}").text)
            eventually(lambda: {name for name, _ in received} >= {"shadow", "traces"})
            written.append(admin.get("/metrics").text)
        assert gateway.stop() == 0
        written += map(str, gateway.lines)
    names = Counter(name for name, _ in received)
    assert outcomes[200] > 12
    assert set(names) == {"first", "second", "behind", "shadow", "judge", "traces"}
    assert sum(SENT.encode() in body for _, body in received) > 40
    assert any(NOTICE.encode() in body for name, body in received if name == "shadow")
    stored = {str(path): path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert b"QEMAIL1Z" in stored[str(state / "shadow.db")]
    assert '"email":1' in "".join(written).replace(" ", "")
    everything = [*received, *stored.items(), *(("written", text.encode()) for text in written)]
    for value in VALUES:
        found = [(name, content.index(value.encode())) for name, content in everything if value.encode() in content]
        assert not found, value
