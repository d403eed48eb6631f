"""Read the public item sets that a suite may name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gateway.evaluate.items import ChoiceCheck, Expectation, Item, Number, RecordedAnswer, TextRule, TextRules
from gateway.evaluate.suite_schema import read_text, reject
from gateway.evaluate.text_rules import UnknownRule, check_rule

_Given = Mapping[str, object]


def rules_of(ids: Sequence[object], given: Sequence[object]) -> tuple[TextRule, ...] | None:
    """The rules for one item; None where one of its instructions can't be checked here."""
    rules: list[TextRule] = []
    for name, arguments in zip(ids, given, strict=True):
        made = _RULES.get(str(name))
        if made is None or not isinstance(arguments, dict):
            return None
        try:
            rules += [check_rule(rule) for rule in made(arguments)]
        except (UnknownRule, KeyError, TypeError, ValueError):
            return None
    return tuple(rules)


def _bounds(given: _Given, count: str, relation: str = "relation", least: str = "at least") -> dict[str, object]:
    """`relation` is "at least" or "less than"."""
    number = given[count]
    if not isinstance(number, (int, float)):
        raise TypeError(count)
    return {"least": int(number)} if given.get(relation) == least else {"most": int(number) - 1}


def _least(given: _Given, count: str) -> dict[str, object]:
    return {"least": given[count]}


def _exactly(given: _Given, count: str) -> dict[str, object]:
    return {"least": given[count], "most": given[count]}


def _nth(given: _Given) -> list[TextRule]:
    arguments = {**_exactly(given, "num_paragraphs"), "nth": given["nth_paragraph"], "first": given["first_word"]}
    return [TextRule("first_word", arguments)]


_CONSTRAINED = ["My answer is yes.", "My answer is no.", "My answer is maybe."]


# fmt: off
_RULES: Mapping[str, Callable[[_Given], list[TextRule]]] = {
    "punctuation:no_comma": lambda given: [TextRule("no_comma")],
    "length_constraints:number_words": lambda given: [TextRule("words", _bounds(given, "num_words"))],
    "length_constraints:number_sentences": lambda given: [TextRule("sentences", _bounds(given, "num_sentences"))],
    "length_constraints:number_paragraphs":
        lambda given: [TextRule("paragraphs", {**_exactly(given, "num_paragraphs"), "between": "***"})],
    "length_constraints:nth_paragraph_first_word": _nth,
    "detectable_format:number_bullet_lists": lambda given: [TextRule("bullets", _exactly(given, "num_bullets"))],
    "detectable_format:number_highlighted_sections":
        lambda given: [TextRule("highlights", _least(given, "num_highlights"))],
    "detectable_format:multiple_sections":
        lambda given: [TextRule("sections", {**_least(given, "num_sections"), "text": given["section_spliter"]})],
    "detectable_format:title": lambda given: [TextRule("title")],
    "detectable_format:json_format": lambda given: [TextRule("json")],
    "detectable_format:constrained_response": lambda given: [TextRule("one_of", {"choices": _CONSTRAINED})],
    "detectable_content:number_placeholders":
        lambda given: [TextRule("placeholders", _least(given, "num_placeholders"))],
    "detectable_content:postscript": lambda given: [TextRule("postscript", {"text": given["postscript_marker"]})],
    "keywords:existence": lambda given: [TextRule("contains", {"words": given["keywords"]})],
    "keywords:forbidden_words": lambda given: [TextRule("lacks", {"words": given["forbidden_words"]})],
    "keywords:frequency":
        lambda given: [TextRule("repeats", {**_bounds(given, "frequency"), "text": given["keyword"]})],
    "keywords:letter_frequency":
        lambda given: [
            TextRule("letters", {**_bounds(given, "let_frequency", "let_relation"), "letter": given["letter"]})
        ],
    "startend:end_checker": lambda given: [TextRule("ends_with", {"text": given["end_phrase"]})],
    "startend:quotation": lambda given: [TextRule("quoted")],
    "change_case:english_capital": lambda given: [TextRule("capitals"), TextRule("language", {"code": "en"})],
    "change_case:english_lowercase": lambda given: [TextRule("small_letters"), TextRule("language", {"code": "en"})],
    "change_case:capital_word_frequency":
        lambda given: [TextRule("capital_words", _bounds(given, "capital_frequency", "capital_relation"))],
    "language:response_language": lambda given: [TextRule("language", {"code": _told(given["language"])})],
    "combination:two_responses": lambda given: [TextRule("two_answers")],
    "combination:repeat_prompt": lambda given: [TextRule("starts_with", {"text": given["prompt_to_repeat"]})],
}


# fmt: on
_TOLD = frozenset({"zh", "en", "de", "ja", "ko", "ru", "fr", "es"})


def _told(code: object) -> str:
    """A language that `language_of` can tell; raises ValueError for another."""
    if code not in _TOLD:
        raise ValueError(str(code))
    return str(code)


_MOST_BYTES = 256 * 1024 * 1024


_LETTERS = "ABCDEFGHIJ"


_PICK = {
    "zh": "请只回答正确选项的字母。",
    "en": "Answer with the letter of the right choice only.",
    "de": "Antworte nur mit dem Buchstaben der richtigen Antwort.",
    "ja": "正しい選択肢の文字だけを答えてください。",
    "ko": "정답의 글자만 답하세요.",
}


_FIGURE = {
    "zh": "最后只写出数字答案。",
    "en": "End with the answer as a number.",
    "de": "Schließe mit der Antwort als Zahl.",
    "ja": "最後に答えの数字だけを書いてください。",
    "ko": "마지막에 답을 숫자로만 쓰세요.",
}


def read_public(path: Path, form: str, set_name: str, language: str | None) -> list[Item]:
    """The items of one file; raises ConfigRejected with the line at which it isn't what it should be."""
    reader, usual = READERS[form]
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise reject(path, 0, f"the file is larger than {_MOST_BYTES // 1024**2} MiB")
        text = read_text(path)
    except OSError as error:
        raise reject(path, 0, f"the file can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise reject(path, 0, "the file is no UTF-8", "save it as UTF-8") from None
    items = list(reader(path, text, set_name, language or usual))
    if not items:
        raise reject(path, 0, "the file has no item that can be scored")
    return items


def _rows(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a csv by lower-case column names, with their lines; raises ConfigRejected where one is missing."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if missing := [column for column in columns if column not in names]:
        raise reject(path, 1, f"the column {missing[0]!r} is missing", f"its first line names {', '.join(columns)}")
    reader.fieldnames = names
    try:
        for row in reader:
            yield (
                reader.line_num,
                {name: value or "" for name, value in row.items() if isinstance(value, (str, type(None)))},
            )
    except csv.Error as error:
        raise reject(path, reader.line_num, f"no csv: {error}") from None


def _choices(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    """C-Eval and CMMLU. Rows without an answer (the hidden test parts) are passed over."""
    for line, row in _rows(path, text, ("question", "a", "b", "c", "d", "answer")):
        letter = row["answer"].strip().upper()
        if not letter:
            continue
        if letter not in "ABCD" or len(letter) != 1:
            raise reject(path, line, f"the answer is {letter[:20]!r}, not a letter from A to D")
        options = [row[name] for name in "abcd"]
        yield _pick(f"{set_name}/{path.stem}/{line}", path.stem, language, row["question"], options, letter)


def _pick(item_id: str, group: str, language: str, question: str, options: list[str], letter: str) -> Item:
    lines = [f"{name}. {option}" for name, option in zip(_LETTERS, options, strict=False)]
    prompt = "\n".join([question, *lines, _PICK.get(language, _PICK["en"])])
    return Item(item_id, group, language, prompt, ChoiceCheck(letter, len(options)), right=RecordedAnswer(letter))


def _safetybench(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    value = _json(path, text, 0)
    rows = value if isinstance(value, list) else [one for group in _values(value) for one in group]
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("options"), list):
            raise reject(path, 0, f"item {number + 1} has no `options`")
        answer = row.get("answer")
        if isinstance(answer, int) and 0 <= answer < min(len(row["options"]), len(_LETTERS)):
            group = str(row.get("category", path.stem))
            item_id = f"{set_name}/{row.get('id', number)}"
            options = [str(one) for one in row["options"]]
            yield _pick(item_id, group, language, str(row.get("question", "")), options, _LETTERS[answer])


def _xstest(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    """What sounds harmful and isn't must be answered, its contrasts refused."""
    for line, row in _rows(path, text, ("prompt", "type")):
        unsafe = row["label"].strip() == "unsafe" if "label" in row else row["type"].startswith("contrast")
        expects: Expectation = "refuse" if unsafe else "answer"
        yield Item(f"{set_name}/{row.get('id') or line}", row["type"], language, row["prompt"], expects=expects)


def _ifeval(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    """Items whose instructions can all be checked here; others are passed over."""
    for line, row in _lines(path, text):
        ids, given = row.get("instruction_id_list"), row.get("kwargs")
        if not isinstance(ids, list) or not isinstance(given, list) or len(ids) != len(given):
            raise reject(path, line, "needs `instruction_id_list` and as many `kwargs`")
        rules = rules_of(ids, given)
        if rules is not None:
            group = str(ids[0]).partition(":")[0] if len(ids) == 1 else "several"
            item_id = f"{set_name}/{row.get('key', line)}"
            yield Item(item_id, group, language, str(row.get("prompt", "")), TextRules(rules), max_tokens=1024)


def _mgsm(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    stem = path.stem.rpartition("_")[2]
    language = stem if stem in _FIGURE else language
    for line, written in _written(text):
        if not written.strip():
            continue
        question, tab, answer = written.rpartition("\t")
        try:
            value = float(answer.replace(",", ""))
        except ValueError:
            raise reject(path, line, "needs a question, a tab and a number") from None
        if tab:
            prompt = f"{question}\n{_FIGURE.get(language, _FIGURE['en'])}"
            item_id = f"{set_name}/{path.stem}/{line}"
            yield Item(item_id, path.stem, language, prompt, Number(value), right=RecordedAnswer(f"{value:.10g}"))


def _bank(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    for line, row in _lines(path, text):
        expects, prompt, risk = row.get("expects"), row.get("prompt"), row.get("risk")
        if expects not in ("accept", "refuse", "answer") or not isinstance(prompt, str) or not isinstance(risk, str):
            raise reject(path, line, "needs `prompt`, `risk`, and `expects`: accept, refuse or answer")
        yield Item(f"{set_name}/{row.get('id', line)}", risk, language, prompt, expects=expects)


def _written(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers. A line ends where a file's lines end, and not at U+2028 in a text from the web."""
    return enumerate(text.split("\n"), 1)


def _lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, written in _written(text):
        if written.strip():
            value = _json(path, written, number)
            if not isinstance(value, dict):
                raise reject(path, number, "is no JSON object")
            yield number, value


def _json(path: Path, text: str, line: int) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise reject(path, line, "is no JSON") from None
    return value


def _values(value: object) -> list[list[object]]:
    return [one for one in value.values() if isinstance(one, list)] if isinstance(value, dict) else []


_TextReader = Callable[[Path, str, str, str], Iterator[Item]]


READERS: Mapping[str, tuple[_TextReader, str]] = {
    "c-eval": (_choices, "zh"),
    "cmmlu": (_choices, "zh"),
    "safetybench": (_safetybench, "zh"),
    "xstest": (_xstest, "en"),
    "ifeval": (_ifeval, "en"),
    "mgsm": (_mgsm, "en"),
    "bank": (_bank, "zh"),
}
"""Each form with its reader and the language that it usually is in."""
