"""Show budgets and quotas, reset budgets and top them up: for the admin API and for commands.

The counters are in the gate of the installation: a file of the state directory, or Valkey. Any process may open it.
Each change is recorded as a row of the ledger and in the audit trail.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import closing
from decimal import Decimal
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from gateway.installation import operator_gate, pseudonym_key, usage_reader, users_renamed_ns
from gateway.model.budget import Project, SpendingRules, Window
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.policy.client_users import has_issuer, people_named
from gateway.service.client_admin import AdminRefused, ClientAdmin, InvalidFields, Json
from gateway.usage.accounting import end_user_pseudonym
from gateway.usage.amounts import NANO
from gateway.usage.gate import (
    TOKENS,
    BudgetLimit,
    Counter,
    CounterKind,
    CounterState,
    GateUnavailable,
    MayBeDone,
    OperatorGate,
    shown_in,
)
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.quota_sums import HOUR_NS, read_uses, used_of
from gateway.usage.quotas import limits_of
from gateway.usage.refusals import shown_budget
from gateway.usage.spending_limits import calendar_of, limits_from, user_limits
from gateway.usage.usage_row import BudgetChange, RowKind, UsageRow, encode_row
from providers.value import Value

PSEUDONYM = re.compile(r"u_[0-9a-f]+", re.ASCII)
_AMOUNT = re.compile(r"(?P<number>[0-9]{1,15}(\.[0-9]{1,9})?)( (?P<unit>[A-Z]{3}|tokens))?", re.ASCII)
_MOST_UNITS = 9_000_000_000
_TRIES_S, _PAUSE_S = 5.0, 0.01
_NOT_FOUND = 404
_NO_CLIENT = "no client"
_T = TypeVar("_T")
_OF: Mapping[CounterKind, Literal["client", "project", "user"]] = {
    CounterKind.CLIENT: "client",
    CounterKind.PROJECT: "project",
    CounterKind.USER: "user",
}


def in_gate(config: ConfigVersion, directory: Path, work: Callable[[OperatorGate], Awaitable[_T]]) -> _T:
    """Return the result of an operation of the gate. Raises StateError if the gate stays busy or unreachable."""

    async def run() -> _T:
        async with operator_gate(lambda: config, directory) as gate:
            return await _tried(lambda: work(gate))

    return asyncio.run(run())


class BudgetOwner(Value, frozen=True):
    """The owner of budgets: a client, a project or an end user."""

    kind: CounterKind
    name: str
    """The name of the client or project; the end user as its issuer or client names it, or its pseudonym."""
    client: str | None = None
    """The client to which the budgets of an end user belong. None stands for all of them."""
    issuer: str | None = None
    """The issuer that names an end user, or None for every issuer."""


def owner_of(given: Mapping[str, str]) -> BudgetOwner | None:
    """Return the owner that these fields name, or None. Raises InvalidFields if they name more than one."""
    if CounterKind.USER in given and CounterKind.PROJECT not in given:
        client, issuer = given.get(CounterKind.CLIENT), given.get("issuer")
        return BudgetOwner(CounterKind.USER, given[CounterKind.USER], client, issuer)
    owners = [BudgetOwner(kind, given[kind]) for kind in CounterKind if kind in given]
    if len(owners) > 1:
        raise InvalidFields("name one owner: `client`, `project`, or `user` with its `client`")
    return owners[0] if owners else None


class BudgetAdmin:
    """The actions on budgets and quotas, under the active config version with the stored clients."""

    def __init__(self, admin: ClientAdmin, config: ConfigVersion, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._admin = admin
        self._config = config
        self._directory: Path = admin.directory
        self._clock_ns = clock_ns

    def show(self, owner: BudgetOwner | None = None) -> Json:
        """Return the budgets of an owner, or of all clients and projects, with what is spent and held.

        The budgets of a client include the budgets of its project. Stored definitions that the present configuration
        makes invalid are listed apart, as `invalid`.
        """
        found: dict[BudgetLimit, None] = {}
        invalid: list[Json] = []
        for one in self._owners(owner):
            try:
                found |= dict.fromkeys(self._limits(one))
            except AdminRefused as refused:
                if one == owner:
                    raise
                if refused.status != _NOT_FOUND:  # it was removed a moment ago
                    invalid.append({"of": _OF[one.kind], "name": one.name, "problem": str(refused)})
        limits = [*found]
        states = in_gate(self._config, self._directory, lambda gate: self._states(gate, limits))
        shown = [_shown(limit, state) for limit, state in zip(limits, states, strict=True)]
        return {"budgets": shown, **({"invalid": invalid} if invalid else {})}

    def quotas(self) -> Json:
        """Return each limit of each quota, with what is used of it, and the share of each client in the last hour."""
        config = self._config
        uses = in_gate(config, self._directory, lambda gate: read_uses(config, gate))
        with usage_reader(config.stores, self._directory) as reader:
            last_hour = reader.parts_since(self._clock_ns() - HOUR_NS)
        found: list[Json] = []
        for limit, use in zip(limits_of(config), uses, strict=True):
            used = used_of(limit, last_hour, use.deployments)
            whole = sum(used.values())
            shares = {name or _NO_CLIENT: round(part / whole, 4) for name, part in sorted(used.items()) if part}
            found.append({**use.data(), "clients": shares, "vendor": None})
        return {"quotas": found}

    def _owners(self, owner: BudgetOwner | None) -> list[BudgetOwner]:
        """Return the owners whose budgets are shown."""
        if owner is None:
            owners = [BudgetOwner(CounterKind.PROJECT, name) for name in self._project_names()]
            return owners + [BudgetOwner(CounterKind.CLIENT, name) for name in self._client_names()]
        project = self._spending(owner.name).project if owner.kind is CounterKind.CLIENT else None
        return [owner, *([BudgetOwner(CounterKind.PROJECT, project.name)] if project is not None else [])]

    def reset(self, owner: BudgetOwner, per: str) -> Json:
        """Set what was spent in the open window to 0. Holds of running calls stay."""
        limits = self._of_window(owner, per)
        changed = in_gate(self._config, self._directory, lambda gate: self._reset(gate, limits))
        for limit, (spent, _) in zip(limits, changed, strict=True):
            self._record(RowKind.RESET, limit.counter, spent)
        return {"budgets": [_shown(limit, state) for limit, (_, state) in zip(limits, changed, strict=True)]}

    async def _states(self, gate: OperatorGate, limits: list[BudgetLimit]) -> list[CounterState]:
        return await gate.read([limit.counter for limit in limits], calendar_of(self._config).at(self._clock_ns()))

    async def _reset(self, gate: OperatorGate, limits: list[BudgetLimit]) -> list[tuple[int, CounterState]]:
        """Return what was spent before, and the state after, of each."""
        windows = calendar_of(self._config).at(self._clock_ns())
        counters = [limit.counter for limit in limits]
        before = await gate.read(counters, windows)
        return [
            (state.spent, await gate.reset(counter, windows)) for counter, state in zip(counters, before, strict=True)
        ]

    def top_up(self, owner: BudgetOwner, per: str, amount: str) -> Json:
        """Add an amount, such as `5 EUR` or `5000` tokens, to the open window of a budget."""
        number, unit = self._amount(amount)
        limits = [limit for limit in self._of_window(owner, per) if limit.counter.unit == unit]
        if not limits:
            raise self._no_budget(owner, f"in {unit} per {per}")
        # Of an end user, there is one for each name under which it counts.
        return {"budgets": [self._topped_up(limit, number) for limit in limits]}

    def _topped_up(self, limit: BudgetLimit, number: int) -> Json:
        windows = calendar_of(self._config).at(self._clock_ns())
        state = in_gate(self._config, self._directory, lambda gate: gate.top_up(limit.counter, windows, number))
        self._record(RowKind.TOP_UP, limit.counter, number)
        return _shown(limit, state)

    def drop_user(self, pseudonyms: Iterable[str], clients: Iterable[str], *, every: bool) -> int:
        """Delete the counters of an end user with these clients, or with every client too. Return their number."""
        names = [*clients, *(self._client_names() if every else ())]
        units = [TOKENS, *([self._config.usage.currency] if self._config.usage.currency else [])]
        counters = {
            Counter(CounterKind.USER, user, unit, window, name): None
            for user in pseudonyms
            for name in names
            for unit in units
            for window in Window
        }
        return in_gate(self._config, self._directory, lambda gate: gate.drop(counters)) if counters else 0

    # --- the owners -------------------------------------------------------------------------------

    def _limits(self, owner: BudgetOwner, *, every_name: bool = False) -> tuple[BudgetLimit, ...]:
        match owner.kind:
            case CounterKind.CLIENT:
                return limits_from(owner.kind, owner.name, self._spending(owner.name).budgets)
            case CounterKind.PROJECT:
                return limits_from(owner.kind, owner.name, self._project(owner.name).budgets)
            case CounterKind.USER:
                return self._of_user(owner, every_name=every_name)

    def _of_user(self, owner: BudgetOwner, *, every_name: bool) -> tuple[BudgetLimit, ...]:
        """Return the budgets of each person of this name who has spent anything, or of each who could.

        A person may count under several names: of its counters the one that refuses first, or with `every_name` all.
        Raises AdminRefused if two issuers have named users so.
        """
        clients = self._client_names() if owner.client is None else [owner.client]
        rules = {name: self._spending(name).user_budgets for name in clients}
        people: dict[str, tuple[str, ...]] = {"": (owner.name,)}
        if not PSEUDONYM.fullmatch(owner.name):
            people = people_of(self._config, self._directory, owner.name, owner.issuer)
        names = dict.fromkeys(name for of in people.values() for name in of)
        limits = {
            name: [it for client in clients for it in user_limits(client, self._pseudonym(name), rules[client])]
            for name in names
        }
        if len(names) == 1:
            return tuple(*limits.values())
        every = [limit for it in limits.values() for limit in it]
        states = in_gate(self._config, self._directory, lambda gate: self._states(gate, every))
        found = dict(zip(every, states, strict=True))
        used = {name for name, of in limits.items() if any(sum(found[it][:3]) for it in of)}
        expect_one_issuer(owner.name, [issuer for issuer, of in people.items() if of[0] in used])
        chosen: list[BudgetLimit] = []
        for of in people.values():
            mine = [limits[name] for name in of if name in used] if used else [limits[of[0]]]
            by_rule = zip(*mine, strict=True)
            chosen += (
                chain(*by_rule) if every_name else [min(it, key=lambda it: found[it].free(it.limit)) for it in by_rule]
            )
        return tuple(chosen)

    def _of_window(self, owner: BudgetOwner, per: str) -> list[BudgetLimit]:
        if per not in set(Window):
            raise AdminRefused(400, "invalid_request", f"`per` must be one of {', '.join(Window)}")
        limits = [limit for limit in self._limits(owner, every_name=True) if limit.counter.window == per]
        if not limits:
            raise self._no_budget(owner, f"per {per}")
        clients = {limit.counter.client for limit in limits}
        if len(clients) > 1:
            names = ", ".join(sorted(clients))
            message = f"the user {owner.name!r} has a budget per {per} with several clients: name one as `client`"
            raise AdminRefused(400, "invalid_request", f"{message}: {names}")
        by_counter = {limit.counter: limit for limit in limits}
        return list(by_counter.values())

    def _no_budget(self, owner: BudgetOwner, which: str) -> AdminRefused:
        has = sorted({f"{one.counter.unit} per {one.counter.window}" for one in self._limits(owner)})
        message = f"the {owner.kind} {owner.name!r} has no budget {which}; it has {', '.join(has) or 'none'}"
        return AdminRefused(400, "invalid_request", message)

    @cached_property
    def _projects(self) -> Mapping[str, Project]:
        """The stored projects. Their budgets are read apart, so that a mistake in one leaves the others."""
        return {name: Project(name) for name in self._project_names()}

    def _project_names(self) -> list[str]:
        if self._config.clients_source == "database":
            return self._admin.store.names("projects")
        return [*self._config.projects]

    def _client_names(self) -> list[str]:
        if self._config.clients_source == "database":
            return self._admin.store.names("clients")
        return list(dict.fromkeys(client.name for client in self._config.clients.values()))

    def _spending(self, name: str) -> SpendingRules:
        if self._config.clients_source == "database":
            return self._admin.stored_client(name, self._projects).spending
        for client in self._config.clients.values():
            if client.name == name:
                return client.spending
        raise AdminRefused(404, "client_not_found", f"there is no client {name!r}")

    def _project(self, name: str) -> Project:
        if self._config.clients_source == "database":
            return self._admin.stored_project(name)
        project = self._config.projects.get(name)
        if project is None:
            raise AdminRefused(404, "project_not_found", f"there is no project {name!r}")
        return project

    def _pseudonym(self, user: str) -> str:
        if PSEUDONYM.fullmatch(user):
            return user
        return end_user_pseudonym(self._config, pseudonym_key(self._config, self._directory), user)

    def _amount(self, text: str) -> tuple[int, str]:
        match = _AMOUNT.fullmatch(text)
        unit = (match["unit"] or TOKENS) if match is not None else ""
        number = Decimal(match["number"] if match is not None else 0)
        is_usable = number == int(number) if unit == TOKENS else number <= _MOST_UNITS
        if number <= 0 or not is_usable:
            message = "`amount` must be an amount with its currency, such as `5 EUR`, or a number of tokens"
            raise AdminRefused(400, "invalid_request", message)
        return (int(number), unit) if unit == TOKENS else (int(number * NANO), unit)

    # --- the stores -------------------------------------------------------------------------------

    def _record(self, kind: RowKind, counter: Counter, amount: int) -> None:
        """Write the row of a change, and its entry for the audit trail."""
        row = UsageRow(
            call=f"{kind}-{time.time_ns():x}-{counter.tag[0] & 0xFFFFFFFF:x}",
            time_ns=self._clock_ns(),
            kind=kind,
            client=counter.name if counter.kind is CounterKind.CLIENT else counter.client or None,
            project=counter.name if counter.kind is CounterKind.PROJECT else None,
            user=counter.name if counter.kind is CounterKind.USER else None,
            currency=counter.unit if counter.unit != TOKENS else None,
            budget=BudgetChange(_OF[counter.kind], str(counter.window), counter.unit, amount),
        )
        problem: Exception | None = None
        try:
            with closing(Journal.open(self._directory / FOLDER)) as journal:
                asyncio.run(_tried(lambda: journal.keep_row(row.call, encode_row(row))))
        except StateError as error:
            problem = error
        shown = shown_in(counter.unit, amount)
        fields = {_OF[counter.kind]: counter.name, "per": str(counter.window), "unit": counter.unit, "amount": shown}
        if counter.client:
            fields["client"] = counter.client
        self._admin.note("budget_topped_up" if kind is RowKind.TOP_UP else "budget_reset", fields)
        if problem is not None:
            raise StateError(f"the budget is changed, but its row is not in the ledger: {problem}")


def people_of(config: ConfigVersion, directory: Path, user: str, issuer: str | None) -> dict[str, tuple[str, ...]]:
    """Return the names of each person whom this name may mean, by the issuer (`gateway.policy.client_users`)."""
    people = people_named(config, user, issuer)
    if users_renamed_ns(directory):
        return people
    # Here a subject of a claim never had a name without its issuer: that is another person.
    return {of: tuple(it for it in names if not of or has_issuer(it)) for of, names in people.items()}


def expect_one_issuer(user: str, issuers: Iterable[str]) -> None:
    """Raise AdminRefused if several issuers have named an end user so."""
    named = [issuer for issuer in issuers if issuer]
    if len(named) > 1:
        message = f"{len(named)} issuers name a user {user!r}: name one as `issuer` (--issuer): {', '.join(named)}"
        raise AdminRefused(400, "invalid_request", message)


def _shown(limit: BudgetLimit, state: CounterState) -> Json:
    """Return a budget as operators see it: with its top-ups apart from its limit."""
    shown: Json = {}
    for name, value in shown_budget(limit, state, shows_projects=True).items():
        shown[name] = value
        if name == "limit":
            unit = limit.counter.unit
            shown |= {"limit": shown_in(unit, limit.limit), "top_ups": shown_in(unit, state.credit)}
    return shown | {"client": limit.counter.client} if limit.counter.client else shown


async def _tried(work: Callable[[], Awaitable[_T]]) -> _T:
    """Return the result of an operation of the gate. Repeat it while the gate is busy or unreachable."""
    until_s = time.monotonic() + _TRIES_S
    while True:
        try:
            return await work()
        except MayBeDone as error:
            # A top-up that is repeated may be counted twice.
            hint = "look at the budget with `gateway budgets show`, because a change may be made or not"
            raise StateError(f"{error}; {hint}") from None
        except GateUnavailable as error:
            if time.monotonic() > until_s:
                raise StateError(str(error)) from None
            await asyncio.sleep(_PAUSE_S)
