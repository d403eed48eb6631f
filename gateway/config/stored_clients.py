"""Compile clients and projects that are stored in the database. They have the keys of the file, without `keys`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from gateway.config.field_types import Section
from gateway.config.problems import choice_hint, dotted, quoted
from gateway.config.schema.file import ClientSection
from gateway.config.schema.usage import ProjectSection
from gateway.config.shape import read_shape
from gateway.model.budget import NO_SPENDING_RULES, BudgetRule, Money, Project, SpendingRules
from gateway.model.config_version import Client, ClientLimitRule
from gateway.model.stored_client import ConfigFacts, Definition

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_BUDGET = re.compile(
    r"(?:(?P<amount>\S+ [A-Z]{3})|(?P<tokens>[0-9]{1,16}) tokens)(?: per |/| in )(?P<per>[a-z]+)", re.ASCII
)
_T = TypeVar("_T", bound=Section)
STORED_KEYS = {"clients": ClientSection.model_fields.keys() - {"keys"}, "projects": ProjectSection.model_fields.keys()}
"""The keys that a definition of each section may have."""


class InvalidDefinition(ValueError):
    """A definition that cannot be used. The message has every problem with its key, and how to fix it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))


def read_budget(text: str) -> dict[str, object]:
    """Return the definition of a budget: `20 EUR per day`, `5000000 tokens per month`. Raises InvalidDefinition."""
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        message = f"{quoted(text)} is not a budget: write `20 EUR per day` or `5000000 tokens per month`"
        raise InvalidDefinition([message])
    amount = {"amount": match["amount"]} if match["amount"] else {"tokens": int(match["tokens"])}
    return {**amount, "per": match["per"]}


def check_name(name: str) -> None:
    """Raise InvalidDefinition if a client or a project can't have this name."""
    if _NAME.fullmatch(name) is None:
        rule = "write 1 to 64 letters, digits, `.`, `_` and `-`, and begin with a letter or digit"
        raise InvalidDefinition([f"{quoted(name)} is not a name: {rule}"])


def compile_stored_project(name: str, definition: Definition, facts: ConfigFacts) -> Project:
    """Return a stored project. Raises InvalidDefinition."""
    section = _read(ProjectSection, definition)
    problems: list[str] = []
    budgets = _budgets("budgets", section.budgets, facts, problems)
    if problems:
        raise InvalidDefinition(problems)
    return Project(name, budgets)


def compile_stored_client(
    name: str, definition: Definition, facts: ConfigFacts, projects: Mapping[str, Project]
) -> Client:
    """Return a stored client, without its keys. Raises InvalidDefinition."""
    if "keys" in definition:
        raise InvalidDefinition(["keys: `gateway keys create` creates the keys of a stored client"])
    section = _read(ClientSection, definition)
    problems: list[str] = []
    for assistant in section.assistants or ():
        _expect(assistant, facts.assistants, "assistants", "assistant", problems)
    if section.region is not None:
        _expect(section.region, facts.regions, "region", "region", problems)
    if section.project is not None:
        _expect(section.project, projects, "project", "project", problems)
    if section.limits == ClientLimitRule():
        problems.append("limits: sets no limit; leave it out")
    if section.max_request is not None:
        _check_currency("max_request", section.max_request.amount, facts, problems)
    spending = SpendingRules(
        project=projects.get(section.project) if section.project is not None else None,
        budgets=_budgets("budgets", section.budgets or (), facts, problems),
        user_budgets=_budgets("user_budget", section.user_budget or (), facts, problems),
        max_request=section.max_request.amount if section.max_request is not None else None,
        show_cost=section.show_cost,
    )
    if problems:
        raise InvalidDefinition(problems)
    return Client(
        name=name,
        assistants=frozenset(section.assistants) if section.assistants is not None else None,
        region=section.region,
        may_assert=frozenset(section.may_assert),
        limits=section.limits,
        spending=NO_SPENDING_RULES if spending == NO_SPENDING_RULES else spending,
        priority=section.priority,
    )


def _read(kind: type[_T], definition: Definition) -> _T:
    section, errors = read_shape(kind, definition)
    if section is None:
        messages = [f"{dotted(it.path)}: {it.message}" + (f"; {it.hint}" if it.hint else "") for it in errors]
        raise InvalidDefinition(messages)
    return section


def _expect(name: str, known: Iterable[str], key: str, word: str, problems: list[str]) -> None:
    names = set(known)
    if name not in names:
        hint = choice_hint(name, names, none=f"there is no {word}")
        problems.append(f"{key}: unknown {word} {quoted(name)}" + (f"; {hint}" if hint else ""))


def _budgets(key: str, rules: Sequence[BudgetRule], facts: ConfigFacts, problems: list[str]) -> tuple[BudgetRule, ...]:
    for index, budget in enumerate(rules):
        if (budget.amount is None) == (budget.tokens is None):
            problems.append(f"{key}: a budget has either `amount` or `tokens`")
            continue
        if budget.amount is not None:
            _check_currency(key, budget.amount, facts, problems)
        if any((other.unit, other.per) == (budget.unit, budget.per) for other in rules[:index]):
            problems.append(f"{key}: there are two budgets in {budget.unit} per {budget.per}; keep the smaller one")
    return tuple(rules)


def _check_currency(key: str, amount: Money, facts: ConfigFacts, problems: list[str]) -> None:
    if facts.currency is None:
        hint = f"write usage: {{currency: {amount.currency}}} in the config"
        problems.append(f"{key}: an amount of money needs `usage.currency`; {hint}")
    elif amount.currency != facts.currency:
        problems.append(f"{key}: is in {amount.currency}, but budgets are in `usage.currency` ({facts.currency})")
