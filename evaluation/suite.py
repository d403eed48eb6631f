"""Load a suite: its file and the item files that it names."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evaluation.item_files import WRONG_CHECK, Bank, check_of, has_one_check, read_bank, read_items
from evaluation.items import Check, Item, JudgeCheck, ToolCallCheck, draw, first_samples, samples_of
from evaluation.performance import groups_of
from evaluation.public_sets import read_public
from evaluation.suite_schema import SetSection, SuiteFile, read_section, reject
from gateway.config.examples import example_path
from gateway.config.problems import ConfigRejected, choice_hint
from gateway.config.validation import Findings

_BANK_FORMATS = frozenset({"bank", "xstest"})
_PRICED_TOKENS = 1_000_000
_PERFORMANCE_FORMATS = frozenset({"items", "c-eval", "cmmlu", "safetybench", "ifeval", "mgsm"})


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """A check of recorded answers. `when` is a regular expression that selects prompts; None selects all."""

    name: str
    when: str | None
    check: Check


@dataclass(frozen=True, slots=True)
class Suite:
    """One evaluation. Its items are all samples of its questions.

    Attributes:
        digest: A hash of all questions and settings of the run. It identifies a run that is resumed.
    """

    file: SuiteFile
    performance: tuple[Item, ...]
    compliance: tuple[Item, ...]
    consistency: tuple[Item, ...]
    bank: Bank | None
    digest: str
    shadow: tuple[PromptCheck, ...] = ()

    @property
    def groups(self) -> dict[str, str]:
        """The group of each item that depends on others."""
        return groups_of((*self.performance, *self.compliance))

    @property
    def name(self) -> str:
        """The name of the evaluation."""
        return self.file.name

    def cost_of(self, deployment: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return the cost of the tokens, in the currency of the prices, or None if the deployment has no price."""
        price = self.file.prices.deployments.get(deployment) if self.file.prices is not None else None
        if price is None:
            return None
        return (prompt_tokens * price.input + completion_tokens * price.output) / _PRICED_TOKENS


def percent(written: str) -> float:
    """Return a percentage as a fraction: `90%` as 0.9."""
    return float(written.removesuffix("%")) / 100


def suite_path(name: str) -> Path:
    """Return the path of a suite, given as a path or as the name of a built-in suite. Raises FileNotFoundError."""
    path = Path(name)
    if path.suffix or path.exists():
        return path
    return example_path(f"evaluations/{name}.yaml")


def load_suite(path: Path, seed: int | None = None) -> Suite:
    """Load a suite file. `seed` replaces the suite's seed. Raises ConfigRejected with all mistakes of a file."""
    file, findings = read_section(path, SuiteFile)
    if seed is not None:
        file = file.model_copy(update={"seed": seed})
    _check_names(file, findings)
    measured = (file.performance, file.compliance, file.scalability, file.shadow)
    if all(section is None for section in measured):
        findings.error((), "the suite measures nothing", "add performance, compliance, scalability or shadow")
    if file.spend.cost is not None and file.prices is None:
        findings.error(("spend", "cost"), "needs prices to compute the cost", "add them under prices")
    rates = file.scalability.rates if file.scalability is not None else []
    if rates != sorted(set(rates)):
        findings.error(("scalability", "rates"), "must increase from step to step")
    for name, section in file.simulated.items():
        if section.first_token_p95_ms is not None and not 0 < section.first_token_ms <= section.first_token_p95_ms:
            path_of_key = ("simulated", name, "first_token_p95_ms")
            findings.error(path_of_key, "must be at least first_token_ms, which must be above 0")
    performance = _performance(path, file, findings)
    compliance, bank = _compliance(path, file, findings)
    shadow = _shadow(file, findings)
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    digest = _digest(file, (*performance, *compliance))
    performance, compliance = (_unique(path, samples_of(items, file.epochs)) for items in (performance, compliance))
    count = file.compliance.consistency if file.compliance is not None else 0
    asked_again = {item.id for item in _sample(first_samples(compliance), count, file.seed, "consistency")}
    consistency = tuple(item for item in compliance if item.question_id in asked_again)
    return Suite(file, performance, compliance, consistency, bank, digest, shadow)


def _check_names(file: SuiteFile, findings: Findings) -> None:
    """Report requirements and weights of sets that the suite does not have."""
    known = [one.name for one in file.performance.sets] if file.performance is not None else []
    for section, names in (("requirements", file.requirements.sets), ("weights", file.weights.sets)):
        for name in names:
            if name not in known:
                findings.error((section, "sets", name), f"there is no set {name!r}", choice_hint(name, known), key=True)


def _performance(path: Path, file: SuiteFile, findings: Findings) -> tuple[Item, ...]:
    items: list[Item] = []
    for index, section in enumerate(file.performance.sets if file.performance is not None else ()):
        if section.format not in _PERFORMANCE_FORMATS:
            hint = "move it to compliance.sets"
            findings.error(("performance", "sets", index, "format"), f"{section.format} has no items to score", hint)
            continue
        items += _set_items(path, section, file.seed)
    if file.judge is None and any(isinstance(item.check, JudgeCheck) for item in items):
        findings.error(("performance", "sets"), "items with a rubric need a judge", "name a deployment under judge")
    return _unique(path, items)


def _compliance(path: Path, file: SuiteFile, findings: Findings) -> tuple[tuple[Item, ...], Bank | None]:
    section = file.compliance
    if section is None:
        return (), None
    counts = {"accept": section.accept, "refuse": section.refuse, "answer": section.answer}
    bank = read_bank(path.parent / section.bank, file.seed, dict(counts))  # type: ignore[arg-type]  # the keys are literals
    items = list(bank.items)
    for index, one in enumerate(section.sets):
        if one.format not in _BANK_FORMATS:
            hint = "move it to performance.sets"
            findings.error(("compliance", "sets", index, "format"), f"{one.format} is not a bank", hint)
            continue
        items += _set_items(path, one, file.seed)
    return _unique(path, items), bank


def _shadow(file: SuiteFile, findings: Findings) -> tuple[PromptCheck, ...]:
    checks: list[PromptCheck] = []
    for index, section in enumerate(file.shadow.checks if file.shadow is not None else ()):
        key_path = ("shadow", "checks", index)
        if not has_one_check(findings, key_path, section):
            continue
        try:
            re.compile(section.when or "")
            check = PromptCheck(section.name, section.when, check_of(section, {}))
        except WRONG_CHECK as error:
            findings.error(key_path, str(error))
            continue
        if isinstance(check.check, ToolCallCheck):
            findings.error((*key_path, "call"), "can't be checked: only the number of tool calls is recorded")
        if isinstance(check.check, JudgeCheck) and file.judge is None:
            findings.error((*key_path, "rubric"), "needs a judge", "name a deployment under judge")
        checks.append(check)
    names = [check.name for check in checks]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        findings.error(("shadow", "checks"), f"two checks have the name {duplicate!r}")
    return tuple(checks)


def _set_items(suite: Path, section: SetSection, seed: int) -> tuple[Item, ...]:
    pattern = str(suite.parent / section.file)
    paths = [Path(match) for match in sorted(glob.glob(pattern))] if "*" in section.file else [Path(pattern)]
    if not paths:
        raise reject(suite, 0, f"no file matches {section.file}")
    items: list[Item] = []
    for path in paths:
        if section.format == "items":
            items += read_items(path, section.name, seed)
        else:
            items += read_public(path, section.format, section.name, section.language)
    return _sample(items, section.sample, seed, section.name)


def _sample(items: Iterable[Item], count: int | None, seed: int, purpose: str) -> tuple[Item, ...]:
    """Choose this number of items by the seed and keep their order. Return all items if `count` is None."""
    population = tuple(items)
    if count is None or count >= len(population):
        return population
    chosen = {item.id for item in sorted(population, key=lambda item: draw(seed, purpose, item.id))[:count]}
    return tuple(item for item in population if item.id in chosen)


def _unique(path: Path, items: Iterable[Item]) -> tuple[Item, ...]:
    seen, unique = set[str](), list[Item]()
    for item in items:
        if item.id in seen:
            raise reject(path, 0, f"two items have the name {item.id!r}", "give the sets different names")
        seen.add(item.id)
        unique.append(item)
    return tuple(unique)


def _digest(file: SuiteFile, items: tuple[Item, ...]) -> str:
    """Return the hash that identifies a run. Values used only after the run (weights, requirements) are left out."""
    settings = file.model_dump(
        mode="json", by_alias=True, exclude={"weights", "requirements", "recommendation", "spend", "limits", "prices"}
    )
    hashed = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for item in items:
        hashed.update(
            repr((item.id, item.prompt, item.check, item.system, item.tools)).encode("utf-8", "surrogatepass")
        )
    return hashed.hexdigest()[:16]
