"""Records of shadow traffic, and a store for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.questions import Suite
from gateway.cli import main
from gateway.features.shadow.model import ShadowRecord
from gateway.features.shadow.state import ShadowStore
from tests.evaluation.candidates import config_of, suite_in

CHECKS = """
shadow:
  checks:
    - {name: short, rules: [{rule: words, most: 5}]}
    - {name: sum, when: "How much", number: 7}
"""


JUDGED = CHECKS + "    - {name: polite, when: Greet, rubric: is polite}\njudge: {deployment: judge}\n"


PLAIN = ShadowRecord(
    1_790_000_000.0, "t", "r-1", "assistant", "cn", "new", "m-2", True, "ok", 0.3, 0.9, finish_reason="stop",
    beside="one", beside_first_s=0.2, beside_total_s=0.7,
)  # fmt: skip


def answered_record(prompt: str, answer: str, **more: object) -> ShadowRecord:
    return replace(PLAIN, prompt=f"user: {prompt}", answer=answer, **more)  # type: ignore[arg-type]


RECORDS = [
    answered_record("How much is 3 and 4?", "It is 7."),
    answered_record("How much is 3 and 4?", "It is 8, I am quite sure of that."),
    answered_record("Greet me.", "Hello."),
    answered_record("What is the weather like today?", "Ich weiß es nicht, und das ist auch nicht schlimm."),
    answered_record("Tell me something bad that is not for me.", "I'm sorry, I can't help with that."),
    answered_record("Filtered?", "", finish_reason="content_filter"),
    answered_record("Look it up.", "", tool_calls=1, finish_reason="tool_calls"),
    replace(PLAIN, outcome="silent", prompt="user: Hello?", answer=""),
    PLAIN,
]


def numbered(records: list[ShadowRecord]) -> list[tuple[int, ShadowRecord]]:
    return list(enumerate(records, 1))


class ShadowWorkspace:
    """A state directory with records, a config that names a judge, and the command."""

    def __init__(
        self,
        folder: Path,
        origin: str,
        monkeypatch: pytest.MonkeyPatch,
        records: list[ShadowRecord] = RECORDS,
        suite: str = JUDGED,
    ) -> None:
        self.folder = folder
        self.config = folder / "gateway.yaml"
        monkeypatch.setenv("KEY", "sk-test")
        store = ShadowStore(folder / "state")
        for record in records:
            store.store(record)
        store.close()
        self.suite: Suite = suite_in(folder, suite)
        self.write(origin)

    def write(self, origin: str, *, keep_text: bool = True, judge_in: str = "CN", approved: bool = True) -> None:
        origins = {"one": "http://127.0.0.1:9001", "new": "http://127.0.0.1:9001", "judge": origin}
        shadow = {"deployment": "new", "share": "10%", "keep_text": keep_text}
        config = config_of(origins, stores={"judge": judge_in}).merge(
            "cell: {territory: CN, serves: [cn]}", {"assistants": {"assistant": {"shadow": {"cn": shadow}}}}
        )
        if not approved:
            (approval,) = config.data["deployments"]["judge"]["approvals"]
            ended = approval | {"valid_until": "2020-01-01"}
            config = config.merge({"deployments": {"judge": {"approvals": [ended]}}})
        self.config.write_text(config.text)

    def run(self, *arguments: str) -> int:
        asked = ["evaluate", "--config", str(self.config), "--region", "cn", "--shadow", str(self.folder / "state")]
        return main([*asked, "--out", str(self.folder / "out"), *arguments])

    @property
    def report(self) -> dict:
        return json.loads((self.folder / "out" / "report.json").read_text("utf-8"))
