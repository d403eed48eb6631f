"""Fixed headers of an operator: sent with every attempt, together with the key, and never shown."""

import pytest

from gateway.execution.redaction import redacted
from providers.chat import ChatRequest, UserMessage
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import Bench, bench_of
from tests.kit.configs import Config

TABLE = """
version: 1
assistants: {assistant: {routes: {cn: [ernie, plain]}}}
regions: {cn: {territories: ["*"], boundary: ["*"]}}
deployments:
  ernie: {provider: qianfan, model: ernie-5.1, available: [DE], api_key: "${FIRST}", headers: {AppID: "${APP}"}}
  plain: {provider: qianfan, model: ernie-5.1, available: [DE], api_key: "${FIRST}"}
"""
URL = "https://qianfan.baidubce.com/v2/chat/completions"


@pytest.fixture
def bench() -> Bench:
    return bench_of(Config.parse(TABLE), {"FIRST": "k-first", "APP": "app-Secret1"})


@pytest.mark.parametrize("stream", [False, True])
async def test_each_attempt_sends_them_with_the_key_to_its_deployment_only(bench: Bench, stream: bool) -> None:
    bench.router.post(URL).respond(500)
    await bench.failure(stream=stream)
    sent = [(call.request.headers.get("appid"), call.request.headers["authorization"]) for call in bench.router.calls]
    assert sent[:2] == [("app-Secret1", "Bearer k-first")] * 2
    assert sent[2] == (None, "Bearer k-first")


def test_fixed_header_repeated_by_a_provider_is_masked(bench: Bench) -> None:
    failure = Failure(FailureKind.CREDENTIALS, "refused", detail="no app app-Secret1 of k-first", status=401)
    asked = ChatRequest("assistant", (UserMessage("hello"),))
    assert redacted(failure, bench.table.deployments["ernie"], asked).detail == "no app [redacted] of [redacted]"
