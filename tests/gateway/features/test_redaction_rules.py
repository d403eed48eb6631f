"""Values are found, numbered and restored: a table of cases, and properties over random texts and random cuts."""

import json
import re
import time
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.execution.judging import pieces_of
from gateway.features.redaction.model import BUILT_IN, RedactionRules, rules_of, union
from gateway.features.redaction.policy import finding
from gateway.features.redaction.policy.answers import AnswerRestorer
from gateway.features.redaction.policy.finding import Clock, Finder, _Subject, compiled_own, finder_of
from gateway.features.redaction.policy.forms import countries, forms
from gateway.features.redaction.policy.placeholders import MOST_HELD, Placeholders, Restorer
from gateway.features.redaction.policy.requests import redact
from gateway.model.wrapper import TooMuchToSearch, WrapperNote
from providers import chat
from tests.kit.case_files import cases

CASES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "redaction_cases.yaml").read_text("utf-8"))
RULES = rules_of(
    ["all"],
    set(BUILT_IN) - {"ip"},
    countries(),
    ["Project Nightjar", "ACME_X", "项目夜鹰", "Cafe\u0301 Noir"],
    [("TICKET", "ACME-[0-9]{6}"), ("MEMBER", r"member no\. ([0-9]{5})")],
)


def named(rules: RedactionRules = RULES) -> Placeholders:
    return Placeholders(rules)


@pytest.mark.parametrize("case", CASES["found"], ids=lambda case: str(case["text"])[:40])
def test_a_value_is_found(case: dict[str, Any]) -> None:
    """`<…>` marks each value, and `kinds` are those of the values in order."""
    text = case["text"].replace("‹", "").replace("›", "")
    values = [part.partition("›")[0] for part in case["text"].split("‹")[1:]]
    spans = finder_of(RULES).find(text)
    assert [text[start:end] for start, end, _ in spans] == values
    assert [kind.lower() for _, _, kind in spans] == case["kinds"].split()


@pytest.mark.parametrize("text", CASES["not_found"])
def test_no_value_is_found(text: str) -> None:
    assert [text[start:end] for start, end, _ in finder_of(RULES).find(text)] == []


@pytest.mark.parametrize("text", CASES["addresses"])
def test_an_address_is_found_next_to_colons(text: str) -> None:
    """A name that ends with a colon stands before it, and a port follows it."""
    written = text.replace("‹", "").replace("›", "")
    found = finder_of(rules_of(["ip"], ["ip"])).find(written)
    assert [written[start:end] for start, end, _ in found] == re.findall("‹(.*?)›", text)


def test_terms_that_overlap_are_one_value() -> None:
    rules = rules_of(["t"], (), terms=["New York", "York Times", "Times", "夜鹰计划", "项目夜鹰", "y"])
    for text in ("new  York Times", "项目夜鹰计划"):
        assert named(rules)(f"{text}, {text}!") == "QTERM1Z, QTERM1Z!"
    assert named(rules)("New York, Times") == "QTERM1Z, QTERM2Z"
    assert named(rules)("New Yorks Times") == "New Yorks QTERM1Z"


def test_each_country_has_an_identity_number_and_phone_numbers() -> None:
    kinds = {(form.country, form.kind) for form in forms()}
    assert kinds >= {
        (country, kind) for country in ("CN", "DE", "FR", "GB", "JP", "KR", "SG", "US") for kind in ("ID", "PHONE")
    }


PIECES = st.sampled_from(
    "jane@example.com|+49 171 1234567|4111 1111 1111 1111|DE89370400440532013000|项目夜鹰|ACME-123456|QEMAIL1Z|qtext2z|Q|QEM"
    "|QEMAIL1|Z|1| |, |\n|\\n|é|身份证|_|%20|(|text".split("|")
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
PLACEHOLDER = re.compile(f"Q(?:{'|'.join(RULES.placeholder_kinds)})[1-9][0-9]{{0,5}}Z", re.I)
WAYS = (
    str, quote, lambda it: json.dumps(it)[1:-1], lambda it: "".join(f"{letter}\u200b" for letter in it),
    lambda it: it.replace(" ", "\u00a0").replace("-", "\u2011"), lambda it: it.replace(" ", "\\u00a0"),
    lambda it: "".join(chr(ord(letter) + 0xFEE0) if letter.isdigit() or letter in "@+-()" else letter for letter in it),
    lambda it: re.sub("[^A-Za-z0-9]", lambda letter: f"\\u{ord(letter[0]):04X}", it),
)  # fmt: skip
"""Ways in which a value is written: as it is, in a URL, in JSON, with characters that no reader sees, in full width."""
SAMPLES = {
    "email": "jane.doe@example.com", "phone": "+49 171 1234567", "card": "4111 1111 1111 1111", "term": "Project Nightjar",
    "iban": "DE89 3704 0044 0532 0130 00", "id": "123-45-6789", "secret": "sk-ant-api03-abcdefghijklmnopqrst",
    "ticket": "ACME-123456",
}  # fmt: skip


def restored(found: Placeholders, pieces: list[str], *, in_json: bool = False) -> str:
    restorer = Restorer(found, in_json=in_json)
    shown, given_so_far = "", 0
    for piece in pieces:
        given_so_far += len(piece)
        shown += restorer.feed(piece)
        assert len(restorer.held) <= MOST_HELD
    return shown + restorer.close()


def cut(text: str, at: list[int]) -> list[str]:
    places = sorted({place % (len(text) + 1) for place in at})
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@given(TEXTS, st.lists(st.integers(0, 500), max_size=8))
def test_an_echo_comes_back_as_it_was_in_every_cut(text: str, at: list[int]) -> None:
    found = named()
    sent = found(text)
    assert restored(found, cut(sent, at)) == restored(found, [sent]) == text


@given(TEXTS, TEXTS)
def test_a_longer_conversation_keeps_the_placeholders_of_its_beginning(first: str, more: str) -> None:
    one, both = named(), named()
    sent = one(first)
    assert both(first) == sent
    both(more)
    assert both(first) == sent


@given(st.lists(st.sampled_from(["{m}", "{p}", "{c}", " and ", "text", "\n"]), max_size=10))
def test_requests_that_differ_in_values_only_are_sent_as_the_same_bytes(parts: list[str]) -> None:
    text = " ".join(parts)
    twins = [
        text.format(m="a@x.org", p="+49 171 1234567", c="4111 1111 1111 1111"),
        text.format(m="jane.doe@example.com", p="0049 30 99887766", c="378282246310005"),
    ]
    assert len({named()(twin) for twin in twins}) == 1


@given(TEXTS, st.lists(st.integers(0, 500), max_size=5))
def test_each_part_has_placeholders_for_its_values_and_all_parts_come_back(text: str, at: list[int]) -> None:
    found = named()
    parts = found.parts(cut(text, at))
    for part in parts:
        assert all(PLACEHOLDER.fullmatch(part[start:end]) for start, end, _ in finder_of(RULES).find(part)), parts
    assert restored(found, ["".join(parts)]) == text


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize("value", [*SAMPLES.values(), PEM])
def test_a_value_takes_no_word_of_the_part_before_or_after_it(value: str) -> None:
    (kind,) = {kind for _, _, kind in finder_of(RULES).find(value)}
    placeholder = f"Q{kind}1Z"
    for first, last in (
        ("Please answer", "Please answer"),
        ("in 2026", "x007 is next"),
        ("Q", "1Z"),
        ("-", "-"),
        ("的", "的"),
    ):
        assert named().parts([first, value, last]) == [first, placeholder, last]
        assert named().parts([f"{first} {value}", last]) == [f"{first} {placeholder}", last]
        assert named().parts([first, f"{value} {last}"]) == [first, f"{placeholder} {last}"]


@pytest.mark.parametrize("value", [*SAMPLES.values(), PEM])
def test_a_value_that_is_cut_between_parts_is_one_value_where_no_part_contains_one(value: str) -> None:
    rules = rules_of(["two"], RULES.kinds, ["DE", "US"], RULES.terms, RULES.patterns)
    finder, cuts = finder_of(rules), 0
    (kind,) = {kind for _, _, kind in finder.find(value)}
    for at in range(1, len(value)):
        first, last = f"of {value[:at]}", f"{value[at:]} and more"
        if finder.find(first) or finder.find(last):
            continue
        cuts += 1
        assert named(rules).parts([first, last]) == [f"of Q{kind}1Z", " and more"], at
        assert named(rules).parts([first, "", last]) == [f"of Q{kind}1Z", "", " and more"]
    assert cuts > 3


@cases("value")
@pytest.mark.parametrize("before", ["pay ", "Tel: ", "call me or pay 0171 1234567, "])
def test_number_with_a_check_digit_that_is_cut_is_one_value_whatever_a_part_contains(value: str, before: str) -> None:
    """A part alone has the form of a phone number, most of all after a word for one."""
    rules = rules_of(["all"], ("email", "phone", "iban", "card", "id", "secret"), ["DE", "FR", "CN", "US"])
    (kind,) = {kind for _, _, kind in finder_of(rules).find(value)}
    for at in range(1, len(value)):
        parts = [f"{before}{value[:at]}", f"{value[at:]} and 0171 7654321 too"]
        first, last = named(rules).parts(parts)
        assert (first, last) == (
            f"{before.replace('0171 1234567', 'QPHONE1Z')}Q{kind}1Z",
            f" and QPHONE{2 if '0171' in before else 1}Z too",
        ), at


@pytest.mark.parametrize("parts", [["4111 1111 1111 1111", " 123 Main St"], ["pay 4111 1111 1111 1111", "0"]])
def test_card_of_one_part_takes_no_digit_of_the_next_one(parts: list[str]) -> None:
    assert named().parts(parts)[1] == parts[1]


@pytest.mark.parametrize("before", [6000, 7000, 7990])
def test_no_piece_of_a_long_text_has_a_part_of_a_long_key(before: int) -> None:
    """A key of RSA with 4,096 bits has 3,272 characters."""
    lines = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj" for _ in range(50))
    text = f"{'x' * before} -----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY----- {'y' * 6000}"
    pieces = [*pieces_of(text)]
    assert len(pieces) > 1
    for piece in pieces:
        message = redact(chat.ChatRequest("m", (chat.UserMessage(piece),)), RULES).request.messages[-1]
        assert "MII" not in message.content


def test_of_a_value_that_is_cut_into_a_value_and_a_rest_the_rest_stays() -> None:
    assert named().parts(["jane.d", "oe@x.example"]) == ["jane.d", "QEMAIL1Z"]
    # The rest of a private key goes, because its end shows that it is one.
    begun = "-----BEGIN PRIVATE KEY-----\nMIIE"
    assert named().parts([f"of {begun}", "vQIBADAN\n-----END PRIVATE KEY----- and"]) == ["of QSECRET1Z", " and"]
    assert named().parts([f"of {begun}", "Please answer"]) == ["of QSECRET1Z", "Please answer"]


@given(
    st.lists(
        st.tuples(st.sampled_from(list(SAMPLES.values())), st.sampled_from(WAYS))
        | st.sampled_from(
            ["@", "@c.de", ".", "-", ":", "://", "/", "%40", "(", " tel ", "\\", "项目夜鹰", "a", "1", "+"]
        ),
        max_size=6,
    )
)
@example([" tel ", SAMPLES["email"] * 2, SAMPLES["phone"]])  # placeholders bring the number near to the word
def test_nothing_but_placeholders_is_found_in_what_is_sent(pieces: list[Any]) -> None:
    text = "".join(it if isinstance(it, str) else it[1](it[0]) for it in pieces)
    found = named()
    sent = found(text)
    assert all(PLACEHOLDER.fullmatch(sent[start:end]) for start, end, _ in finder_of(RULES).find(sent)), sent
    assert restored(found, [sent]) == text


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_value_is_found_in_each_way_in_which_it_is_written(kind: str) -> None:
    """Also in a path, in a query, in JSON, and next to Chinese text."""
    for way in WAYS:
        for text in ("{}", "/x/{}/y", "https://x.org/?a={}&b=2", '{{"a": "{}"}}', "到{}。"):
            value = way(SAMPLES[kind])
            spans = finder_of(RULES).find(text.format(value))
            assert [it for _, _, it in spans] == [kind.upper()], (text.format(value), spans)


@given(
    st.recursive(
        TEXTS | st.integers() | st.booleans(),
        lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text("ab @", max_size=4), it, max_size=3),
        max_leaves=8,
    )
)
def test_arguments_stay_json_and_come_back(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        found = named()
        sent = found.arguments(text)
        json.loads(sent)
        if not found:
            assert sent == text
        back = json.loads(restored(found, [sent], in_json=True))
        assert _as_texts(back) == _as_texts(value)


NESTED = rules_of(["nested"], (), patterns=[("NOTE", r"x<[^>]*>")])
NOTES = st.text("ab\"\\\n\t'é{[", max_size=6).map(lambda text: f"x<{text}>")


@given(
    NOTES, st.lists(st.sampled_from(["list", "text", "object", "pair"]), max_size=4), st.integers(1, 9), st.booleans()
)
def test_a_value_stays_within_its_quotes_at_any_depth_and_in_any_cut(
    note: str, around: list[str], size: int, is_spaced: bool
) -> None:
    """Each level of JSON in JSON gives the value as it was, whatever is in it."""
    found = Placeholders(NESTED)
    assert found(note) == "QNOTE1Z"

    def sent_and_meant(value: str) -> Any:
        wrapped: Any = value
        for kind in around:
            text = json.dumps(wrapped, ensure_ascii=False, indent=1 if is_spaced else None)
            pair = {"of": 'He said "hi" and \\', "it": text}
            wrapped = {"list": [1, text], "text": text, "object": {"a": text, 'b"': None}, "pair": pair}[kind]
        return wrapped

    text = json.dumps({"a": sent_and_meant("to QNOTE1Z!"), "b": "QNOTE1Z", "c": 'so "QNOTE1Z"'})
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    shown = restored(found, pieces, in_json=True)
    assert json.loads(shown) == {"a": sent_and_meant(f"to {note}!"), "b": note, "c": f'so "{note}"'}


@pytest.mark.parametrize("delta", [chat.TextDelta, chat.ReasoningDelta])
def test_a_placeholder_is_restored_where_text_and_reasoning_alternate_within_it(delta: Any) -> None:
    other: Any = chat.ReasoningDelta if delta is chat.TextDelta else chat.TextDelta
    found = named()
    found("jane@example.com")
    restorer = AnswerRestorer(found, is_json=False, note=WrapperNote(RULES.names, {}))
    batch = (delta("to QEMA"), other("so "), delta("IL1Z!"), other("QE"), chat.Finished())
    events: Any = restorer.events(batch)
    assert "".join(it.text for it in events if isinstance(it, delta)) == "to jane@example.com!"
    assert "".join(it.text for it in events if isinstance(it, other)) == "so QE"


@pytest.mark.parametrize(("size", "shown"), [(MOST_HELD, ["the FA"]), (MOST_HELD + 1, ["the FA", "Q", "x" * 20])])
def test_a_text_waits_for_few_characters_while_reasoning_may_go_on_with_a_placeholder(
    size: int, shown: list[str]
) -> None:
    found = named()
    found("jane@example.com")
    restorer = AnswerRestorer(found, is_json=False, note=WrapperNote(RULES.names, {}))
    events: Any = restorer.events((chat.ReasoningDelta("the FAQ"), *(chat.TextDelta("x") for _ in range(size))))
    assert [events[0].text, *([events[1].text, "".join(it.text for it in events[2:])] if events[1:] else [])] == shown


@pytest.mark.parametrize("keep", [False, True])
def test_arguments_that_keep_placeholders_are_not_changed_and_mean_the_same_in_the_history(keep: bool) -> None:
    rules = rules_of(["all"], ["email"], arguments="keep" if keep else "restore")
    found = Placeholders(rules)
    found("jane@example.com")
    call, note = chat.ToolCall("c", "f", '{"a": "QEMAIL1Z"}'), WrapperNote(rules.names, {})
    restorer = AnswerRestorer(found, is_json=False, note=note)
    message = chat.AssistantMessage("QEMAIL1Z", tool_calls=(call,))
    choice = restorer.completion(chat.ChatCompletion("x", "m", 0, (chat.Choice(message, "stop"),))).choices[0].message
    assert choice.content == "jane@example.com"
    events = restorer.events((chat.ToolCallDelta(0, call.arguments, "c", "f"), chat.Finished()))
    shown = '{"a": "QEMAIL1Z"}' if keep else '{"a": "jane@example.com"}'
    assert [choice.tool_calls[0].arguments, events[0].arguments] == [shown, shown]  # type: ignore[union-attr]
    assert found.arguments(shown) == '{"a": "QEMAIL1Z"}'
    assert found.arguments('{"a": "QEMAIL7Z"}') == '{"a": "QTEXT1Z"}'
    assert union(rules, rules_of(["b"], ["card"])).arguments == rules.arguments  # type: ignore[union-attr]


def test_arguments_that_no_parser_reads_are_searched_as_text() -> None:
    for opened, closed, times in (("[", "]", 20_000), ('{"a":', "}", 20_000), (f"[{'9' * 5000}, ", "]", 1)):
        text = f'{opened * times}"jane@example.com"{closed * times}'
        assert named().arguments(text) == text.replace("jane@example.com", "QEMAIL1Z")


def _as_texts(value: Any) -> Any:
    """Return JSON with numbers as texts: one that was replaced comes back as a text."""
    if isinstance(value, dict):
        return {key: _as_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_texts(item) for item in value]
    return str(value)


def test_source_code_locks_and_logs_have_few_false_positives() -> None:
    """With every kind but `ip`, and all countries. A few lines of our own code do look like values."""
    root = Path(__file__).parents[3]
    files = [*sorted((root / "gateway").rglob("*.py"))[::4], root / "locks/runtime.lock"]
    texts = [path.read_text("utf-8") for path in files]
    found = [text[start:end] for text in texts for start, end, _ in finder_of(RULES).find(text)]
    assert sum(map(len, texts)) > 500_000
    assert len(found) <= 8, found
    line = "2026-11-27T19:{0:02}:{0:02}.{0:03}Z pid={1} took 0.{1}s at {2} id={1:016x} bytes={1} 10.0.0.{0}"
    log = "\n".join(
        line.format(number % 60, 10_007 * number % 99_991 + 10_000, 1_795_805_000 + number) for number in range(1, 400)
    )
    assert [log[start:end] for start, end, _ in finder_of(RULES).find(log)] == []


SECRETS = finder_of(rules_of(["keys"], ["secret"]))


def test_no_word_of_medicine_geography_or_software_is_a_key() -> None:
    words = CASES["words"].split()
    assert len(words) >= 200
    for around in ("{}", "https://x.org/a/{}/b", "see {}.", '"{}",'):
        found = [word for word in words if SECRETS.find(around.format(word))]
        assert found == []


@pytest.mark.slow("searches 5 MB")
def test_source_code_locks_and_documentation_have_hardly_a_false_key() -> None:
    """At most one in a MB of the packages that are installed anyway."""
    folder, left = Path(yaml.__file__).parents[1], 5 << 20
    kinds = {"py", "html", "json", "md", "rst", "txt", "js", "css", "toml", "yaml"}
    files = [path for path in sorted(folder.rglob("*.*")) if path.suffix[1:] in kinds and path.stat().st_size < 200_000]
    # Of many packages, and not of the first ones only.
    files = [*Path(__file__).parents[3].joinpath("locks").iterdir(), *files[:: max(1, len(files) // 700)]]
    found: list[str] = []
    for path in files:
        text = path.read_text("utf-8", "replace")[:left]
        left -= len(text)
        found += [text[start:end] for start, end, _ in SECRETS.find(text)]
    print(5 - left / (1 << 20), "MB", found)
    assert left < 1 << 20
    assert len(found) <= 5 - left / (1 << 20), found


@pytest.mark.parametrize("text", ["1 ", "a@b.co ", "%20", "QEMAIL1Z ", "S1234567 ", "tel 1234567 ", "DE89 "])
def test_a_text_that_takes_too_long_ends_while_it_is_searched(text: str) -> None:
    looks = count()
    with pytest.raises(TooMuchToSearch):
        finder_of(RULES).find(text * 40_000, Clock(20, now=lambda: float(next(looks))))


@pytest.mark.parametrize(
    "pattern", ["a[ab]{400}x", r"((?:\d{1,30}){1,30})x", "[01]{1,999}[01]{1,999}x", "(a+)+$", ".{1,900}x", r"(\d+)"]
)
@pytest.mark.parametrize("text", ["1", "1234567890", "ab", "abbaababbab"])
def test_one_search_for_an_own_pattern_looks_at_a_part_of_a_large_text(pattern: str, text: str) -> None:
    """RE2 looks at no more bytes than the steps of the pattern allow, and the clock is looked at in between."""
    own = compiled_own(pattern)
    looked: list[int] = []

    class Watched:
        programsize, groups = own.programsize, own.groups

        def search(self, data: bytes, start: int, end: int) -> Any:
            looked.append(end - start)
            return own.search(data, start, min(end, start + 100))

    looks = count()
    subject = _Subject(text * (400_000 // len(text)), Clock(20, now=lambda: float(next(looks))))
    try:
        list(subject.found_own(Watched(), "OWN"))
    except TooMuchToSearch:
        assert len(looked) == 21
    assert max(looked) <= max(8192, 10_000_000 // own.programsize)


def test_a_slow_pattern_is_searched_next_to_other_requests_and_not_before_them() -> None:
    sizes = [
        finder_of(rules_of(["one"], (), patterns=[("TICKET", it)])).most_at_once
        for it in ("[0-9]", "ACME-[0-9]{6}", "a[ab]{400}x", ".{1,900}x")
    ]
    assert sizes[0] > sizes[1] > 5_000 > 500 > sizes[2] > sizes[3] > 0
    assert finder_of(RULES).most_at_once > 2_000


def test_a_value_is_found_wherever_windows_end() -> None:
    own, long = compiled_own("BEGIN x{1,900}(?: [a-z]{3} )+END"), "BEGIN " + "x" * 900 + " abc  def " * 300 + "END"
    assert len(long) < 4096 < 10_000_000 // own.programsize
    for before in range(0, 24_000, 911):
        text = f"{'夜 ' * (before // 4)}{long} {'BEGIN x ' * 20_000}"
        start = text.index(long)
        assert [*_Subject(text, Clock(1000)).found_own(own, "OWN")] == [(start, start + len(long), "OWN")]


@given(
    st.lists(
        st.tuples(st.sampled_from(list(SAMPLES.values())), st.sampled_from(WAYS))
        | st.sampled_from(
            ["\\\\", "\\", "%C2%A0", "%", "u00", "\u200b", "é", "\ud800", "(", " 0171 2345678", "１2", " tel "]
        ),
        max_size=12,
    )
)
def test_a_large_text_is_read_in_slices_as_if_it_were_whole(pieces: list[Any]) -> None:
    text = "".join(it if isinstance(it, str) else it[1](it[0]) for it in pieces)
    whole = Finder(RULES).find(text)
    with mock.patch.object(finding, "_LARGE", 16):
        assert Finder(RULES).find(text) == whole


@pytest.mark.slow("searches large texts")
@pytest.mark.parametrize("text", ["-----BEGIN PRIVATE KEY-----", "(0", "1.", "://a:", "Project Nightjar "])
def test_a_text_of_four_times_the_size_takes_about_four_times_as_long(text: str) -> None:
    """It is 16 times where each place is searched to the end of the text."""

    def took_ns(size: int) -> int:
        whole = (text * (size // len(text) + 1))[:size]
        began = time.thread_time_ns()
        Finder(RULES).find(whole, Clock(1000))
        return time.thread_time_ns() - began

    small, large = (min(took_ns(size) for _ in range(3)) for size in (30_000, 120_000))
    assert large < 9 * small
