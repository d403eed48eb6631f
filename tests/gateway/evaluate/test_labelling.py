"""Labels on a candidate's answers, by the functions of traffic; the profile that stands before a question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.evaluate.candidate_client import Asked, CandidateClient, Timing
from gateway.evaluate.compliance import labelled
from gateway.evaluate.items import RecordedAnswer
from gateway.evaluate.run_store import RunStore
from gateway.execution.transport import PoolTransport
from gateway.model.region_text import SEPARATOR, Label, Locale, Profile, RegionText
from providers.chat import ChatRequest, SystemMessage, UserMessage
from tests.kit.evaluation_candidates import table_for

TABLE = table_for({"one": "http://127.0.0.1:9001"})
LABEL = Label("cn-gb45438", "内容由AI生成", "always", "00119101")


def region_with(voice: Locale):
    known = tuple(label.text + SEPARATOR for label in voice.labels)
    return replace(TABLE.regions["cn"], speech=RegionText(voice, {voice.locale: voice}, {}, known))


def test_every_answer_is_labelled_whole_and_as_a_stream_and_read_back(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {"suite": "l"})
    for number, text in enumerate(("你好。", "第一。\n\n第二。", "")):
        store.add("one", "compliance", f"i/{number}", Asked(Timing(0.1), RecordedAnswer(text)))
    region = region_with(Locale("zh", (LABEL,)))
    found = labelled(store, "one", region)
    assert found is not None
    assert (found.value, found.of) == (1, 2)
    assert labelled(store, "one", TABLE.regions["cn"]) is None
    # Words that nobody would take off again aren't read back.
    assert region.speech is not None
    forgotten = replace(region, speech=replace(region.speech, known=(), locales={}))
    lost = labelled(store, "one", forgotten)
    assert lost is not None
    assert lost.value == 0
    store.close()


async def test_a_question_is_asked_as_the_region_has_its_assistants_speak() -> None:
    profile = Profile("zh-Hans-CN", (("units", "Use metric units."),))
    asker = CandidateClient(
        TABLE, TABLE.assistants["assistant"], region_with(Locale("zh", (), profile)), PoolTransport()
    )
    request = ChatRequest("assistant", (UserMessage("?"),))
    spoken = asker.as_spoken(request)
    assert isinstance(spoken.messages[0], SystemMessage)
    assert "Use metric units." in str(spoken.messages[0].content)
    assert spoken.messages[1:] == request.messages
    plain = CandidateClient(TABLE, TABLE.assistants["assistant"], TABLE.regions["cn"], PoolTransport())
    assert plain.as_spoken(request) is request
    await asker.aclose()
    await plain.aclose()
