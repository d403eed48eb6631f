"""Calls for audio: held before they are sent, and settled by minutes, characters or tokens."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.usage_row import row_data
from providers.catalogue.held_audio import _MOST_COUNT, HeldAudio
from providers.catalogue.prices import AudioPrice, Price, Rates
from providers.chat import Usage
from tests.gateway.usage.priced_gateway import PricedGateway, of_app
from tests.kit.audio import BOUNDARY, claiming_wav, silent_wav, transcription_form

CONFIG = """
assistants: {assistant: {transcription: {no: [ears]}, speech: {no: [mouth]}}}
deployments:
  ears: {provider: openai-compatible, model: m, endpoint: "https://ears.test/v1", stores: NO, processes: NO, api_key: k}
  mouth: {provider: openai-compatible, model: s, endpoint: "https://mouth.test/v1", stores: NO, processes: NO, api_key: k}
resilience: {attempts: {per_deployment: 1}}
"""
MODELS = """
version: 1
models:
  openai-compatible:
    m: {price: {minute: 0.006, currency: EUR, as_of: 2026-11-01, source: test}}
    s: {price: {characters: 15, counts: bytes, currency: EUR, as_of: 2026-11-01, source: test}}
"""
SECOND_NANO = 100_000
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
def priced(tmp_path: Path) -> PricedGateway:
    return PricedGateway(tmp_path, CONFIG, MODELS, provider=counting(1.0))


def counting(seconds: object) -> Any:
    """Return a provider that counts these seconds in each transcription, and speaks."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "mouth.test":
            return httpx.Response(200, content=b"\xff\xfb\x90\xc4" + bytes(413))
        usage = {} if seconds is None else {"usage": {"type": "duration", "seconds": seconds}}
        return httpx.Response(200, content=json.dumps({"text": "Hello.", "segments": [], **usage}))

    return answer


async def ask(
    gateway: PricedGateway, *patches: Any, file: bytes = silent_wav(), count: int = 1
) -> list[httpx.Response]:
    form = transcription_form(file)
    return await gateway.send(*patches, path="/v1/audio/transcriptions", content=form, headers=FORM, count=count)


async def test_seconds_of_the_vendor_are_charged_and_are_in_the_row(priced: PricedGateway) -> None:
    (answer,) = await ask(priced)
    assert answer.status_code == 200, answer.text
    (row,) = priced.written
    assert (row.amount_nano, row.usage_source, row.audio_ms) == (SECOND_NANO, "provider", 1000)
    assert row_data(row)["audio_seconds"] == "1.000"
    assert answer.headers["x-gateway-cost"] == "0.0001 EUR"


@pytest.mark.parametrize("seconds", [None, -1, 0, 2.06, 192_153_584_101_141, "NaN"])
async def test_count_that_cannot_be_true_is_absent(priced: PricedGateway, seconds: object) -> None:
    priced.provider = counting(seconds)
    await ask(priced)
    (row,) = priced.written
    assert (row.amount_nano, row.usage_source, row.audio_ms) == (SECOND_NANO, "estimated", 1000)


async def test_no_seconds_of_silence_cost_nothing(priced: PricedGateway) -> None:
    silence = {"text": "", "segments": [], "usage": {"type": "duration", "seconds": 0}}
    priced.provider = lambda _: httpx.Response(200, json=silence)
    (answer,) = await ask(priced)
    (row,) = priced.written
    assert (row.amount_nano, row.usage_source, answer.json()["usage"]["seconds"]) == (0, "provider", 0)


@pytest.mark.parametrize("claimed", [0, 2**63])
async def test_header_of_a_file_decides_nothing(priced: PricedGateway, claimed: int) -> None:
    priced.provider = counting(None)
    await ask(priced, file=claiming_wav(claimed))
    assert [row.amount_nano for row in priced.written] == [SECOND_NANO]


async def test_budget_is_exact_with_64_at_once(priced: PricedGateway) -> None:
    answers = await ask(priced, of_app(budgets=[{"amount": "0.0010 EUR", "per": "day"}]), count=64)
    assert [answer.status_code for answer in answers].count(200) == 10
    assert sum(row.amount_nano or 0 for row in priced.written) == 10 * SECOND_NANO


SPOKEN = {"path": "/v1/audio/speech", "json": {"model": "assistant", "voice": "v", "input": "Gr\u00fc\u00dfe"}}


async def test_budget_of_characters_is_exact_with_64_at_once(priced: PricedGateway) -> None:
    answers = await priced.send(of_app(budgets=[{"amount": "0.00105 EUR", "per": "day"}]), **SPOKEN, count=64)
    assert [answer.status_code for answer in answers].count(200) == 10
    assert [row.amount_nano for row in priced.written] == [105_000] * 10


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"budgets": [{"tokens": 1, "per": "day"}]}, 200), ({"max_request": {"amount": "0.0001 EUR"}}, 400)],
)
async def test_limit_of_money_holds_characters_and_one_of_tokens_nothing(
    priced: PricedGateway, limits: dict[str, Any], status: int
) -> None:
    (answer,) = await priced.send(of_app(**limits), **SPOKEN)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("unit", ["requests", "amount"])
async def test_quota_counts_speech_as_other_calls(priced: PricedGateway, unit: str) -> None:
    limit = {"requests": {"hour": 3}, "amount": {"day": "0.000315 EUR"}}[unit]
    quota = {"quotas": {"account": {unit: limit}}, "deployments": {"mouth": {"quota": "account"}}}
    answers = await priced.send(quota, **SPOKEN, count=8)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5


async def test_quota_of_seconds_counts_each_begun_second_over_all_calls(priced: PricedGateway) -> None:
    quota = {"quotas": {"account": {"seconds": {"hour": 7}}}, "deployments": {"ears": {"quota": "account"}}}
    priced.provider = counting(1.5)
    answers = await ask(priced, quota, file=silent_wav(1.5), count=8)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
    assert [row.audio_ms for row in priced.written] == [1500] * 3


async def test_characters_of_speech_are_charged_as_the_price_counts_them(priced: PricedGateway) -> None:
    (answer,) = await priced.send(**SPOKEN)
    assert answer.status_code == 200, answer.text
    (row,) = priced.written
    assert (row.characters, row.amount_nano, row.usage_source) == (7, 105_000, "estimated")
    assert "x-gateway-cost" not in answer.headers


@pytest.mark.parametrize(
    ("length_ms", "price", "charged"),
    [
        (1000, AudioPrice(6000), 100_000_000),
        (1001, AudioPrice(6000, rounds_up=True), 200_000_000),
        (1000, AudioPrice(6000, 10_000), 1_000_000_000),
        (1, AudioPrice(1), 17),  # rounded up once, to a millionth of a micro-unit
        (0, AudioPrice(6000, 10_000), 0),
    ],
)
def test_minute_is_charged_exactly(length_ms: int, price: AudioPrice, charged: int) -> None:
    assert price.fee(Usage(audio_ms=length_ms), Rates(0, 0)) == charged


@pytest.mark.parametrize(("counts", "number"), [("characters", 4), ("bytes", 10), ("wide", 7)])
def test_characters_are_counted_as_the_price_states(counts: str, number: int) -> None:
    assert AudioPrice(characters=1, counts=counts).counted("a语音ス") == number


def test_tokens_of_audio_have_their_own_rate() -> None:
    price = AudioPrice(input=5, output=20)
    assert price.fee(Usage(10, 4, audio_tokens=8), Rates(2, 10)) == 8 * 3 + 4 * 10


@pytest.mark.parametrize(("tokens", "is_counted"), [(_MOST_COUNT, True), (_MOST_COUNT + 1, False)])
def test_count_of_tokens_is_bounded(tokens: int, is_counted: bool) -> None:
    assert HeldAudio(most_ms=1000, own_ms=1000).counted(Usage(tokens, 1))[1] is is_counted


@pytest.mark.parametrize(("ms", "is_counted"), [(2050, True), (2051, False)])
def test_length_may_be_a_twentieth_and_a_second_longer(ms: int, is_counted: bool) -> None:
    price = Price(Rates(0, 0), "EUR", None, "test", audio=AudioPrice(6000))
    held = HeldAudio(most_ms=1000, usual_ms=1000, own_ms=1000, price=price)
    assert held.counted(Usage(audio_ms=ms)) == (Usage(audio_ms=ms if is_counted else 1000), is_counted)
