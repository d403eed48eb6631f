"""Read public item sets, such as C-Eval and IFEval."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.items import ChoiceCheck, Expectation, Item, Number, RecordedAnswer, TextRule, TextRules
from evaluation.suite_schema import read_text, reject
from evaluation.text_rules import UnknownRule, check_rule

_Arguments = Mapping[str, object]


def rules_of(ids: Sequence[object], arguments_of_rules: Sequence[object]) -> tuple[TextRule, ...] | None:
    """Return the rules of one item, or None if one of its instructions can't be checked by rule."""
    rules: list[TextRule] = []
    for name, arguments in zip(ids, arguments_of_rules, strict=True):
        made = _RULES.get(str(name))
        if made is None or not isinstance(arguments, dict):
            return None
        try:
            rules += [check_rule(rule) for rule in made(arguments)]
        except (UnknownRule, KeyError, TypeError, ValueError):
            return None
    return tuple(rules)


def _bounds(arguments: _Arguments, count: str, relation: str = "relation") -> dict[str, object]:
    """Return the bounds of a count. The set's relation is "at least" or "less than"."""
    number = arguments[count]
    if not isinstance(number, (int, float)):
        raise TypeError(count)
    return {"least": int(number)} if arguments.get(relation) == "at least" else {"most": int(number) - 1}


def _least(arguments: _Arguments, count: str) -> dict[str, object]:
    return {"least": arguments[count]}


def _exactly(arguments: _Arguments, count: str) -> dict[str, object]:
    return {"least": arguments[count], "most": arguments[count]}


def _nth(arguments: _Arguments) -> list[TextRule]:
    arguments = {
        **_exactly(arguments, "num_paragraphs"),
        "nth": arguments["nth_paragraph"],
        "first": arguments["first_word"],
    }
    return [TextRule("first_word", arguments)]


_CONSTRAINED = [f"My answer is {answer}." for answer in ("yes", "no", "maybe")]

# fmt: off
_RULES: Mapping[str, Callable[[_Arguments], list[TextRule]]] = {
    "punctuation:no_comma": lambda args: [TextRule("no_comma")],
    "length_constraints:number_words": lambda args: [TextRule("words", _bounds(args, "num_words"))],
    "length_constraints:number_sentences": lambda args: [TextRule("sentences", _bounds(args, "num_sentences"))],
    "length_constraints:number_paragraphs":
        lambda args: [TextRule("paragraphs", {**_exactly(args, "num_paragraphs"), "between": "***"})],
    "length_constraints:nth_paragraph_first_word": _nth,
    "detectable_format:number_bullet_lists": lambda args: [TextRule("bullets", _exactly(args, "num_bullets"))],
    "detectable_format:number_highlighted_sections":
        lambda args: [TextRule("highlights", _least(args, "num_highlights"))],
    "detectable_format:multiple_sections":
        lambda args: [TextRule("sections", {**_least(args, "num_sections"), "text": args["section_spliter"]})],
    "detectable_format:title": lambda args: [TextRule("title")],
    "detectable_format:json_format": lambda args: [TextRule("json")],
    "detectable_format:constrained_response": lambda args: [TextRule("one_of", {"choices": _CONSTRAINED})],
    "detectable_content:number_placeholders":
        lambda args: [TextRule("placeholders", _least(args, "num_placeholders"))],
    "detectable_content:postscript": lambda args: [TextRule("postscript", {"text": args["postscript_marker"]})],
    "keywords:existence": lambda args: [TextRule("contains", {"words": args["keywords"]})],
    "keywords:forbidden_words": lambda args: [TextRule("lacks", {"words": args["forbidden_words"]})],
    "keywords:frequency":
        lambda args: [TextRule("repeats", {**_bounds(args, "frequency"), "text": args["keyword"]})],
    "keywords:letter_frequency":
        lambda args: [
            TextRule("letters", {**_bounds(args, "let_frequency", "let_relation"), "letter": args["letter"]})
        ],
    "startend:end_checker": lambda args: [TextRule("ends_with", {"text": args["end_phrase"]})],
    "startend:quotation": lambda args: [TextRule("quoted")],
    "change_case:english_capital": lambda args: [TextRule("capitals"), TextRule("language", {"code": "en"})],
    "change_case:english_lowercase": lambda args: [TextRule("small_letters"), TextRule("language", {"code": "en"})],
    "change_case:capital_word_frequency":
        lambda args: [TextRule("capital_words", _bounds(args, "capital_frequency", "capital_relation"))],
    "language:response_language": lambda args: [TextRule("language", {"code": _known_language(args["language"])})],
    "combination:two_responses": lambda args: [TextRule("two_answers")],
    "combination:repeat_prompt": lambda args: [TextRule("starts_with", {"text": args["prompt_to_repeat"]})],
}

# fmt: on
_DETECTED_LANGUAGES = frozenset({"zh", "en", "de", "ja", "ko", "ru", "fr", "es"})


def _known_language(code: object) -> str:
    """Return a language that `language_of` can detect. Raises ValueError for another."""
    if code not in _DETECTED_LANGUAGES:
        raise ValueError(str(code))
    return str(code)


_MAX_FILE_BYTES = 256 * 1024 * 1024
_LETTERS = "ABCDEFGHIJ"

_CHOICE_INSTRUCTIONS = {
    "zh": "请只回答正确选项的字母。",
    "en": "Answer with the letter of the right choice only.",
    "de": "Antworte nur mit dem Buchstaben der richtigen Antwort.",
    "ja": "正しい選択肢の文字だけを答えてください。",
    "ko": "정답의 글자만 답하세요.",
}

_NUMBER_INSTRUCTIONS = {
    "zh": "最后只写出数字答案。",
    "en": "End with the answer as a number.",
    "de": "Schließe mit der Antwort als Zahl.",
    "ja": "最後に答えの数字だけを書いてください。",
    "ko": "마지막에 답을 숫자로만 쓰세요.",
}


def read_public(path: Path, form: str, set_name: str, language: str | None) -> list[Item]:
    """Read the items of one file. Raises ConfigRejected with the line of the first mistake."""
    reader, default_language = READERS[form]
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise reject(path, 0, f"the file is larger than {_MAX_FILE_BYTES // 1024**2} MiB")
        text = read_text(path)
    except OSError as error:
        raise reject(path, 0, f"the file can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise reject(path, 0, "the file is not UTF-8", "save it as UTF-8") from None
    items = list(reader(path, text, set_name, language or default_language))
    if not items:
        raise reject(path, 0, "no item of the file can be scored")
    return items


def _rows(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV with their line numbers, by lower-case column name. Raises ConfigRejected."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if missing := [column for column in columns if column not in names]:
        raise reject(path, 1, f"the column {missing[0]!r} is missing", f"the first line must name {', '.join(columns)}")
    reader.fieldnames = names
    try:
        for row in reader:
            yield (
                reader.line_num,
                {name: value or "" for name, value in row.items() if isinstance(value, (str, type(None)))},
            )
    except csv.Error as error:
        raise reject(path, reader.line_num, f"not valid CSV: {error}") from None


def _choices(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    """Read C-Eval and CMMLU. Rows without an answer (the hidden test parts) are skipped."""
    for line, row in _rows(path, text, ("question", "a", "b", "c", "d", "answer")):
        letter = row["answer"].strip().upper()
        if not letter:
            continue
        if letter not in "ABCD" or len(letter) != 1:
            raise reject(path, line, f"the answer is {letter[:20]!r}, not a letter from A to D")
        options = [row[name] for name in "abcd"]
        yield _choice_item(f"{set_name}/{path.stem}/{line}", path.stem, language, row["question"], options, letter)


def _choice_item(item_id: str, group: str, language: str, question: str, options: list[str], letter: str) -> Item:
    lines = [f"{name}. {option}" for name, option in zip(_LETTERS, options, strict=False)]
    prompt = "\n".join([question, *lines, _CHOICE_INSTRUCTIONS.get(language, _CHOICE_INSTRUCTIONS["en"])])
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
            yield _choice_item(item_id, group, language, str(row.get("question", "")), options, _LETTERS[answer])


def _xstest(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    """Read XSTest: safe prompts that sound harmful must be answered, and their unsafe contrasts refused."""
    for line, row in _rows(path, text, ("prompt", "type")):
        unsafe = row["label"].strip() == "unsafe" if "label" in row else row["type"].startswith("contrast")
        expects: Expectation = "refuse" if unsafe else "answer"
        yield Item(f"{set_name}/{row.get('id') or line}", row["type"], language, row["prompt"], expects=expects)


def _ifeval(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    """Read IFEval. Items with an instruction that can't be checked by rule are skipped."""
    for line, row in _lines(path, text):
        ids, rule_arguments = row.get("instruction_id_list"), row.get("kwargs")
        if not isinstance(ids, list) or not isinstance(rule_arguments, list) or len(ids) != len(rule_arguments):
            raise reject(path, line, "needs `instruction_id_list` and as many `kwargs`")
        rules = rules_of(ids, rule_arguments)
        if rules is not None:
            group = str(ids[0]).partition(":")[0] if len(ids) == 1 else "several"
            item_id = f"{set_name}/{row.get('key', line)}"
            yield Item(item_id, group, language, str(row.get("prompt", "")), TextRules(rules), max_tokens=1024)


def _mgsm(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    stem = path.stem.rpartition("_")[2]
    language = stem if stem in _NUMBER_INSTRUCTIONS else language
    for line, written in _numbered_lines(text):
        if not written.strip():
            continue
        question, tab, answer = written.rpartition("\t")
        try:
            value = float(answer.replace(",", ""))
        except ValueError:
            raise reject(path, line, "needs a question, a tab and a number") from None
        if tab:
            prompt = f"{question}\n{_NUMBER_INSTRUCTIONS.get(language, _NUMBER_INSTRUCTIONS['en'])}"
            item_id = f"{set_name}/{path.stem}/{line}"
            yield Item(item_id, path.stem, language, prompt, Number(value), right=RecordedAnswer(f"{value:.10g}"))


def _bank(path: Path, text: str, set_name: str, language: str) -> Iterator[Item]:
    for line, row in _lines(path, text):
        expects, prompt, risk = row.get("expects"), row.get("prompt"), row.get("risk")
        if expects not in ("accept", "refuse", "answer") or not isinstance(prompt, str) or not isinstance(risk, str):
            raise reject(path, line, "needs `prompt`, `risk`, and `expects`: accept, refuse or answer")
        cluster = f"{set_name}:{row['group']}" if row.get("group") is not None else None
        yield Item(f"{set_name}/{row.get('id', line)}", risk, language, prompt, expects=expects, cluster=cluster)


def _numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers. Only a line feed ends a line; texts from the web contain U+2028."""
    return enumerate(text.split("\n"), 1)


def _lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, written in _numbered_lines(text):
        if written.strip():
            value = _json(path, written, number)
            if not isinstance(value, dict):
                raise reject(path, number, "is not a JSON object")
            yield number, value


def _json(path: Path, text: str, line: int) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise reject(path, line, "is not valid JSON") from None
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
"""The reader and default language of each format."""
