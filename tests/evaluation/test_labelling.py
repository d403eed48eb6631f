"""Labels on a candidate's answers, made by the functions for traffic, and the profile before a question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluation.candidate_client import CandidateClient, QuestionResult, Timing
from evaluation.compliance import labelled
from evaluation.items import RecordedAnswer
from evaluation.run_store import RunStore
from gateway.execution.transport import PoolTransport
from gateway.model.region_text import SEPARATOR, Label, Locale, Profile, RegionText
from providers.chat import ChatRequest, SystemMessage, UserMessage
from tests.kit.evaluation_candidates import table_for

TABLE = table_for({"one": "http://127.0.0.1:9001"})
LABEL = Label("cn-gb45438", "内容由AI生成", "always", "00119101")


def region_with(voice: Locale):
    known = tuple(label.text + SEPARATOR for label in voice.labels)
    return replace(TABLE.regions["cn"], texts=RegionText(voice, {voice.locale: voice}, {}, known))


def test_labels_are_added_to_whole_and_streamed_answers_and_removed_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {"suite": "l"})
    for number, text in enumerate(("你好。", "第一。\n\n第二。", "")):
        store.add("one", "compliance", f"i/{number}", QuestionResult(Timing(0.1), RecordedAnswer(text)))
    region = region_with(Locale("zh", (LABEL,)))
    found = labelled(store, "one", region)
    assert found is not None
    assert (found.value, found.of) == (1, 2)
    assert labelled(store, "one", TABLE.regions["cn"]) is None
    # A label that the region does not know can't be removed.
    assert region.texts is not None
    forgotten = replace(region, texts=replace(region.texts, known=(), locales={}))
    lost = labelled(store, "one", forgotten)
    assert lost is not None
    assert lost.value == 0
    store.close()


async def test_question_has_the_region_profile() -> None:
    profile = Profile("zh-Hans-CN", (("units", "Use metric units."),))
    asker = CandidateClient(
        TABLE, TABLE.assistants["assistant"], region_with(Locale("zh", (), profile)), PoolTransport()
    )
    request = ChatRequest("assistant", (UserMessage("?"),))
    prepared = asker.with_profile(request)
    assert isinstance(prepared.messages[0], SystemMessage)
    assert "Use metric units." in str(prepared.messages[0].content)
    assert prepared.messages[1:] == request.messages
    plain = CandidateClient(TABLE, TABLE.assistants["assistant"], TABLE.regions["cn"], PoolTransport())
    assert plain.with_profile(request) is request
    await asker.aclose()
    await plain.aclose()
