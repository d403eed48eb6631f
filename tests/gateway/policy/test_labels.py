"""Labels: put before a text, reported in the body, and removed from the history."""

import hashlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.region_text import SEPARATOR, Label, Locale, RegionText, Show
from gateway.policy.labels import (
    Integrity,
    Prefixer,
    integrity_of,
    is_first_turn,
    label_completion,
    labelling_of,
    marks,
    strip,
    without_labels,
)
from providers import chat
from providers.reading.folding import expand, fold, unfold
from tests.kit.case_files import cases

CN = Label("cn-gb45438", "内容由AI生成", "always", "00119101")
EU = Label("eu-art50", "You are talking to an AI system.", "first_turn")
HOUSE = Label("house", "House rules.", "always")
SILENT = Label("silent", "Nobody sees this.", "never")
ASK = chat.UserMessage("Hello")
CALLS = chat.AssistantMessage(None, tool_calls=(chat.ToolCall("c1", "look", "{}"),))


def speech_of(*labels: Label, also: tuple[str, ...] = ()) -> RegionText:
    voice = Locale("en", labels)
    known = sorted({*(label.text + SEPARATOR for label in (CN, EU, HOUSE)), *also}, key=len, reverse=True)
    return RegionText(voice, {"en": voice}, {}, tuple(known))


def request(*messages: chat.Message, **more: object) -> chat.ChatRequest:
    return chat.ChatRequest("assistant", messages or (ASK,), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "first"),
    [
        ((ASK,), True),
        ((chat.SystemMessage("Be kind"), ASK), True),
        ((ASK, CALLS, chat.ToolMessage("c1", "3")), True),
        ((ASK, chat.AssistantMessage(""), ASK), True),
        ((ASK, chat.AssistantMessage((chat.TextPart(""),)), ASK), True),
        ((ASK, chat.AssistantMessage("Hi"), ASK), False),
        ((ASK, chat.AssistantMessage((chat.TextPart("Hi"),)), ASK), False),
    ],
)
def test_first_turn_ends_with_the_first_text_answer(history: tuple[chat.Message, ...], first: bool) -> None:
    assert is_first_turn(history) is first


LATER = (ASK, chat.AssistantMessage("Hi"), ASK)


@pytest.mark.parametrize(
    ("labels", "asked", "prefix", "due"),
    [
        ((CN,), request(), "内容由AI生成\n\n", {"cn-gb45438"}),
        ((CN,), request(*LATER), "内容由AI生成\n\n", {"cn-gb45438"}),
        ((EU,), request(), "You are talking to an AI system.\n\n", {"eu-art50"}),
        ((EU,), request(*LATER), "", set()),
        ((CN, EU), request(), "内容由AI生成\n\nYou are talking to an AI system.\n\n", {"cn-gb45438", "eu-art50"}),
        ((CN, EU), request(*LATER), "内容由AI生成\n\n", {"cn-gb45438"}),
        ((SILENT,), request(), "", {"silent"}),
        ((CN, EU), request(response_format=chat.JsonObjectFormat()), "", {"cn-gb45438", "eu-art50"}),
    ],
)
def test_labels_of_an_answer(labels: tuple[Label, ...], asked: chat.ChatRequest, prefix: str, due: set[str]) -> None:
    labelling = labelling_of(Locale("en", labels), asked)
    assert (labelling.prefix, labelling.due) == (prefix, due)
    assert labelling.names == tuple(label.name for label in labels)
    assert labelling.has_integrity is (CN in labels)


def test_region_without_labels_has_no_labelling() -> None:
    assert labelling_of(Locale("en"), request()) is None


def completion(*choices: chat.Choice) -> chat.ChatCompletion:
    return chat.ChatCompletion("id", "m", 1, choices)


def test_only_text_answers_are_labelled() -> None:
    labelling = labelling_of(Locale("en", (CN,)), request())
    assert labelling is not None
    plain = chat.Choice(chat.AssistantMessage("Hi"), "stop")
    called = chat.Choice(CALLS, "tool_calls", 1)
    refused = chat.Choice(chat.AssistantMessage("", refusal="I won't"), "stop", 2)
    texts = label_completion(completion(plain, called, refused), labelling).choices
    assert [choice.message.content for choice in texts] == ["内容由AI生成\n\nHi", None, ""]
    assert texts[1].message.tool_calls == CALLS.tool_calls
    assert texts[2].message.refusal == "I won't"


def test_answer_without_text_is_not_labelled() -> None:
    """The same object: by that the body knows whether the words are in the text."""
    labelling = labelling_of(Locale("en", (CN,)), request(response_format=chat.JsonObjectFormat()))
    assert labelling is not None
    answer = completion(chat.Choice(chat.AssistantMessage("{}"), "stop"))
    assert label_completion(answer, labelling) is answer


TEXTS = st.text(max_size=40)


@given(
    st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), min_size=1, max_size=3),
    st.sampled_from([(CN,), (EU,), (CN, HOUSE), (SILENT,)]),
)
def test_stream_and_whole_answer_have_the_same_labels(
    answers: list[tuple[str, str, bool]], labels: tuple[Label, ...]
) -> None:
    labelling = labelling_of(Locale("en", labels), request())
    assert labelling is not None
    choices = tuple(
        chat.Choice(
            chat.AssistantMessage(
                text,
                reasoning=thought or None,
                tool_calls=CALLS.tool_calls if calls else (),
                annotations=(cited(1, 3),) if calls else (),
            ),
            "stop",
            i,
        )
        for i, (text, thought, calls) in enumerate(answers)
    )
    answer = fold(unfold(completion(*choices)))
    assert fold(Prefixer(labelling.prefix).add(unfold(answer))) == label_completion(answer, labelling)


def cited(start: object, end: object) -> dict[str, object]:
    return {
        "type": "url_citation",
        "url_citation": {"start_index": start, "end_index": end, "url": "https://x.example"},
    }


def test_annotation_positions_are_shifted_by_the_label() -> None:
    labelling = labelling_of(Locale("en", (CN,)), request())
    by = len(labelling.prefix)
    annotations = (cited(0, 2), cited(None, 2**64), {"start_index": 1, "x": ["start_index"]})
    answer = completion(
        chat.Choice(chat.AssistantMessage("Hi", annotations=annotations), "stop"),
        chat.Choice(chat.AssistantMessage("", annotations=annotations), "stop", 1),
    )
    labelled = label_completion(answer, labelling)
    moved = (cited(by, by + 2), cited(None, 2**64), {"start_index": by + 1, "x": ["start_index"]})
    assert [choice.message.annotations for choice in labelled.choices] == [moved, annotations]
    assert fold(Prefixer(labelling.prefix).add(unfold(answer))) == labelled


def test_label_precedes_the_first_text_and_not_the_reasoning() -> None:
    events: list[chat.StreamEvent] = [
        chat.Opened("i", "m", 1),
        chat.ReasoningDelta("hm"),
        chat.TextDelta(""),
        chat.TextRun((b"a", b"b")),
        chat.TextDelta("c", 1),
        chat.TextDelta("d"),
        chat.ChoiceFinish("stop"),
        chat.Finished(),
    ]
    labelled = list(Prefixer("L\n\n").add(events))
    assert labelled == [*events[:3], chat.TextDelta("L\n\n"), events[3], chat.TextDelta("L\n\n", 1), *events[4:]]


# --- the marks ------------------------------------------------------------------------------------


def test_aigc_object_has_the_seven_fields_of_the_standard() -> None:
    labelling = labelling_of(Locale("zh", (CN, EU)), request(*LATER))
    assert labelling is not None
    answer = label_completion(completion(chat.Choice(chat.AssistantMessage("你好"), "stop")), labelling)
    value = integrity_of(answer, labelling)
    objects = json.loads(json.dumps(marks(labelling, "req_1", value, in_content=True)))
    assert objects == [
        {
            "name": "cn-gb45438",
            "ai_generated": True,
            "text": "内容由AI生成",
            "in_content": True,
            "AIGC": {
                "Label": "1",
                "ContentProducer": "00119101",
                "ProduceID": "req_1",
                "ReservedCode1": "sha256:" + hashlib.sha256("内容由AI生成\n\n你好".encode()).hexdigest(),
                "ContentPropagator": "00119101",
                "PropagateID": "req_1",
                "ReservedCode2": "",
            },
        },
        {"name": "eu-art50", "ai_generated": True},
    ]
    assert all(re.fullmatch(r"[\x21\x23-\x5B\x5D-\x7E]*", value) for value in objects[0]["AIGC"].values())


def test_hidden_label_is_reported_as_not_in_the_text() -> None:
    labelling = labelling_of(Locale("en", (HOUSE, SILENT)), request())
    assert labelling is not None
    assert [mark["in_content"] for mark in marks(labelling, "req_1", in_content=True)] == [True, False]
    assert [mark["in_content"] for mark in marks(labelling, "req_1", in_content=False)] == [False, False]


def test_half_a_character_has_an_integrity_value_too() -> None:
    integrity = Integrity()
    integrity.add("\ud83d")
    assert integrity.value == "sha256:" + hashlib.sha256(b"\xed\xa0\xbd").hexdigest()


@given(st.lists(st.tuples(TEXTS, st.integers(0, 2)), max_size=8))
def test_integrity_value_does_not_depend_on_the_pieces(pieces: list[tuple[str, int]]) -> None:
    integrity = Integrity()
    texts: dict[int, str] = {}
    for text, choice in pieces:
        integrity.add(text, choice)
        texts[choice] = texts.get(choice, "") + text
    texts = {choice: text for choice, text in texts.items() if text}
    hashes = [hashlib.sha256(text.encode()).hexdigest() for _, text in sorted(texts.items())]
    assert integrity.value == ",".join(f"sha256:{one}" for one in hashes)


# --- answers in the history -----------------------------------------------------------------------

SPEECHES = st.sampled_from([speech_of(CN), speech_of(EU), speech_of(CN, HOUSE), speech_of(EU, HOUSE)])
ANY_TEXT = st.one_of(TEXTS, st.sampled_from([CN.text, EU.text, "内容由AI", " 内容由AI生成\n\nx", "x内容由AI生成\n\n"]))


def labelled_text(text: str, speech: RegionText, *, first: bool) -> str:
    return (speech.default_locale.first if first else speech.default_locale.later) + text if text else text


@given(SPEECHES, st.lists(ANY_TEXT.filter(bool), min_size=1, max_size=4))
def test_label_is_removed_from_the_history(speech: RegionText, texts: list[str]) -> None:
    """Every answer of a conversation as the model gave it, except one that itself begins with a label's words."""
    history: list[chat.Message] = []
    bare: list[chat.Message] = []
    for number, text in enumerate(texts):
        is_labelled = speech.default_locale.later if number else speech.default_locale.first
        if not is_labelled and strip(text, (), speech.known) != text:
            text = f"- {text}"
        history += [
            chat.UserMessage(f"内容由AI生成\n\n{text}"),
            chat.AssistantMessage(labelled_text(text, speech, first=not number)),
        ]
        bare += [history[-2], chat.AssistantMessage(text)]
    assert without_labels(tuple(history), speech) == tuple(bare)


@given(SPEECHES, ANY_TEXT.filter(bool), st.integers(0, 200), st.booleans())
def test_an_answer_that_was_cut_comes_off_as_far_as_it_came(
    speech: RegionText, text: str, length: int, in_parts: bool
) -> None:
    """Cut the answer after the label, as a stream is: the label is one event."""
    prefix = speech.default_locale.first
    cut = (prefix + text)[: len(prefix) + length]
    content = (chat.TextPart(cut), chat.TextPart("more")) if in_parts else cut
    [message] = without_labels((chat.AssistantMessage(content),), speech)
    assert isinstance(message, chat.AssistantMessage)
    assert message.content == ((chat.TextPart(text[:length]), chat.TextPart("more")) if in_parts else text[:length])


@pytest.mark.parametrize(
    ("parts", "remaining"),
    [
        ((chat.TextPart("内容由AI生成\n\n你好"),), (chat.TextPart("你好"),)),
        ((chat.TextPart("你好"),), (chat.TextPart("你好"),)),
        (
            (chat.TextPart("你好"), chat.TextPart("内容由AI生成\n\n")),
            (chat.TextPart("你好"), chat.TextPart("内容由AI生成\n\n")),
        ),
    ],
)
def test_label_is_removed_from_the_first_text_part(
    parts: tuple[chat.TextPart, ...], remaining: tuple[chat.TextPart, ...]
) -> None:
    assert without_labels((chat.AssistantMessage(parts),), speech_of(CN)) == (chat.AssistantMessage(remaining),)


@cases("text", "remaining")
def test_unexpected_labels_are_removed_once_and_completely(text: str, remaining: str) -> None:
    assert strip(text, (), speech_of(CN).known) == remaining


def test_history_is_unchanged_without_labels() -> None:
    history = (ASK, chat.AssistantMessage("内容由AI生成\n\n你好"))
    assert without_labels(history, RegionText(Locale("en"), {})) is history


@cases("trimmed")
def test_answer_that_is_only_labels_becomes_empty(trimmed: str) -> None:
    [message] = without_labels((chat.AssistantMessage(trimmed),), speech_of(CN, HOUSE))
    assert message == chat.AssistantMessage("")


def test_labels_of_another_region_and_of_earlier_come_off_too() -> None:
    speech = speech_of(EU, also=("AI made this\n\n",))
    history = (
        ASK,
        chat.AssistantMessage("内容由AI生成\n\n你好"),
        ASK,
        chat.AssistantMessage("AI made this\n\nHouse rules.\n\nBonjour"),
    )
    assert without_labels(history, speech) == (
        ASK,
        chat.AssistantMessage("你好"),
        ASK,
        chat.AssistantMessage("Bonjour"),
    )


@given(st.lists(st.sampled_from([CN.text, EU.text, HOUSE.text, SEPARATOR, "x"]), max_size=6).map("".join))
def test_user_and_tool_messages_are_unchanged(text: str) -> None:
    history = (
        chat.SystemMessage(text),
        chat.UserMessage(text),
        chat.UserMessage((chat.TextPart(text),)),
        chat.ToolMessage("c", text),
    )
    assert without_labels(history, speech_of(CN, EU)) is history


def test_answer_with_calls_only_does_not_count_as_the_first_text() -> None:
    """The label of the first turn is removed alone: the text after it is the model's."""
    answer = labelled_text("House rules.\n\nThree.", speech_of(EU), first=True)
    history = (ASK, CALLS, chat.ToolMessage("c1", "3"), chat.AssistantMessage(answer))
    assert without_labels(history, speech_of(EU))[-1] == chat.AssistantMessage("House rules.\n\nThree.")


@pytest.mark.parametrize("show", ["always", "first_turn", "never"])
def test_runs_of_raw_bytes_stay_runs(show: Show) -> None:
    label = Label("x", "Words", show)
    run = chat.TextRun((b"a", b"\\u00e9"))
    prefix = label.prefix(first_turn=True)
    labelled = list(Prefixer(prefix).add([run, run]))
    assert labelled[-2:] == [run, run]
    assert "".join(event.text for event in expand(labelled) if isinstance(event, chat.TextDelta)) == prefix + "aéaé"
