"""The questions of a suite: from item files, banks of templates, and tables such as public sets."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path

from evaluation.checks import (
    LETTERS,
    WRONG_CHECK,
    AnswerCheck,
    Call,
    Letter,
    Number,
    RecordedAnswer,
    Rubric,
    Same,
    check_of,
    fill,
)
from evaluation.suite import (
    BankFile,
    ColumnsSection,
    Expectation,
    ItemFile,
    ItemSection,
    SetSection,
    SuiteFile,
    read_section,
    read_text,
    reject,
)
from gateway.config.examples import example_path
from gateway.config.problems import ConfigRejected, KeyPath, choice_hint
from gateway.config.validation import Findings
from gateway.execution.judging import MOST_CHARACTERS
from providers.chat import Tool
from providers.value import Value, replace

_MAX_FILE_BYTES = 256 * 1024 * 1024
_MAX_REDRAWS = 1000
_TOKENS = 1_000_000
_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_PUBLIC: Mapping[str, tuple[str, ColumnsSection]] = {
    name: (row["language"], ColumnsSection(**row["columns"])) for name, row in _DATA["formats"].items()
}
"""The usual language and the columns of each format."""
_EXPECTS: Mapping[str, Expectation] = _DATA["expects"]
_INSTRUCTIONS: Mapping[str, tuple[str, str]] = _DATA["instructions"]
"""The instruction after the question: to answer with a letter, or with a number."""


class Item(Value, frozen=True):
    """One question, or one sample of it."""

    id: str
    subject: str
    """The row in tables; for an item of a bank, the risk class."""
    language: str
    prompt: str
    check: AnswerCheck | None = None
    expects: Expectation | None = None
    """The expected result of an item of a bank. Others have a check."""
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    right: RecordedAnswer | None = None
    """A right answer, if one is known. Simulated candidates use it."""
    max_tokens: int = 2048
    group: str | None = None
    """The group of items that depend on each other, such as all items of one template, or None."""
    temperature: float | None = 0.0
    """The temperature of the request, if the deployment supports it. None leaves it to the model."""
    question: str = ""
    """The id that all samples of a question share; empty for its first one."""

    @property
    def question_id(self) -> str:
        """The id of the question, which all its samples share."""
        return self.question or self.id

    @property
    def set(self) -> str:
        return self.id.partition("/")[0]


class Suite(Value, frozen=True):
    """A suite file with all samples of each of its questions."""

    file: SuiteFile
    performance: tuple[Item, ...] = ()
    compliance: tuple[Item, ...] = ()
    streamed: tuple[Item, ...] = ()
    """The items that are asked as streams too."""
    bank: BankFile | None = None
    """The bank's file, for its words and for simulated candidates."""
    checks: tuple[tuple[str, str | None, AnswerCheck], ...] = ()
    """The checks of recorded answers: a name, an expression that selects prompts, and the check."""
    digest: str = ""
    """A hash of all questions and settings of the run. It identifies a run that is resumed."""
    verdicts: tuple[tuple[Item, frozenset[str] | None], ...] = ()
    """The texts about which judges are asked, with their categories, or None if a deployment decides them."""

    @property
    def items(self) -> dict[str, Item]:
        """All items that are scored, by id."""
        return {item.id: item for item in (*self.performance, *self.compliance)}

    @property
    def groups(self) -> dict[str, str]:
        """The group of each question that depends on others."""
        return {item.question_id: item.group for item in self.items.values() if item.group is not None}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each performance question that is not 1, which its language and its set give together."""
        by_language: Mapping[str, int] = self.file.weights.languages  # type: ignore[assignment]  # codes are texts
        weights = self.file.weights.sets
        return {
            item.question_id: float(by_language.get(item.language, 1) * weights.get(item.set, 1))
            for item in self.performance
            if by_language or weights
        }

    def cost_of(self, deployment: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return the cost of the tokens, in the currency of the prices, or None if the deployment has no price."""
        price = self.file.prices.deployments.get(deployment) if self.file.prices is not None else None
        if price is None:
            return None
        return (prompt_tokens * price.input + completion_tokens * price.output) / _TOKENS


def draw(*words: object) -> float:
    """Return a uniformly distributed number in [0, 1) that depends only on the words."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def suite_path(name: str) -> Path:
    """Return the path of a suite, given as a path or as the name of a built-in suite. Raises FileNotFoundError."""
    path = Path(name)
    return path if path.suffix or path.exists() else example_path(f"evaluations/{name}.yaml")


def load_suite(path: Path, seed: int | None = None) -> Suite:
    """Load a suite file. `seed` replaces the suite's seed. Raises ConfigRejected with all mistakes of a file."""
    file, findings = read_section(path, SuiteFile)
    if seed is not None:
        file = file.model_copy(update={"seed": seed})
    _check_file(file, findings)
    performance = [
        one for part in (file.performance.sets if file.performance else ()) for one in _set(path, part, file)
    ]
    if file.judge is None and any(isinstance(item.check, Rubric) for item in performance):
        findings.error(("performance", "sets"), "items with a rubric need a judge", "name a deployment under judge")
    compliance, bank = _compliance(path, file)
    for axis, wrong in (
        ("performance", [item for item in performance if item.check is None]),
        ("compliance", [item for item in compliance if item.expects is None]),
    ):
        if wrong:
            findings.error((axis, "sets"), f"{wrong[0].set} has items of another axis")
    checks = _shadow_checks(file, findings)
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    verdicts = tuple(_labelled_texts(path, file))
    excluded = {"weights", "requirements", "recommendation", "spend", "limits", "prices"}
    if file.verdicts is None:
        excluded.add("verdicts")  # so that a run from before this part is resumed
    settings = json.dumps(file.model_dump(mode="json", by_alias=True, exclude=excluded), sort_keys=True)
    asked: list[object] = [(it.id, it.prompt, it.check, it.system, it.tools) for it in (*performance, *compliance)]
    asked += [(it.id, it.prompt, labels and sorted(labels)) for it, labels in verdicts]
    digest = hashlib.sha256(repr((settings, asked)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    count = file.compliance.consistency if file.compliance is not None else 0
    again = {item.id for item in _sample(compliance, count, file.seed, "consistency")}
    samples = _samples(path, compliance, file.epochs)
    streamed = tuple(item for item in samples if item.question_id in again)
    return Suite(file, _samples(path, performance, file.epochs), samples, streamed, bank, checks, digest, verdicts)


def _check_file(file: SuiteFile, findings: Findings) -> None:
    """Report what the sections contradict."""
    if all(one is None for one in (*file.of_candidates, file.shadow, file.verdicts)):
        parts = "performance, compliance, scalability, shadow or verdicts"
        findings.error((), "the suite measures nothing", f"add {parts}")
    if file.verdicts is not None and len({*file.verdicts.judges}) < len(file.verdicts.judges):
        findings.error(("verdicts", "judges"), "a judge is named twice", "remove one of them")
    known = [one.name for one in file.performance.sets] if file.performance is not None else []
    for section, names in (("requirements", file.requirements.sets), ("weights", file.weights.sets)):
        for name in names:
            if name not in known:
                findings.error((section, "sets", name), f"there is no set {name!r}", choice_hint(name, known), key=True)
    if file.spend.cost is not None and file.prices is None:
        findings.error(("spend", "cost"), "needs prices to compute the cost", "add them under prices")
    rates = file.scalability.rates if file.scalability is not None else []
    if rates != sorted(set(rates)):
        findings.error(("scalability", "rates"), "must increase from step to step")
    for name, one in file.simulated.items():
        if one.first_token_p95_ms is not None and not 0 < one.first_token_ms <= one.first_token_p95_ms:
            key = ("simulated", name, "first_token_p95_ms")
            findings.error(key, "must be at least first_token_ms, which must be above 0")


def _samples(path: Path, items: Iterable[Item], epochs: int) -> tuple[Item, ...]:
    """Return each item as often as it is asked. With more than one sample, the model's own temperature applies."""
    seen = set[str]()
    for item in (items := list(items)):
        if item.id in seen:
            raise reject(path, 0, f"two items have the name {item.id!r}", "give the sets different names")
        seen.add(item.id)
    if epochs == 1:
        return tuple(items)
    plain = [replace(item, temperature=None) for item in items]
    further = [
        replace(one, id=f"{one.id}@{number}", question=one.id) for number in range(2, epochs + 1) for one in plain
    ]
    return (*plain, *further)


def _sample(items: Iterable[Item], count: int | None, seed: int, purpose: str) -> list[Item]:
    """Choose this number of items by the seed and keep their order. Return all items if `count` is None."""
    population = list(items)
    if count is None or count >= len(population):
        return population
    chosen = {item.id for item in sorted(population, key=lambda item: draw(seed, purpose, item.id))[:count]}
    return [item for item in population if item.id in chosen]


def _shadow_checks(file: SuiteFile, findings: Findings) -> tuple[tuple[str, str | None, AnswerCheck], ...]:
    checks: dict[str, tuple[str, str | None, AnswerCheck]] = {}
    for index, section in enumerate(file.shadow.checks if file.shadow is not None else ()):
        path = ("shadow", "checks", index)
        try:
            re.compile(section.when or "")
            check = check_of(section, {})
        except WRONG_CHECK as error:
            findings.error(path, str(error))
            continue
        if isinstance(check, Call):
            findings.error((*path, "call"), "can't be checked: only the number of tool calls is recorded")
        if isinstance(check, Rubric) and file.judge is None:
            findings.error((*path, "rubric"), "needs a judge", "name a deployment under judge")
        if section.name in checks:
            findings.error(("shadow", "checks"), f"two checks have the name {section.name!r}")
        checks[section.name] = section.name, section.when, check
    return tuple(checks.values())


def _set(suite: Path, section: SetSection, file: SuiteFile) -> list[Item]:
    pattern = str(suite.parent / section.file)
    paths = [Path(match) for match in sorted(glob.glob(pattern))] if "*" in section.file else [Path(pattern)]
    if not paths:
        raise reject(suite, 0, f"no file matches {section.file}")
    items: list[Item] = []
    for path in paths:
        is_own = section.format == "items" and section.columns is None
        items += _items(path, section.name, file.seed) if is_own else _table(path, section)
    return _sample(items, section.sample, file.seed, section.name)


def _items(path: Path, set_name: str, seed: int) -> Iterator[Item]:
    """Read an item file. Raises ConfigRejected, also if an item's right answer does not pass its own check."""
    file, findings = read_section(path, ItemFile)
    for subject, sections in file.items.items():
        for index, section in enumerate(sections):
            name = f"{subject}/{section.id or index + 1}"
            group = f"{set_name}:{section.group}" if section.group is not None else None
            if section.draw and group is None:
                group = f"{set_name}/{name}"
            for number, drawn in enumerate(_drawn(section, (seed, path.name, subject, section.id or str(index + 1)))):
                suffix = f"-{number + 1}" if section.draw else ""
                item = _item(findings, ("items", subject, index), file, section, drawn)
                if item is None:
                    break
                yield replace(item, id=f"{set_name}/{name}{suffix}", subject=subject, group=group)
    if findings.rejected:
        raise ConfigRejected(findings.problems)


def _drawn(section: ItemSection, words: tuple[object, ...]) -> Iterator[dict[str, int]]:
    """Yield the values for the names in braces, for each item. Values repeat only if there are no others."""
    seen = set[tuple[int, ...]]()
    values: dict[str, int] = {}
    for number in range(section.count if section.draw else 1):
        for redraw in range(_MAX_REDRAWS):
            key = (*words, number, redraw) if redraw else (*words, number)
            values = {
                name: ends[0] + int(draw(*key, name) * (ends[-1] - ends[0] + 1)) for name, ends in section.draw.items()
            }
            if tuple(values.values()) not in seen:
                break
        seen.add(tuple(values.values()))
        yield values


def _item(
    findings: Findings, path: KeyPath, file: ItemFile, section: ItemSection, drawn: Mapping[str, int]
) -> Item | None:
    try:
        check = check_of(section, drawn)
    except WRONG_CHECK as error:
        findings.error(path, str(error))
        return None
    for index, name in enumerate(section.tools):
        if name not in file.tools:
            hint = choice_hint(name, file.tools)
            findings.error((*path, "tools", index), f"there is no tool {name!r} in this file", hint)
            return None
    prompt = _with_choices(fill(section.ask, drawn), section.choices)
    tools = tuple(Tool(name, file.tools[name].description, file.tools[name].parameters) for name in section.tools)
    right = check.right if section.right is None else RecordedAnswer(fill(section.right, drawn))
    if right is None:
        findings.error(path, "has no right answer to test the check with", "add one as `right`")
    elif (why := check.wrong(right)) is not None:
        findings.error(path, f"its own right answer fails the check: it {why}", "correct the check or `right`")
    return Item("", "", file.language, prompt, check, None, section.system, tools, right)


def _with_choices(ask: str, choices: Iterable[str]) -> str:
    return "\n".join([ask, *(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False))])


def _compliance(path: Path, file: SuiteFile) -> tuple[list[Item], BankFile | None]:
    section = file.compliance
    if section is None:
        return [], None
    bank, findings = read_section(path.parent / section.bank, BankFile)
    refused = {name: [risk.name] for name, risk in bank.risks.items() if risk.refuse}
    kinds: tuple[tuple[Expectation, list[str], dict[str, list[str]], int], ...] = (
        ("accept", bank.accept, {name: [risk.name] for name, risk in bank.risks.items()}, section.accept),
        ("refuse", bank.refuse, refused, section.refuse),
        ("answer", bank.answer, bank.topics, section.answer),
    )
    items: list[Item] = []
    for expects, templates, subjects, count in kinds:
        made = list(_from_templates(expects, templates, subjects, bank, file.seed))
        if len(made) < count:
            message = f"its templates give only {len(made)} items of {count}"
            findings.error((expects,), message, "add templates, forms or classes, or request fewer items")
        items += made[:count]
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return [*items, *(item for one in section.sets for item in _set(path, one, file))], bank


def _from_templates(
    expects: Expectation, templates: list[str], subjects: Mapping[str, list[str]], bank: BankFile, seed: int
) -> Iterator[Item]:
    """Yield items without repetition, from each class in turn. The seed decides the order within a class."""
    origins: dict[str, dict[str, str]] = {}
    for risk, texts in subjects.items():
        for text, (number, template), form in product(texts, enumerate(templates, 1), bank.forms):
            prompt = fill(template, {"risk": text, "topic": text, "form": form})
            # The first template that gives a prompt is its group.
            origins.setdefault(risk, {}).setdefault(prompt, f"{expects}/template {number}")
    orders = {risk: sorted(made, key=lambda prompt: draw(seed, expects, prompt)) for risk, made in origins.items()}
    right = RecordedAnswer(bank.refusal if expects == "refuse" else bank.reply)
    for number in range(max(map(len, orders.values()), default=0)):
        for risk, prompts in orders.items():
            if number < len(prompts):
                prompt, item_id = prompts[number], f"{expects}/{risk}/{number + 1}"
                group = origins[risk][prompt]
                yield Item(item_id, risk, bank.language, prompt, expects=expects, right=right, group=group)


def _labelled_texts(suite: Path, file: SuiteFile) -> Iterator[tuple[Item, frozenset[str] | None]]:
    """Yield the texts of the sets of verdicts. Raises ConfigRejected with the line of the first mistake."""
    section = file.verdicts
    for name in dict.fromkeys(section.sets) if section is not None else ():
        path = suite.parent / name
        if path.suffix != ".jsonl":
            raise reject(path, 0, "must be a JSONL file, with one text a line")
        for line, row in _rows(path, _table_text(path)):
            text, categories = (row.get("text"), row.get("categories")) if isinstance(row, dict) else (None, None)
            if not isinstance(text, str) or not 1 <= len(text) <= MOST_CHARACTERS:
                raise reject(path, line, f"`text` must be a text of 1 to {MOST_CHARACTERS:,} characters")
            if categories is None and section is not None and section.truth is None:
                hint = "add them, [] for a text without any, or name a deployment as `verdicts.truth`"
                raise reject(path, line, "has no `categories`", hint)
            if categories is not None and not (
                isinstance(categories, list) and all(isinstance(one, str) for one in categories)
            ):
                raise reject(path, line, "`categories` must be a list of texts")
            yield Item(f"{name}/{line}", "", "", text), None if categories is None else frozenset(categories)


def _table_text(path: Path) -> str:
    """Return the text of a file of rows. Raises ConfigRejected."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise reject(path, 0, f"the file is larger than {_MAX_FILE_BYTES // 1024**2} MiB")
        text = read_text(path)
    except OSError as error:
        raise reject(path, 0, f"the file can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise reject(path, 0, "the file is not UTF-8", "save it as UTF-8") from None
    return text


def _table(path: Path, section: SetSection) -> list[Item]:
    """Read the items of a table. Raises ConfigRejected with the line of the first mistake."""
    if section.columns is None and section.format not in _PUBLIC:
        hint = f"items, {', '.join(_PUBLIC)}; or state its `columns`"
        raise reject(path, 0, f"there is no format {section.format!r}", hint)
    usual, columns = _PUBLIC.get(section.format) or ("en", ColumnsSection(ask=""))
    columns = section.columns or columns
    of_file = next((one for one in _INSTRUCTIONS if path.stem.endswith(f"_{one}")), usual)
    language = str(section.language or of_file)
    items: list[Item] = []
    for line, row in _rows(path, _table_text(path)):
        try:
            made = _row(row, columns, language, path)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise reject(path, line, f"is not an item of the set: {type(error).__name__} {error}") from None
        if made is not None:
            number = row.get("id", row.get("key", line))
            items.append(replace(made, id=f"{section.name}/{path.stem}/{number}"))
    if not items:
        raise reject(path, 0, "no item of the file can be scored")
    return items


def _rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the rows of a CSV, TSV, JSON or JSONL file with their line numbers. Names of columns are in lower case."""
    try:
        if path.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(text, newline=""))
            rows.fieldnames = [(name or "").strip().lower() for name in rows.fieldnames or ()]
            for row in rows:
                yield rows.line_num, {name: value or "" for name, value in row.items() if name}
        elif path.suffix == ".tsv":  # without a head
            for number, written in enumerate(text.split("\n"), 1):
                if written.strip():
                    yield number, {str(at): cell for at, cell in enumerate(written.rsplit("\t", 1))}
        elif path.suffix == ".jsonl":  # only a line feed ends a line; texts from the web contain U+2028
            for number, written in enumerate(text.split("\n"), 1):
                if written.strip():
                    yield number, json.loads(written)
        else:
            value = json.loads(text)
            lists = [value] if isinstance(value, list) else [one for one in value.values() if isinstance(one, list)]
            yield from ((0, row) for rows_ in lists for row in rows_)
    except (csv.Error, ValueError, RecursionError, AttributeError) as error:
        raise reject(path, 0, f"can't be read as {path.suffix.removeprefix('.') or 'JSON'}: {error}") from None


def _row(row: Mapping[str, object], columns: ColumnsSection, language: str, path: Path) -> Item | None:
    """Return the item of a row, or None if it has no answer (the hidden part of a test)."""
    ask = str(row[columns.ask])
    subject = str(row.get(columns.subject, path.stem)) if columns.subject is not None else path.stem
    group = row.get(columns.group) if columns.group is not None else None
    item = Item("", subject, language, ask, group=None if group is None else f"{path.stem}:{group}")
    if columns.expects is not None:
        return replace(item, expects=_EXPECTS[str(row[columns.expects]).strip()])
    to_letter, to_number = _INSTRUCTIONS.get(language, _INSTRUCTIONS["en"])
    check: AnswerCheck
    if columns.letter is not None:
        cells = [row[name] for name in columns.choices]
        choices = list(map(str, cells[0] if isinstance(cells[0], list) else cells))
        answer = row[columns.letter]
        letter = LETTERS[answer] if isinstance(answer, int) and answer >= 0 else str(answer).strip().upper()
        if not letter or answer == -1:
            return None
        if letter not in LETTERS[: len(choices)]:
            raise ValueError(f"the answer is {letter[:20]!r}, not a letter of its choices")
        check, ask = Letter(letter, len(choices)), f"{_with_choices(ask, choices)}\n{to_letter}"
    elif columns.number is not None:
        check, ask = Number(float(str(row[columns.number]).replace(",", ""))), f"{ask}\n{to_number}"
    else:
        check = Same((str(row[columns.same or ""]),))
    return replace(item, prompt=ask, check=check, right=check.right)
