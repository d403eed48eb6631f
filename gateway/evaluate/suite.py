"""A suite's file and the files that it names -> everything that is asked, and what must be reached."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.config.examples import example_path
from gateway.config.problems import ConfigRejected
from gateway.evaluate.item_files import WRONG_CHECK, Bank, check_of, has_one_check, read_bank, read_items
from gateway.evaluate.items import Check, Item, JudgeCheck, ToolCallCheck, draw
from gateway.evaluate.public_sets import read_public
from gateway.evaluate.suite_schema import FileFindings, SetSection, SuiteFile, read_section, reject

_BANKS = frozenset({"bank", "xstest"})
_PRICED_TOKENS = 1_000_000
_FORMS_OF_A_SET = frozenset({"items", "c-eval", "cmmlu", "safetybench", "ifeval", "mgsm"})


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """What the answers to prompts must be like in which this expression is found; None: to all of them."""

    name: str
    when: str | None
    check: Check


@dataclass(frozen=True, slots=True)
class Suite:
    """One evaluation. digest: of everything that is asked and how, by which a run is known again."""

    file: SuiteFile
    performance: tuple[Item, ...]
    compliance: tuple[Item, ...]
    consistency: tuple[Item, ...]
    bank: Bank | None
    digest: str
    shadow: tuple[PromptCheck, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    def cost_of(self, deployment: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What so many tokens cost, in the currency of the prices; None where the deployment has none."""
        price = self.file.prices.deployments.get(deployment) if self.file.prices is not None else None
        if price is None:
            return None
        return (prompt_tokens * price.input + completion_tokens * price.output) / _PRICED_TOKENS


def percent(written: str) -> float:
    """The share of a percentage: 0.9 of `90%`."""
    return float(written.removesuffix("%")) / 100


def suite_path(name: str) -> Path:
    """The file of a suite: a path, or the name of one that comes with the gateway; raises FileNotFoundError."""
    path = Path(name)
    if path.suffix or path.exists():
        return path
    return example_path(f"evaluations/{name}.yaml")


def load_suite(path: Path, seed: int | None = None) -> Suite:
    """The suite in a file, its seed replaced where one is given; raises ConfigRejected with every mistake of a file."""
    file, findings = read_section(path, SuiteFile)
    if seed is not None:
        file = file.model_copy(update={"seed": seed})
    measured = (file.performance, file.compliance, file.scalability, file.shadow)
    if all(section is None for section in measured):
        findings.error((), "nothing is measured", "write performance, compliance, scalability or shadow")
    if file.spend.cost is not None and file.prices is None:
        findings.error(("spend", "cost"), "there are no prices to reckon it by", "write them under prices")
    rates = file.scalability.rates if file.scalability is not None else []
    if rates != sorted(set(rates)):
        findings.error(("scalability", "rates"), "must rise from step to step")
    for name, one in file.simulated.items():
        if one.first_token_p95_ms is not None and not 0 < one.first_token_ms <= one.first_token_p95_ms:
            place = ("simulated", name, "first_token_p95_ms")
            findings.error(place, "can't be below first_token_ms, which can't be 0 beside it")
    performance = _performance(path, file, findings)
    compliance, bank = _compliance(path, file, findings)
    shadow = _shadow(file, findings)
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    count = file.compliance.consistency if file.compliance is not None else 0
    consistency = _drawn(compliance, count, file.seed, "consistency")
    digest = _digest(file, (*performance, *compliance))
    return Suite(file, performance, compliance, consistency, bank, digest, shadow)


def _performance(path: Path, file: SuiteFile, findings: FileFindings) -> tuple[Item, ...]:
    items: list[Item] = []
    for index, section in enumerate(file.performance.sets if file.performance is not None else ()):
        if section.format not in _FORMS_OF_A_SET:
            hint = "put it under compliance.sets"
            findings.error(("performance", "sets", index, "format"), f"{section.format} has nothing to score", hint)
            continue
        items += _set_items(path, section, file.seed)
    if file.judge is None and any(isinstance(item.check, JudgeCheck) for item in items):
        findings.error(
            ("performance", "sets"), "has items with a rubric, and there is no judge", "name one under judge"
        )
    return _unique(path, items)


def _compliance(path: Path, file: SuiteFile, findings: FileFindings) -> tuple[tuple[Item, ...], Bank | None]:
    section = file.compliance
    if section is None:
        return (), None
    counts = {"accept": section.accept, "refuse": section.refuse, "answer": section.answer}
    bank = read_bank(path.parent / section.bank, file.seed, dict(counts))  # type: ignore[arg-type]  # the keys are its words
    items = list(bank.items)
    for index, one in enumerate(section.sets):
        if one.format not in _BANKS:
            hint = "put it under performance.sets"
            findings.error(("compliance", "sets", index, "format"), f"{one.format} is no bank", hint)
            continue
        items += _set_items(path, one, file.seed)
    return _unique(path, items), bank


def _shadow(file: SuiteFile, findings: FileFindings) -> tuple[PromptCheck, ...]:
    found: list[PromptCheck] = []
    for index, section in enumerate(file.shadow.checks if file.shadow is not None else ()):
        place = ("shadow", "checks", index)
        if not has_one_check(findings, place, section):
            continue
        try:
            re.compile(section.when or "")
            one = PromptCheck(section.name, section.when, check_of(section, {}))
        except WRONG_CHECK as error:
            findings.error(place, str(error))
            continue
        if isinstance(one.check, ToolCallCheck):
            findings.error((*place, "call"), "can't be told: of calls only their number is recorded")
        if isinstance(one.check, JudgeCheck) and file.judge is None:
            findings.error((*place, "rubric"), "there is no judge", "name one under judge")
        found.append(one)
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        findings.error(("shadow", "checks"), f"two checks are called {twice!r}")
    return tuple(found)


def _set_items(suite: Path, section: SetSection, seed: int) -> tuple[Item, ...]:
    pattern = str(suite.parent / section.file)
    paths = [Path(found) for found in sorted(glob.glob(pattern))] if "*" in section.file else [Path(pattern)]
    if not paths:
        raise reject(suite, 0, f"no file is named like {section.file}")
    items: list[Item] = []
    for path in paths:
        if section.format == "items":
            items += read_items(path, section.name, seed)
        else:
            items += read_public(path, section.format, section.name, section.language)
    return _drawn(items, section.sample, seed, section.name)


def _drawn(items: Iterable[Item], count: int | None, seed: int, purpose: str) -> tuple[Item, ...]:
    """So many of the items by the seed, in their own order; all of them where no number is given."""
    kept = tuple(items)
    if count is None or count >= len(kept):
        return kept
    chosen = {item.id for item in sorted(kept, key=lambda item: draw(seed, purpose, item.id))[:count]}
    return tuple(item for item in kept if item.id in chosen)


def _unique(path: Path, items: list[Item]) -> tuple[Item, ...]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise reject(path, 0, f"two items are called {item.id!r}", "give the sets different names")
        seen.add(item.id)
    return tuple(items)


def _digest(file: SuiteFile, items: tuple[Item, ...]) -> str:
    """What a run is known by. What is only reckoned afterwards (weights, requirements) is no part of it."""
    asked = file.model_dump(
        mode="json", by_alias=True, exclude={"weights", "requirements", "spend", "limits", "prices"}
    )
    hashed = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for item in items:
        hashed.update(
            repr((item.id, item.prompt, item.check, item.system, item.tools)).encode("utf-8", "surrogatepass")
        )
    return hashed.hexdigest()[:16]
