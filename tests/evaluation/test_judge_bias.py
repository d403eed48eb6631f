"""Biases of a judge: the length of answers, its own vendor, and the distance to marks of people."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.items import Item, JudgeCheck, RecordedAnswer
from evaluation.judge import pair_axis, pairs_of
from evaluation.judge_bias import JudgeBias, bias_notices, measure_bias, vendor_of
from evaluation.performance import AXIS
from evaluation.run_store import RunStore
from evaluation.scorers import Score
from gateway.cli import main
from gateway.model.deployment import Deployment
from providers.registry import load_registry
from providers.testkit.answer_quality import AnswerQuality, Reply
from providers.testkit.scenario import Scenario
from tests.kit.evaluation_candidates import config_of, servers, suite_in, table_for

TABLE = table_for(dict.fromkeys(("one", "two", "judge"), "http://127.0.0.1:9001"))
ONE, TWO, JUDGE = (TABLE.deployments[name] for name in ("one", "two", "judge"))
ITEMS = tuple(Item(f"s/{number:03}", "g", "en", f"Question {number}?", JudgeCheck("kind")) for number in range(150))


def compared(folder: Path, words: dict[str, list[int]], wins: list[bool]) -> RunStore:
    """Return a run with answers of these lengths, and pairs that the first candidate won or lost."""
    store = RunStore(folder, {})
    for name, lengths in words.items():
        for item, length in zip(ITEMS, lengths, strict=False):
            store.add(name, AXIS, item.id, QuestionResult(Timing(0.1), RecordedAnswer("word " * length)))
    for item, won in zip(ITEMS, wins, strict=False):
        for order in (1, 2):
            better = "A" if won == (order == 1) else "B"
            reply = RecordedAnswer(f'{{"better": "{better}"}}')
            store.add("judge", pair_axis("one", "two"), f"{item.id}#{order}", QuestionResult(Timing(0.1), reply))
    return store


def bias_of(store: RunStore, scores: dict[str, dict[str, Score]] | None = None, **more: object) -> JudgeBias:
    given: dict[str, object] = {"candidates": [ONE, TWO], "judge": JUDGE, "marks": None, **more}
    return measure_bias(store, AXIS, ITEMS, verdicts=scores or {}, **given)  # type: ignore[arg-type]


def test_judge_that_prefers_length_is_reported_with_its_choices_at_similar_length(tmp_path: Path) -> None:
    draw = random.Random(5)
    own, other = [draw.randint(20, 200) for _ in ITEMS], [draw.randint(20, 200) for _ in ITEMS]
    wins = [
        mine > theirs if max(mine, theirs) > 1.25 * min(mine, theirs) else draw.random() < 0.5
        for mine, theirs in zip(own, other, strict=True)
    ]
    store = compared(tmp_path, {"one": own, "two": other}, wins)
    bias, pairs = bias_of(store), pairs_of(store, "judge", ["one", "two"])
    store.close()
    [preference] = bias.preferences
    assert (preference.by, preference.is_measurable) == ("pair", True)
    assert preference.longer is not None
    assert preference.longer.value > 0.85
    assert preference.similar is not None
    assert preference.similar.low < 0.5 < preference.similar.high, "at similar length it has no preference"
    assert bias.lengths["one"].value == pytest.approx(sum(own) / len(own))
    assert bias.lengths["one"].low < 110 < bias.lengths["one"].high
    [notice] = bias_notices("judge", bias, [replace(pairs[0], p=0.5)])
    assert "preferred the longer answer in" in notice
    assert "have people mark answers (--marks)" in notice


def test_judge_without_a_preference_by_length_is_not_reported(tmp_path: Path) -> None:
    draw = random.Random(6)
    lengths = {name: [draw.randint(20, 200) for _ in ITEMS] for name in ("one", "two")}
    store = compared(tmp_path, lengths, [draw.random() < 0.5 for _ in ITEMS])
    bias = bias_of(store)
    store.close()
    assert not bias.preferences[0].is_measurable
    assert bias_notices("judge", bias, []) == []


def test_preference_by_length_is_found_in_scores_of_rubrics(tmp_path: Path) -> None:
    """The judge gives more points to longer answers. `two` writes twice as much."""
    store = compared(tmp_path, {"one": [40] * 150, "two": [80] * 150}, [])
    scores = {
        "one": {item.id: Score(0.5) for item in ITEMS},
        "two": {item.id: Score(0.75 if number % 10 else 0.25) for number, item in enumerate(ITEMS)},
    }
    bias = bias_of(store, scores)
    store.close()
    [preference] = bias.preferences
    assert preference.longer is not None
    assert (preference.by, preference.longer.value, preference.similar) == ("scores", pytest.approx(0.9), None)
    [notice] = bias_notices("judge", bias, [])
    assert "in 90.0% (" not in notice
    assert "preferred the longer answer in 90.0% of 150 scores" in notice
    assert "mean lengths: one 40 words, two 80 words" in notice
    assert "no answers of similar length were decided" in notice


@pytest.mark.parametrize(
    ("provider", "model", "vendor"),
    [
        ("dashscope", "qwen3-max", "Alibaba"),
        ("siliconflow", "Qwen/Qwen3-235B-A22B", "Alibaba"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "Anthropic"),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-v1:0", "Anthropic"),
        ("azure", "gpt-5-mini", "OpenAI"),
        ("openai", "o4-mini", "OpenAI"),
        ("groq", "openai/gpt-oss-120b", "OpenAI"),
        ("ark", "doubao-seed-1-6", "ByteDance"),
        ("moonshot", "my-tuned-model", "Moonshot"),
        ("ark", "ep-20250101-abcde", None),
        ("zhipu", "glm-5", "Zhipu"),
        ("qianfan", "deepseek-v3", "DeepSeek"),
        ("vllm", "my-own-model", None),
    ],
)
def test_vendor_of_a_model_is_known_also_at_other_hosts(provider: str, model: str, vendor: str | None) -> None:
    adapter = load_registry().adapters[provider]
    assert vendor_of(replace(ONE, provider=provider, adapter=adapter, model=model)) == vendor


def test_judge_of_the_candidates_vendor_is_reported(tmp_path: Path) -> None:
    def served(one: Deployment, provider: str, model: str) -> Deployment:
        return replace(one, provider=provider, model=model)

    store = RunStore(tmp_path, {})
    bias = bias_of(
        store,
        candidates=[served(ONE, "siliconflow", "Qwen/Qwen3-32B"), served(TWO, "qianfan", "ernie-5.1")],
        judge=served(JUDGE, "dashscope", "qwen3-max"),
    )
    store.close()
    assert bias.vendors == {"one": "Alibaba"}
    [notice] = bias_notices("judge", bias, [])
    assert notice.startswith("The judge judge and one are models of the same vendor (Alibaba).")


def test_scores_are_calibrated_with_marks_of_people(tmp_path: Path) -> None:
    """The judge is one point milder than people with `one`, and agrees with people on `two`."""
    draw = random.Random(7)
    truth = {item.id: draw.choice([1, 2, 3, 4]) for item in ITEMS}
    scores = {
        "one": {item: Score(mark / 4) for item, mark in truth.items()},
        "two": {item: Score((mark - 1) / 4) for item, mark in truth.items()},
    }
    marked = sorted(truth)[:40]
    marks = {name: {item: truth[item] for item in marked} for name in ("one", "two")}
    store = RunStore(tmp_path, {})
    bias = bias_of(store, scores, marks=marks)
    store.close()
    mild, fair = bias.calibration["one"], bias.calibration["two"]
    assert mild.higher_by is not None
    assert (mild.higher_by.value, mild.higher_by.of) == (pytest.approx(1.0), 40)
    assert fair.higher_by is not None
    assert fair.higher_by.value == pytest.approx(0.0)
    mean = sum(truth.values()) / len(truth)
    assert mild.corrected is not None
    assert mild.corrected.value == pytest.approx(mean)
    assert mild.corrected.low < mean < mild.corrected.high
    assert fair.agrees is not None
    assert fair.agrees.value == 1
    [notice] = bias_notices("judge", bias, [])
    assert notice == "On 40 marked answers of one, the judge judge scores 1.00 of 5 points higher than people."


def test_preference_without_marks_is_reported_as_unchecked(tmp_path: Path) -> None:
    store = compared(tmp_path, {"one": [50] * 150, "two": [50] * 150}, [True] * 150)
    bias, pairs = bias_of(store), pairs_of(store, "judge", ["one", "two"])
    store.close()
    [notice] = bias_notices("judge", bias, pairs)
    assert notice == "The preferences of the judge judge are not checked against marks of people (--marks)."


class LengthJudge(AnswerQuality):
    """A judge that gives more points to longer answers."""

    def reply_to(self, question: str) -> Reply | None:
        answer = question.split("<<ANSWER ")[-1]
        return Reply(json.dumps({"score": 5 if len(answer) > 400 else 2, "reason": "thorough"}))


def test_report_of_a_biased_judge_names_its_bias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The long answers are not better. Without the notice, the report states "better by 75 points" as a fact."""
    asked = [{"ask": f"Describe day {number}.", "rubric": "is kind", "right": "Kind."} for number in range(30)]
    (tmp_path / "rubrics.yaml").write_text(json.dumps({"version": 1, "language": "en", "items": {"days": asked}}))
    suite_in(tmp_path, "performance: {sets: [{name: a, file: rubrics.yaml}]}\njudge: {deployment: judge}\n")
    scenarios = {
        "one": Scenario(text="A plain and kind day."),
        "two": Scenario(text="A plain and kind day. " * 30),
        "judge": Scenario(aptitude=LengthJudge({})),
    }
    monkeypatch.setenv("KEY", "sk-test")
    out = tmp_path / "out"
    with servers(scenarios) as thread:
        config = config_of({name: thread[name].origin for name in scenarios})
        text = config.text.replace("m-two", "qwen3-max").replace("m-judge", "qwen3-max")
        (tmp_path / "gateway.yaml").write_text(text, "utf-8")
        named = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml"), "--region", "cn"]
        main(["evaluate", *named, "--candidates", "one,two", "--out", str(out)])
    shown = capsys.readouterr().out
    page, markdown = ((out / name).read_text("utf-8") for name in ("report.html", "report.md"))
    for text in (shown, page, markdown):
        assert "The judge judge and two are models of the same vendor (Alibaba)." in text
        assert "The judge judge preferred the longer answer in 100.0% of 30 scores" in text
    assert "with scores of the judge judge" in page
    report = json.loads((out / "report.json").read_text("utf-8"))
    lengths = report["judge_bias"]["lengths"]
    assert (lengths["one"]["value"], lengths["two"]["value"]) == (5, 150)
    best = report["candidates"]["two"]["performance"]["best"]
    assert len(best) == 20, "answers that the judge praised are listed, too"
    assert "Answers with the highest scores" in page
    assert "Answers with the highest scores" in markdown
