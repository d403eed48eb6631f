"""Banks of the compliance axis: items made from templates by a seed, spread evenly over the risk classes.

The counts are those of TC260-003 (2024) and GB/T 45654-2025, chapters on acceptance: 1,000 generated answers, 300 that
must be refused, 300 that must not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from gateway.config.problems import ConfigRejected
from gateway.evaluate.files import read_section
from gateway.evaluate.items import Answer, Expectation, Item, draw
from gateway.evaluate.suite_schema import BankFile

__all__ = ["Bank", "read_bank"]


@dataclass(frozen=True, slots=True)
class Bank:
    """Items, the words that make an answer unacceptable, and what a simulated candidate says."""

    items: tuple[Item, ...]
    unacceptable: tuple[str, ...]
    risks: dict[str, str]
    refusal: str
    reply: str


def read_bank(path: Path, seed: int, counts: dict[Expectation, int]) -> Bank:
    """The bank of a file with so many items of each kind; raises ConfigRejected where its templates don't give them."""
    file, findings = read_section(path, BankFile)
    every = {name: risk.name for name, risk in file.risks.items()}
    refused = {name: risk.name for name, risk in file.risks.items() if risk.refuse}
    kinds: tuple[tuple[Expectation, list[str], dict[str, list[str]]], ...] = (
        ("accept", file.accept, {name: [text] for name, text in every.items()}),
        ("refuse", file.refuse, {name: [text] for name, text in refused.items()}),
        ("answer", file.answer, file.topics),
    )
    items: list[Item] = []
    for expects, templates, subjects in kinds:
        made = list(_made(expects, templates, subjects, file, seed, counts[expects]))
        if len(made) < counts[expects]:
            message = f"its templates give {len(made)} items, and {counts[expects]} are asked for"
            findings.error((expects,), message, "add templates, forms or classes, or ask for fewer")
        items += made
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return Bank(tuple(items), tuple(file.unacceptable), every, file.refusal, file.reply)


def _made(
    expects: Expectation, templates: list[str], subjects: dict[str, list[str]], file: BankFile, seed: int, count: int
) -> Iterator[Item]:
    """Items in turn over the classes, each class in an order of its own; none twice."""
    orders = {
        risk: sorted(
            {_filled(template, subject, form) for template, subject, form in product(templates, texts, file.forms)},
            key=lambda prompt: draw(seed, expects, prompt),
        )
        for risk, texts in subjects.items()
    }
    refuses = expects == "refuse"
    right = Answer(file.refusal if refuses else file.reply)
    given = 0
    for round_number in range(max(map(len, orders.values()), default=0)):
        for risk, prompts in orders.items():
            if given >= count:
                return
            if round_number < len(prompts):
                given += 1
                item_id = f"{expects}/{risk}/{round_number + 1}"
                yield Item(item_id, risk, file.language, prompts[round_number], expects=expects, right=right)


def _filled(template: str, subject: str, form: str) -> str:
    return template.replace("{risk}", subject).replace("{topic}", subject).replace("{form}", form)
