"""Streams of a region with moderation: the client gets only what a verdict has passed, whatever else happens to it."""

import asyncio
import json
import os
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import judged
from gateway.model.region_text import SEPARATOR
from gateway.state.receipts import receipt_of
from gateway.telemetry.request_log import JsonLines
from gateway.usage.accounting import Accounting
from gateway.usage.journal import FOLDER, Journal
from tests.kit.judged_streams import HARM, JudgedRun, judged_table, passed_text, run_judged, verdict
from tests.kit.usage_rows import kept_rows
from tests.kit.virtual_time import Act, Client, TurningLoop

LABEL = {"name": "own", "text": {"en": "Made by AI."}, "show": "always"}
SPOKEN = {"regions": {"default": {"labels": [LABEL], "profile": {"locale": "en"}}}}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "failover": {},
    "resume": {"assistants": {"assistant": {"resume": True}}},
    "labels": SPOKEN,
}
TABLES = {name: judged_table(patch) for name, patch in SHAPES.items()}
TEXTS = st.lists(st.text(st.sampled_from("ab .!?\n。你好…"), max_size=12) | st.just(HARM), min_size=1, max_size=12)


def scripts_of(shape: str, first: list[str], second: list[str]) -> dict[str, list[Act]]:
    """Return what the models do: `a` fails, breaks off or is slow, and `b` answers."""
    answer, other = Act(texts=tuple(first), piece_s=0.01), Act(texts=tuple(second))
    match shape:
        case "failover":
            return {"a": [Act(500)], "b": [other]}
        case "resume":
            return {"a": [Act(texts=tuple(first), end="break")], "b": [other]}
    return {"a": [answer], "b": [other]}


def tokens_of(client: Client) -> str:
    """Return the tokens with log probabilities that the client received."""
    events = [line[6:] for line in client.content.split(b"\n\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event).get("choices", [])]
    found = [choice["logprobs"]["content"] for choice in choices if choice.get("logprobs")]
    return "".join(token["token"] for tokens in found for token in tokens)


def written(run: JudgedRun) -> str:
    """Return everything that is kept of the request: its log line and its receipt."""
    (record,) = run.log
    return JsonLines().of([(record, 0.0)])[0].decode() + json.dumps(receipt_of(record, 0.0, None), default=str)


@pytest.mark.slow
@given(
    shape=st.sampled_from([*SHAPES]),
    first=TEXTS,
    second=TEXTS,
    has_logprobs=st.booleans(),
    delay_s=st.sampled_from([0.0, 0.05, 4.0]),
    leaves_at=st.none() | st.integers(5, 120),
)
def test_client_gets_only_what_a_verdict_has_passed(
    shape: str, first: list[str], second: list[str], has_logprobs: bool, delay_s: float, leaves_at: int | None
) -> None:
    fields = {"logprobs": True} if has_logprobs and shape != "resume" else {}
    run, client = run_judged(
        TABLES[shape],
        scripts_of(shape, first, second),
        lambda _, texts: verdict(texts, delay_s),
        leaves_at=leaves_at,
        **fields,
    )
    passed, got = passed_text(run), client.text.removeprefix("Made by AI." + SEPARATOR)
    assert passed.startswith(got)
    assert HARM not in got
    assert passed.startswith(tokens_of(client))
    assert HARM.encode() not in client.content
    if leaves_at is None:
        assert got == passed
        assert client.content.endswith(b"data: [DONE]\n\n") or b"error" in client.content
    assert HARM not in written(run)
    assert "internal_error" not in {record.outcome for record in run.log}


LONG = ("A sentence. ",) * 6
SLOW_S = 4.5
"""Longer than `idle`, and shorter than the limit of a verdict."""
OPEN = {"regions": {"default": {"moderation": {"on_failure": "open"}}}}
BOTH = {"regions": {"default": {"moderation": {"output": ["j", "k"]}}}}
WRONG: dict[str, Any] = {
    "refuses": Act(403),
    "fails": Act(503),
    "hangs": Act(head_s=1000.0),
    "breaks off": Act(document="x", end="break", head_s=0.1),
    "answers nonsense": Act(document={"results": "all good"}),
    "answers about something else": Act(document={"results": []}),
}


def events_of(client: Client) -> list[Any]:
    lines = [line for line in client.content.decode().split("\n\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("at", [1, 3], ids=["first", "third"])
@pytest.mark.parametrize("policy", ["closed", "open", "next judge"])
@pytest.mark.parametrize("wrong", WRONG)
def test_judge_that_gives_no_verdict(wrong: str, policy: str, at: int) -> None:
    """It gives good verdicts before. Only judged text is shown, unless the policy is `open`."""
    table = judged_table(*{"closed": [], "open": [OPEN], "next judge": [BOTH]}[policy])
    asked = 0

    def judge(name: str, texts: list[str]) -> Act:
        nonlocal asked
        asked += name == "j"
        return WRONG[wrong] if name == "j" and asked >= at else verdict(texts)

    run, client = run_judged(table, {"a": [Act(texts=LONG, piece_s=0.1)]}, judge)
    (record,) = run.log
    if policy == "next judge":
        assert (client.text, record.moderation.output, record.outcome) == ("".join(LONG), "passed", "ok")
    elif policy == "open":
        assert (client.text, record.moderation.output, record.outcome) == ("".join(LONG), "skipped", "ok")
        found = [event["x_gateway"]["moderation"] for event in events_of(client) if "x_gateway" in event]
        assert found == [{"skipped": True}]
    else:
        assert (client.text, record.moderation.output) == (LONG[0] * (at - 1), "failed")
        assert record.shown.code == "moderation_unavailable"
        # The head is sent after a silence of `keep_alive`.
        status = 503 if at == 1 and wrong != "hangs" else 200
        error = json.loads(client.content)["error"] if status == 503 else events_of(client)[-1]["error"]
        assert (error["code"], error["reason"]) == ("moderation_unavailable", "outage")
        assert record.shown.status == status


@pytest.mark.parametrize("piece_s", [0.0, 0.5, 2.9])
def test_stream_is_not_cut_by_slow_verdicts(piece_s: float) -> None:
    """Every verdict takes longer than the provider may be silent, and comments keep the client's stream alive."""
    run, client = run_judged(
        TABLES["plain"], {"a": [Act(texts=LONG, piece_s=piece_s)]}, lambda _, texts: verdict(texts, SLOW_S)
    )
    assert (client.text, run.log[0].outcome) == ("".join(LONG), "ok")
    assert len(run.judged) == len(LONG)
    assert client.content.count(b": ") >= len(LONG) * int(SLOW_S - 1.0)


@pytest.mark.parametrize("on_failure", ["closed", "open"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("judged_first", ["input", "output"])
def test_request_whose_time_ends_during_a_verdict_gets_no_more_text(
    judged_first: str, stream: bool, on_failure: str
) -> None:
    """Also with `open`: a client names the time, and could choose one with which no judge ever answers."""
    policy = {"on_failure": on_failure, judged_first: ["j"]}
    table = judged_table(
        {"regions": {"default": {"moderation": policy}}, "resilience": {"total": "4s", "commit": "4s"}}
    )
    run, client = run_judged(table, {"a": [Act(texts=LONG)]}, lambda _, texts: verdict(texts, 4.5), stream=stream)
    (record,) = run.log
    assert b"A sentence." not in client.content
    assert record.shown.code == "deadline_exceeded"
    assert not record.moderation.is_skipped
    assert len(run.bodies) == (0 if judged_first == "input" else 1)


def test_silent_provider_is_still_cut() -> None:
    run, client = run_judged(TABLES["plain"], {"a": [Act(texts=LONG[:2], end="silent")]})
    assert (client.text, run.log[0].outcome) == ("".join(LONG[:2]), "interrupted")


@pytest.mark.parametrize("shape", ["plain", "resume"])
def test_provider_that_breaks_off_after_a_flagged_text_changes_nothing(shape: str) -> None:
    run, client = run_judged(
        TABLES[shape], {"a": [Act(texts=(*LONG[:1], f"{HARM}. ", *LONG), end="break")], "b": [Act(texts=LONG)]}
    )
    last, finish = (
        events_of(client)[-1],
        [choice["finish_reason"] for one in events_of(client) for choice in one["choices"]],
    )
    assert client.text == LONG[0]
    assert [reason for reason in finish if reason] == ["content_filter"]
    assert last["x_gateway"]["moderation"]["categories"] == ["violence"]
    assert client.content.endswith(b"data: [DONE]\n\n")
    assert (len(run.bodies), run.log[0].outcome) == (1, "ok")


def test_another_model_continues_what_the_client_has_and_held_text_is_dropped() -> None:
    broken, rest = Act(texts=(*LONG, "half a sent"), end="break"), Act(texts=("The rest. ",))
    run, client = run_judged(TABLES["resume"], {"a": [broken], "b": [rest]})
    assert client.text == passed_text(run) == "".join(LONG) + "The rest. "
    assert run.bodies[1]["messages"][1] == {"role": "assistant", "content": "".join(LONG)}


@pytest.mark.slow
@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_budget_that_ends_between_two_verdicts_ends_the_answer(on_failure: str, tmp_path: Path) -> None:
    """Also with `open`, because a budget is not a failure of the judge. The more it pays for, the more is shown."""
    shown, rows = [], set()
    for tokens in range(150, 2000, 50):
        budget = {"clients": {"app": {"budgets": [{"tokens": tokens, "per": "total"}]}}}
        table = judged_table(budget, {"regions": {"default": {"moderation": {"on_failure": on_failure}}}})
        state = tmp_path / str(tokens)
        gate = Journal.open(state / FOLDER)
        accounting = Accounting(gate, b"key of pseudonyms")
        run, client = run_judged(table, {"a": [Act(texts=LONG)]}, accounting=accounting, max_tokens=50)
        gate.close()
        rows |= {(row.deployment, row.assistant) for row in kept_rows(state)}
        (record,) = run.log
        assert client.text == passed_text(run)
        # `rate_limited`: only the hold of the answer itself is in the way.
        assert record.shown.code in (
            (None,) if client.text == "".join(LONG) else ("insufficient_quota", "rate_limited")
        )
        assert record.moderation is None or not record.moderation.is_skipped
        shown.append(len(client.text))
    assert shown == sorted(shown)
    assert {0, len("".join(LONG))} < {*shown}
    assert rows == {("a", "assistant"), ("j", "assistant")}


@pytest.mark.slow
def test_memory_of_held_streams_is_bounded() -> None:
    """The models write far more than is held, and the verdicts are still running when the memory is measured."""
    number = int(os.environ.get("HELD_STREAMS", "100"))
    table = judged_table({"regions": {"default": {"moderation": {"window_chars": 80, "hold_chars": 400}}}})
    answer = ("many words that are held. ",) * 20_000
    loop, taken = TurningLoop(), 0
    with closing(loop), pytest.MonkeyPatch.context() as monkeypatch:

        def judge(_: str, texts: list[str]) -> Act:
            nonlocal taken
            taken += 1
            return verdict(texts, 4.0)

        run = JudgedRun(loop, table, {"a": [Act(texts=answer)]}, monkeypatch, judge=judge)

        async def ask() -> int:
            clients = [Client(run, stream=True) for _ in range(number)]
            tasks = [asyncio.ensure_future(client.run()) for client in clients]
            tracemalloc.start()
            await asyncio.sleep(3 * 4.0 + 2.0)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            for client in clients:
                client.line.lose()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)
            assert run.left_behind() == {}
            return held

        held = loop.run_until_complete(ask())
    assert taken == 4 * number
    assert held / number < 100_000


@pytest.mark.slow
def test_page_states_the_measured_delays() -> None:
    page = Path(judged.__file__).parents[1] / "docs" / "operate" / "moderation.md"
    assert judged.table() in page.read_text("utf-8"), "write the table of `python -m bench.judged` into the page"
