"""Two public harnesses judge redaction: pii-leak-benchmark as client and provider of a gateway, and chunk-invariance.

REDACTION_ROUNDS=50 repeats the first one that often, and REDACTION_PARTS=4 cuts long texts into up to four parts and short
ones in every way (`make prove`).
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.features.redaction.model import DEFAULT_KINDS, rules_of
from gateway.features.redaction.policy.answers import AnswerRestorer
from gateway.features.redaction.policy.placeholders import Placeholders
from gateway.model.wrapper import WrapperNote
from providers.chat import AssistantMessage, ChatCompletion, Choice, Finished, StreamEvent, TextDelta, ToolCallDelta
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_one_region, running_gateway
from tests.kit.ports import free_port

_EXTRA = "make install-sdks installs the harnesses"
benchmark = pytest.importorskip("pii_leak_benchmark", reason=_EXTRA)
invariance = pytest.importorskip("chunk_invariance", reason=_EXTRA)
pytestmark = pytest.mark.slow("measures a gateway in a process of its own")

ROUNDS, PARTS = int(os.environ.get("REDACTION_ROUNDS", "3")), int(os.environ.get("REDACTION_PARTS", "3"))
SHORT = "all" if PARTS > 3 else 4
KINDS = ("AWS_ACCESS_KEY_ID", "CREDIT_CARD", "EMAIL", "GITHUB_TOKEN", "SLACK_TOKEN", "SSN")
"""Every type of value that the benchmark sends."""
RULES = rules_of(["personal"], {*DEFAULT_KINDS, "id"}, ["US", "DE"])


@contextmanager
def gateway_before(origin: str, folder: Path) -> Iterator[GatewayProcess]:
    """Run a gateway whose one provider is at an origin, and gets placeholders. Its streams have no finish reason."""
    config = config_of_one_region(
        {"assistant": {"provider": "openai-compatible", "model": "m", "endpoint": f"{origin}/v1"}},
        {"redactions": {"personal": {"kinds": [*DEFAULT_KINDS, "id"], "countries": ["US"]}}},
        {"regions": {"world": {"redact": "personal"}}},
    )
    with running_gateway(config.write(folder), {"KEY": "k"}) as gateway:
        yield gateway


def test_the_benchmark_finds_no_value_at_the_provider_and_all_of_them_at_the_client(tmp_path: Path) -> None:
    from pii_leak_benchmark.http_profile import capture_session, run_http_conformance

    origin = "http://127.0.0.1:{}"
    with (
        capture_session(capture_port=0) as session,
        gateway_before(origin.format(session.server.server_port), tmp_path) as gateway,
    ):
        report = run_http_conformance(
            f"{gateway.url}/v1",
            api_key=APP_KEY,
            model="assistant",
            iterations=ROUNDS,
            session=session,
            include_credentials=True,
        )
    checks = report["checks"]
    boundary = checks["configured_upstream_boundary"]
    print(f"pii-leak-benchmark {benchmark.__version__}: {json.dumps(checks, default=str)}")
    assert sorted(report["fixture"]["formats"]) == sorted(KINDS)
    assert boundary["correlated_requests"] >= ROUNDS
    assert (boundary["leaked_entity_types"], boundary["uninspectable_requests"]) == ([], 0)
    assert [name for name, check in checks.items() if not check["passed"]] == []


@pytest.mark.full
def test_the_second_profile_gets_each_value_of_a_prompt_back(tmp_path: Path) -> None:
    """Values that the model makes up are not removed, which the profile calls a leak, and which is not the feature.

    In eight of its 32 cases the answer is in a member that no client of OpenAI knows, and that the gateway leaves out.
    """
    from pii_leak_benchmark.v2_emitter import run_policy

    port = free_port()
    with gateway_before(f"http://127.0.0.1:{port}", tmp_path) as gateway, pytest.MonkeyPatch.context() as patch:
        patch.setenv("V2_GATEWAY_TOKEN", APP_KEY)
        report, summary = run_policy(
            "gateway",
            seed="a1b2c3d4e5f60001",
            gateway_url=f"{gateway.url}/v1/chat/completions",
            upstream_port=port,
            model="assistant",
        )
    print(f"second profile: {summary}")
    assert report["checks"]["configured_upstream_boundary"]["leaked_entity_types"] == []
    restored = summary["fidelity_rate"] * summary["cases_applicable"]
    assert (summary["cases_applicable"], summary["echo_observable"], restored) == (32, 24, 24)


def restorer() -> AnswerRestorer:
    """Return what restores an answer to a request with an address and two numbers."""
    named = Placeholders(RULES)
    named("jane@example.com +49 171 1234567 4111 1111 1111 1111")
    return AnswerRestorer(named, is_json=False, note=WrapperNote(RULES.names, {}))


def streamed(pieces: Iterable[str], event: Any) -> Iterator[str]:
    """Yield the texts of an answer that comes in these pieces."""
    one = restorer()
    batches: list[tuple[StreamEvent, ...]] = [(event(piece),) for piece in pieces]
    for batch in (*batches, (Finished(),)):
        for shown in one.events(batch):
            if isinstance(shown, TextDelta):
                yield shown.text
            elif isinstance(shown, ToolCallDelta):
                yield shown.arguments


def whole(text: str) -> str:
    """Return the text of a whole answer."""
    message = AssistantMessage(text)
    restored = restorer().completion(ChatCompletion("id", "m", 0, (Choice(message, "stop"),)))
    return str(restored.choices[0].message.content)


@pytest.mark.parametrize(("text", "splits"), [
    ("xQEMAIL1ZqPhOnEz", SHORT), ("QCARD1ZQEMAIL2Zq", SHORT),
    ("Write to QEMAIL1Z, call qphone1z. QEMAIL12Z, QQCARD1ZZ and 请联系QEMAIL1Z。", PARTS),
])  # fmt: skip
def test_no_way_to_cut_an_answer_changes_it(text: str, splits: str | int) -> None:
    checked = invariance.assert_chunk_invariant(lambda it: streamed(it, TextDelta), whole, text, splits=splits)
    print(f"chunk-invariance: {checked} splits")
    assert checked > 500
    invariance.assert_chunk_invariant(
        lambda it: streamed(it, lambda piece: ToolCallDelta(0, piece)),
        lambda it: "".join(streamed([it], lambda piece: ToolCallDelta(0, piece))),
        text,
    )
