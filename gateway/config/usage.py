"""Compile `usage`, `projects` and the budgets of clients, and check that money can be counted where it is limited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.config.moderation import RegionJudges
from gateway.config.problems import KeyPath, quoted
from gateway.config.regions import Regions, check_place
from gateway.config.schema.file import ClientSection
from gateway.config.schema.usage import AlertsSection, UsageSection
from gateway.config.service_permits import read_service
from gateway.config.territories import read_territory
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.assistant import Assistant
from gateway.model.budget import (
    CALENDAR_WINDOWS,
    NO_SPENDING_RULES,
    Alerts,
    AlertWebhook,
    BudgetRule,
    Money,
    Project,
    SpendingRules,
    UsageRules,
)
from gateway.model.config_version import Client
from gateway.model.deployment import Deployment
from gateway.model.route import deployments_of
from gateway.model.units import first_names
from gateway.policy.location.claim import ClaimSection
from providers.catalogue.prices import NO_CURRENCY

_SHOWN_CLIENTS = 3


def compile_usage(draft: Draft, regions: Regions) -> UsageRules:
    """Return the rules of usage of a draft."""
    section = draft.config.usage or UsageSection()
    rates = section.rates.by_currency if section.rates is not None else {}
    currency = section.currency
    if rates and currency is None and not draft.is_broken("usage", "currency"):
        draft.error(("usage", "rates"), "needs `usage.currency`", "write your own currency, such as currency: EUR")
    if currency is not None and currency in rates:
        draft.error(("usage", "rates", currency), "is `usage.currency` itself", "remove it", key=True)
    on_loss = section.on_loss.allow if section.on_loss is not None else None
    if on_loss is not None:
        check_currency(draft, ("usage", "on_loss", "allow"), on_loss, section.currency)
        if draft.config.stores is None and not draft.is_broken("stores"):
            message = "has no effect without `stores`: the state directory is on this machine"
            draft.warn(("usage", "on_loss"), message, "remove it")
    if section.internal_project is not None and draft.config.clients_source == "file":
        _check_project(draft, ("usage", "internal_project"), section.internal_project)
    return UsageRules(
        currency=section.currency,
        rates=rates,
        rates_as_of=section.rates.as_of if section.rates is not None else None,
        timezone=section.timezone or "UTC",
        on_loss=on_loss,
        retention=section.retention,
        alerts=_alerts(draft, section.alerts, regions) if section.alerts is not None else None,
        internal_project=section.internal_project,
    )


def _check_project(draft: Draft, path: KeyPath, name: str) -> None:
    check_reference(draft, path, "projects", name, none="define it in `projects`")


def _alerts(draft: Draft, section: AlertsSection, regions: Regions) -> Alerts:
    path: KeyPath = ("usage", "alerts")
    for index, percent in enumerate(section.at):
        if percent in section.at[:index]:
            draft.error((*path, "at", index), f"{percent} is listed twice", "remove one")
    webhook = None
    if section.webhook is not None:
        service = read_service(draft, (*path, "webhook", "url"), section.webhook.url, usual_path="/")
        territory = read_territory(draft, (*path, "webhook", "territory"), section.webhook.territory)
        if territory is not None:
            check_place(draft, (*path, "webhook", "territory"), territory, regions, "alerts about")
        if service is not None and territory is not None:
            webhook = AlertWebhook(service.permit, service.path, territory)
    return Alerts(tuple(sorted(set(section.at))), webhook)


def check_currency(draft: Draft, path: KeyPath, amount: Money, currency: str | None) -> bool:
    """Return whether the amount is in the operator's currency. Report an error if not."""
    if draft.is_broken("usage", "currency") or amount.currency == currency:
        return True
    if currency is None:
        draft.error(path, "an amount of money needs `usage.currency`", f"write usage: {{currency: {amount.currency}}}")
    else:
        message = f"is in {amount.currency}, but budgets are in `usage.currency` ({currency})"
        draft.error(path, message, f"write the amount in {currency}")
    return False


@dataclass(slots=True)
class SpendingCompiler:
    """Compiles projects and budgets of clients. A mistake of all budgets is reported at the first one only."""

    draft: Draft
    rules: UsageRules
    projects: Mapping[str, Project] = field(init=False)
    _names_user: bool = field(init=False)
    _named_by_tokens: frozenset[str] = field(init=False)
    _reported: set[str] = field(default_factory=set)
    _seen: dict[SpendingRules, SpendingRules] = field(default_factory=dict)

    def __post_init__(self) -> None:
        location = self.draft.config.location
        self._names_user = location.of(ClaimSection) is not None and "claim" in location.signals
        rules = [rule for issuer in self.draft.config.token_issuers.values() for rule in issuer.clients]
        self._named_by_tokens = frozenset(rule.gives for rule in rules if rule.names_user)
        self.projects = {
            name: Project(name, self._budgets(("projects", name, "budgets"), section.budgets))
            for name, section in self.draft.config.projects.items()
        }
        if self.draft.config.clients_source == "database":
            for section in ("clients", "projects"):
                if self.draft.names(section):
                    message = "is in the database (`clients_source: database`), so this file must not have it"
                    self.draft.error((section,), message, "remove it, or write clients_source: file")

    def client(self, name: str, section: ClientSection) -> SpendingRules:
        """Return what a client may spend."""
        path: KeyPath = ("clients", name)
        if section.project is not None:
            _check_project(self.draft, (*path, "project"), section.project)
        maximum = section.max_request.amount if section.max_request is not None else None
        if maximum is not None:
            self._check_amount((*path, "max_request", "amount"), maximum)
        rules = SpendingRules(
            project=self.projects.get(section.project) if section.project is not None else None,
            budgets=self._budgets((*path, "budgets"), section.budgets or ()),
            user_budgets=self._budgets((*path, "user_budget"), section.user_budget or ()),
            max_request=maximum,
            show_cost=section.show_cost,
        )
        names_user = self._names_user or "user" in section.may_assert or name in self._named_by_tokens
        if rules.user_budgets and not names_user:
            message = "its requests cannot name an end user, so all are refused (`user_required`)"
            hint = "add `may_assert: [user]` for a trusted backend, or set up `location.claim`"
            self.draft.warn((*path, "user_budget"), message, hint)
        # Thousands of clients have few different rules. Shared values are pickled once.
        return NO_SPENDING_RULES if rules == NO_SPENDING_RULES else self._seen.setdefault(rules, rules)

    def _budgets(self, path: KeyPath, rules: Sequence[BudgetRule]) -> tuple[BudgetRule, ...]:
        budgets: list[BudgetRule] = []
        for index, budget in enumerate(rules):
            here = (*path, index)
            if (budget.amount is None) == (budget.tokens is None):
                message = "has no amount" if budget.amount is None else "has two amounts"
                self.draft.error(here, message, "give it either `amount` or `tokens`")
                continue
            if budget.amount is not None:
                self._check_amount((*here, "amount"), budget.amount)
            if budget.per in CALENDAR_WINDOWS:
                self._check_time_zone(here)
            if any((other.unit, other.per) == (budget.unit, budget.per) for other in budgets):
                message = f"this list has a budget in {budget.unit} per {budget.per} already"
                self.draft.error(here, message, "keep the smaller one")
            budgets.append(budget)
        return tuple(budgets)

    def _check_amount(self, path: KeyPath, amount: Money) -> None:
        if self.rules.currency is not None or self._is_first("currency"):
            check_currency(self.draft, path, amount, self.rules.currency)

    def _check_time_zone(self, path: KeyPath) -> None:
        section = self.draft.config.usage
        is_set = section is not None and section.timezone is not None
        if not is_set and not self.draft.is_broken("usage", "timezone") and self._is_first("time zone"):
            message = "`usage.timezone` is not set: days, weeks and months begin at midnight UTC"
            self.draft.warn(path, message, "write usage: {timezone: Europe/Berlin}, or UTC")

    def _is_first(self, mistake: str) -> bool:
        is_first = mistake not in self._reported
        self._reported.add(mistake)
        return is_first


def _warn_of_uncounted_audio(
    findings: Findings, clients: Iterable[Client], assistants: Mapping[str, Assistant]
) -> None:
    """Warn of clients that only a number of tokens limits, where audio may cost and counts none."""
    heard = {name for name, it in assistants.items() if it.routes_for("transcription") or it.routes_for("speech")}
    for client in clients:
        limits, spending = client.limits, client.spending
        counts_tokens = (limits is not None and limits.tpm is not None) or spending.is_bounded
        limits_calls = limits is not None and (limits.rpm is not None or limits.concurrent is not None)
        has_other = spending.limits_money or limits_calls
        if counts_tokens and not has_other and (client.assistants is None or heard & client.assistants) and heard:
            message = "its only limits are of tokens, which few vendors count for audio: transcriptions have no limit"
            findings.warn(("clients", client.name), message, "add `rpm`, or a budget of money")


def check_prices(
    draft: Draft,
    rules: UsageRules,
    clients: Iterable[Client],
    assistants: Mapping[str, Assistant],
    judges: RegionJudges,
) -> None:
    """Report the deployments whose calls cannot be priced, although a client with a limit of money reaches them.

    It reaches the steps of all routes of its regions, of every use, and the judges of these regions. A deployment whose
    counts are hidden may cost more than is held, which is reported where any budget applies.

    A missing price is a warning: the deployment is skipped or the request refused. A missing rate is an error, also
    for a price that applies from a later day on than today.
    """
    if draft.config.clients_source == "database":
        reached = {name: ["a client of the database"] for name in _reached(assistants, judges, None, None)}
        bounded = reached
    else:
        clients = tuple(clients)
        reached = _reached_by((one for one in clients if one.spending.limits_money), assistants, judges)
        bounded = _reached_by((one for one in clients if one.spending.is_bounded), assistants, judges)
        _warn_of_uncounted_audio(draft, clients, assistants)
    deployments, now_s = _reached(assistants, judges, None, None), draft.document.read_at_s
    for name in [name for name in bounded if deployments[name].counts_hidden]:
        message = "each call may cost more than is held for it, because the provider adds prompts of its own"
        hint = f"leave room in the budgets of {_some(bounded[name])}; gateway_overshoot_total counts such calls"
        draft.warn(("deployments", name, "counts_hidden"), message, hint)
    without_rate: dict[str, str] = {}
    chats = _answer_chats(assistants)
    for name, users in reached.items():
        price, coming = deployments[name].price_at(now_s), deployments[name].coming_prices(now_s)
        if price is None:
            before, until = (f" before {coming[0].valid_from}", " until then") if coming else ("", "")
            message = f"has no price{before}, so requests with a budget of money are refused there{until}"
            hint = f"write its {'price until then' if coming else 'price'} in your own catalogue (`catalogue.models`)"
            draft.warn(("deployments", name), f"{message} ({_some(users)})", hint)
        elif name in chats and price.currency != NO_CURRENCY and not price.is_by_tokens:
            message = f"has a price of another use alone, so its chats cost nothing ({_some(users)})"
            draft.warn(("deployments", name), message, "write `input` and `output` in its price too")
        for one in (*([price] if price is not None else ()), *coming):
            if one.currency != NO_CURRENCY and not rules.knows(one.currency):
                without_rate.setdefault(one.currency, f"the deployment {quoted(name)}, which {_some(users)} reaches")
    is_known = rules.currency is not None and not draft.is_broken("usage", "rates")
    for currency, where in without_rate.items() if is_known else ():
        message = f"has no rate for {currency}, the currency of {where} with a budget of money"
        path: KeyPath = ("usage", "rates") if draft.source.has(("usage", "rates")) else ("usage",)
        draft.error(path, message, f"write rates: {{{currency}: …}}, the units of {rules.currency} for 1 {currency}")


def _answer_chats(assistants: Mapping[str, Assistant]) -> frozenset[str]:
    """Return the names of the deployments in routes of chats."""
    routes = [view.whole_route(region) for it in assistants.values() for view in it.views for region in view.regions]
    return frozenset(item.name for route in routes for item in deployments_of(route))


def _some(users: Sequence[str]) -> str:
    return first_names(users, _SHOWN_CLIENTS)


def _reached_by(
    clients: Iterable[Client], assistants: Mapping[str, Assistant], judges: RegionJudges
) -> dict[str, list[str]]:
    """Return the clients that reach each deployment, by its name."""
    alike: dict[tuple[frozenset[str] | None, str | None], dict[str, None]] = {}
    for client in clients:
        alike.setdefault((client.assistants, client.region), {})[f"the client {quoted(client.name)}"] = None
    reached: dict[str, list[str]] = {}
    for (names, region), users in alike.items():
        for name in _reached(assistants, judges, names, region):
            reached.setdefault(name, []).extend(users)
    return reached


def _reached(
    assistants: Mapping[str, Assistant], judges: RegionJudges, names: frozenset[str] | None, region: str | None
) -> dict[str, Deployment]:
    """Return the enabled deployments that a client with these assistants, bound to this region, may reach."""
    own = [assistant for name, assistant in assistants.items() if names is None or name in names]
    routes = [(name, one.every_step(name)) for one in own for name in one.regions if region is None or name == region]
    asked = [judge for name in dict(routes) for _, judge in judges.get(name, ())]
    steps = [item for _, route in routes for item in deployments_of(route)]
    return {item.name: item for item in (*steps, *asked) if item.enabled}
