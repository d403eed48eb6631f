"""Convert the keys, limits and budgets of a configuration of LiteLLM into clients and projects, and into quotas.

The limits that LiteLLM gives to models and providers become quotas of the deployments.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from gateway.config.problems import KeyPath
from gateway.config.schema.usage import UsageSection
from gateway.litellm.files import LOGIN, Gap, SourceReading, Unique
from gateway.litellm.models import Model, facts

_NEW_KEY = Gap("the hash of a key, which `gateway key new` makes, as a list")

_LIMITS = {"rpm": "rpm_limit", "tpm": "tpm_limit", "concurrent": "max_parallel_requests"}
_ID_OF = {"teams": "team_id", "users": "user_id", "organizations": "organization_id"}
"""The members by which keys name what they belong to."""
_LARGEST = {"rpm": 10**6, "tpm": 10**12, "concurrent": 10**6}
_QUOTAS = {"rpm": "requests", "tpm": "tokens", "itpm": "input_tokens", "otpm": "output_tokens"}
_WINDOWS = {"1d": "day", "24h": "day", "7d": "week", "1w": "week", "30d": "month", "1mo": "month"}
_COUNTS = range(1, 2**53 + 1)
_AMOUNTS = Decimal("0.000001"), Decimal(10**9)
_BY_ALL = "a quota counts over all workers and instances, and LiteLLM for each replica"


def _amount(budget: Mapping[str, Any]) -> Decimal:
    return Decimal(budget["amount"].split()[0])


def _plain(name: object, otherwise: str) -> str:
    text = unicodedata.normalize("NFKD", LOGIN.sub("://", name)) if isinstance(name, str) else ""
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:40] or otherwise


@dataclass(slots=True)
class ClientReader:
    """Converts the master key, keys and teams as LiteLLM's API lists them, and the budgets of all."""

    reading: SourceReading
    aliases: Mapping[str, str]
    today: str
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    projects: dict[str, Any] = field(default_factory=dict)
    _names: Unique = field(default_factory=Unique)
    _projects: Unique = field(default_factory=lambda: Unique({"litellm"}))
    _teams: dict[int, str] = field(default_factory=dict)
    _used: set[KeyPath] = field(default_factory=set)
    _indexes: dict[str, Mapping[Hashable, int]] = field(default_factory=dict)
    _taken: list[list[str] | Gap] = field(default_factory=list)

    def sections(self, foreign_prices: bool) -> dict[str, Any]:
        """Return the sections `projects`, `clients` and `usage`. Without `foreign_prices`, all prices are in USD."""
        read = self.reading
        master: KeyPath = ("general_settings", "master_key")
        if read.at(*master) not in (None, ""):
            self._taken.append(self._hashes(master, in_clear=True))
            self.clients[self._names.unique("master")] = {"keys": self._taken[0]}
        for index in read.entries("keys"):
            self._add_key(index)
        for section in _ID_OF:
            for index in read.entries(section):
                if (section, index) not in self._used:
                    read.note(section, index, note="not converted: no client that was converted belongs to it")
        budget = self._budget(("litellm_settings", "max_budget"), ("litellm_settings", "budget_duration"))
        users = self._budget(("litellm_settings", "max_end_user_budget"), None)
        if (budget or users) and not self.clients:
            self.clients["app"] = {"keys": _NEW_KEY}
        if budget:
            self._add_to_all(budget)
        for client in self.clients.values():
            if users:
                client |= {"user_budget": users, "may_assert": ["user"]}
            if all(isinstance(value, Gap) for value in client.values()):
                client["may_assert"] = []  # a mapping of gaps alone would be read as nothing
            client["region"] = Gap("the region of all callers with this key, unless a signal in `location` decides")
        if users:
            note = "each request must name its user in x-gateway-user"
            read.note("litellm_settings", "max_end_user_budget", note=note)
        limit = read.number("general_settings", "global_max_parallel_requests")
        if limit is not None and len(self.clients) == 1 and limit == int(limit) and 1 <= limit <= 1_000_000:
            next(iter(self.clients.values())).setdefault("limits", {})["concurrent"] = int(limit)
            read.use("general_settings", "global_max_parallel_requests")
        has_budget = bool(users or self.projects) or any("budgets" in each for each in self.clients.values())
        without = Gap("your apps with the hashes of their keys; without it, only this machine is served")
        return {
            **({"projects": self.projects} if self.projects else {}),
            "clients": self.clients or without,
            **({"usage": self._usage(foreign_prices)} if has_budget else {}),
        }

    def _usage(self, foreign_prices: bool) -> dict[str, Any]:
        usage: dict[str, Any] = {"currency": "USD"}
        if foreign_prices:
            usage["rates"] = Gap("{CNY: …, as_of: …}, the USD for one unit of each other currency of a price")
        zone = self.reading.text("litellm_settings", "timezone")
        try:
            UsageSection.model_validate({"timezone": zone})
        except ValidationError:
            return usage
        if zone is not None:
            usage["timezone"] = zone
            self.reading.use("litellm_settings", "timezone")
        return usage

    def _add_to_all(self, budget: dict[str, Any]) -> None:
        """Let a budget bound the clients of every project, and of a new one that has all others."""
        for client in self.clients.values():
            client.setdefault("project", "litellm")
        if any(client["project"] == "litellm" for client in self.clients.values()):
            self.projects["litellm"] = {"budgets": []}
        for project in self.projects.values():
            own = project["budgets"]
            same = next((one for one in own if one["per"] == budget["per"]), None)
            if same is None:
                own.append(dict(budget))
            elif _amount(budget) < _amount(same):
                same["amount"] = budget["amount"]
        if len(self.projects) > 1:
            note = f"it bounds each of {len(self.projects)} projects by itself here: together they may spend more"
            self.reading.open("litellm_settings", "max_budget", note=note)

    def _add_key(self, index: int) -> None:
        """Add a client for a key that `GET /key/list` of LiteLLM returns, if it opens anything there."""
        read = self.reading
        entry: KeyPath = ("keys", index)
        self._pass_nulls(entry)
        number = self._owner(entry, "teams")
        owners = [("teams", number), ("users", self._owner(entry, "users"))]
        entries: list[KeyPath] = [entry, *((section, it) for section, it in owners if it is not None)]
        all_of = dict.fromkeys(self._owner(it, "organizations") for it in entries)
        entries += [("organizations", it) for it in all_of if it is not None]
        alias = read.at(*entry, "key_alias")
        named = f"the client {_plain(alias, 'key')} is left out: " if isinstance(alias, str) else "left out: "
        if closed := next(filter(None, map(self._closed, entries)), ""):
            read.note(*entry, note=named + closed)
            return
        models = self._models(entries)
        if models == []:
            read.note(*entry, note=f"{named}it may use no model that was converted")
            return
        at = next((key for key in ("token", "key") if isinstance(read.at(*entry, key), str)), "")
        hashes = self._hashes((*entry, at), in_clear=at != "token")
        if hashes != _NEW_KEY and hashes in self._taken:
            read.note(*entry, note="not converted: another client has this key")
            return
        self._taken.append(hashes)
        client: dict[str, Any] = {"keys": self._until(entry, hashes)}
        name = self._names.unique(_plain(alias, "key"))
        if isinstance(alias, str):
            read.use(*entry, "key_alias", note="" if name == alias else f"the client {name}")
        if models is not None:
            client["assistants"] = models
        client |= self._limits(entries)
        if budget := self._budget((*entry, "max_budget"), (*entry, "budget_duration")):
            client["budgets"] = [budget]
            self._report_spent(entry)
        if number is not None:
            client["project"] = self._team(number)
        for section, of in entries[1:]:
            self._used.add((section, of))
            for it in entries:
                if self._owner(it, str(section)) == of:
                    read.use(*it, _ID_OF[str(section)])
        self.clients[name] = client

    def _until(self, entry: KeyPath, hashes: list[str] | Gap) -> list[Any] | Gap:
        expires = self.reading.at(*entry, "expires")
        if expires is None:
            return hashes
        try:
            end = datetime.fromisoformat(str(expires))
        except ValueError:
            self.reading.open(*entry, "expires", note="it is not a time: write `expires` next to the hash of the key")
            return hashes
        if isinstance(hashes, Gap):
            self.reading.open(*entry, "expires", note="write the key as {hash: …, expires: …} when its hash is known")
            return hashes
        self.reading.use(*entry, "expires")
        at = (end if end.tzinfo is not None else end.replace(tzinfo=UTC)).astimezone(UTC)
        return [{"hash": one, "expires": f"{at:%Y-%m-%dT%H:%M:%SZ}"} for one in hashes]

    def _owner(self, entry: KeyPath, section: str) -> int | None:
        """Return the index of the team, user or organization that an entry names, or None if it is not listed."""
        named = self.reading.at(*entry, _ID_OF[section])
        return self._listed(section).get(named) if named and isinstance(named, Hashable) else None

    def _listed(self, section: str) -> Mapping[Hashable, int]:
        """Return the index of the first team, user or organization with each id."""
        if (known := self._indexes.get(section)) is not None:
            return known
        found: dict[Hashable, int] = {}
        for index in self.reading.entries(section):
            if isinstance(named := self.reading.at(section, index, _ID_OF[section]), Hashable):
                found.setdefault(named, index)
        self._indexes[section] = found
        return found

    def _team(self, index: int) -> str:
        """Return the project of a team of LiteLLM."""
        read = self.reading
        entry: KeyPath = ("teams", index)
        if index not in self._teams:
            self._pass_nulls(entry)
            alias = read.at(*entry, "team_alias")
            key = "team_alias" if isinstance(alias, str) else "team_id"
            self._teams[index] = name = self._projects.unique(_plain(read.at(*entry, key), "team"))
            read.use(*entry, "team_alias", note="" if name == alias else f"the project {name}")
            read.use(*entry, "team_id")
            budget = self._budget((*entry, "max_budget"), (*entry, "budget_duration"))
            self.projects[name] = {"budgets": [budget] if budget else []}
            self._report_spent(entry)
        return self._teams[index]

    def _report_spent(self, entry: KeyPath) -> None:
        spent, budget = self.reading.number(*entry, "spend"), self.reading.number(*entry, "max_budget")
        if spent is not None and budget is not None and spent >= budget:
            self.reading.open(*entry, "spend", note="its budget is spent there, and counting begins anew here")

    def _closed(self, entry: KeyPath) -> str:
        """Return why a key, or all keys of what it belongs to, open nothing in LiteLLM, or an empty text."""
        read = self.reading
        of = "the key" if entry[0] == "keys" else f"its {str(entry[0]).removesuffix('s')}"
        if read.at(*entry, "blocked") not in (None, False):
            return f"{of} is blocked"
        if str(read.at(*entry, "expires") or "9")[:10] <= self.today:
            return f"{of} has expired"
        zero = next((key for key in _LIMITS.values() if read.number(*entry, key) == 0), None)
        return f"{of} has a limit of 0 (`{zero}`)" if zero is not None else ""

    def _models(self, entries: list[KeyPath]) -> list[str] | None:
        """Return the assistants that a key may use, which its team, user and organization may use, or None for all."""
        read = self.reading
        allowed: list[str] | None = None
        for path in entries:
            models = read.at(*path, "models")
            if not models or (isinstance(models, list) and "all-team-models" in models):
                read.use(*path, "models")
                continue
            own: dict[str, None] = {}
            for position, model in enumerate(models if isinstance(models, list) else []):
                every = model in ("*", "all-proxy-models")
                names = list(self.aliases.values()) if every else [self.aliases.get(str(model), "")]
                if any(names) or model == "no-default-models":
                    own |= dict.fromkeys(filter(None, names))
                    read.use(*path, "models", position)
            allowed = [name for name in (own if allowed is None else allowed) if name in own]
        return allowed

    def _pass_nulls(self, entry: KeyPath) -> None:
        for key in self.reading.keys(*entry):
            if self.reading.at(*entry, key) is None:
                self.reading.use(*entry, key)

    def _limits(self, entries: list[KeyPath]) -> dict[str, Any]:
        """Return the limits of a client: the smallest one of its key, team, user and organization."""
        limits: dict[str, int] = {}
        for ours, theirs in _LIMITS.items():
            for entry in entries:
                number = self.reading.number(*entry, theirs)
                if number is not None and number == int(number) and number <= _LARGEST[ours]:
                    limits[ours] = min(int(number), limits.get(ours, int(number)))
                    of = str(entry[0]).removesuffix("s")
                    note = f"it bounds each client of the {of} by itself" if of != "key" else ""
                    self.reading.use(*entry, theirs, note=note)
        return {"limits": limits} if limits else {}

    def _hashes(self, path: KeyPath, *, in_clear: bool) -> list[str] | Gap:
        """Return the hash of a key. LiteLLM stores SHA-256 hashes too, so apps keep their keys."""
        value = self.reading.at(*path)
        variable = self.reading.variable(*path)
        if variable is not None:
            self.reading.use(*path, note=f"write the hash of the key in {variable}")
            return Gap(f'["sha256:…"], the output of: printf %s "${variable}" | sha256sum')
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) and not in_clear:
            self.reading.use(*path)
            return [f"sha256:{value}"]
        if isinstance(value, str | int) and not isinstance(value, bool):
            text = (
                "a key in clear, of which only the hash is copied; a short key can be found from its hash: replace it"
            )
            self.reading.use(*path, note=text)
            return [f"sha256:{hashlib.sha256(str(value).encode()).hexdigest()}"]
        return _NEW_KEY

    def _budget(self, amount_at: KeyPath, duration_at: KeyPath | None) -> dict[str, Any]:
        """Return a budget, or an empty mapping. The window is a gap if there is none of this length."""
        read = self.reading
        amount = read.number(*amount_at)
        if amount is None or amount > 9_000_000_000 or amount != amount.quantize(Decimal("1e-9")):
            return {}
        read.use(*amount_at)
        duration = read.at(*duration_at) if duration_at is not None else None
        window: str | Gap | None = "total" if duration is None else None
        window = window or next((name for name, same in facts()["windows"].items() if duration in same), None)
        if window is None:
            note = "there is no window of this length"
            window = Gap("minute, hour, day, week, month or total; the source has another length")
            read.note(*(duration_at or amount_at), note=note)
        elif duration_at is not None:
            read.use(*duration_at)
        return {"amount": f"{amount.normalize():f} USD", "per": window}


def convert_quotas(reading: SourceReading, models: list[Model]) -> dict[str, Any]:
    """Return the section `quotas`, and name the quotas in the deployments of these models."""
    quotas = {model.name: limits for model in models if (limits := _limits_of(reading, model))}
    for name in quotas:
        next(model for model in models if model.name == name).deployment["quota"] = name
    keep = _keep(reading) if quotas else None
    quotas = {name: {**limits, **({"keep": keep} if keep else {})} for name, limits in quotas.items()}
    return quotas | _budgets(reading, models)


def _limits_of(reading: SourceReading, model: Model) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for key, unit in _QUOTAS.items():
        path: KeyPath = ("model_list", model.index, "litellm_params", key)
        limit = reading.number(*path)
        if limit is not None and limit == int(limit) and int(limit) in _COUNTS:
            limits[unit] = {"minute": int(limit)}
            reading.use(*path, note=_BY_ALL)
    return limits


def _keep(reading: SourceReading) -> dict[str, str] | None:
    """Return what is kept from clients of low priority: the largest share that is reserved for others."""
    path: KeyPath = ("litellm_settings", "priority_reservation")
    shares = [
        share for name in reading.keys(*path) if (share := reading.number(*path, name)) is not None and share <= 1
    ]
    if len(shares) < 2:
        return None
    note = "the largest share is kept from clients with `priority: low`; write the priority of each client"
    for name in reading.keys(*path):
        reading.use(*path, name, note=note)
    return {"low": f"{min(99, int(max(shares) * 100))}%"}


def _budgets(reading: SourceReading, models: list[Model]) -> dict[str, Any]:
    """Return a quota for the budget of each provider that has a model here."""
    quotas: dict[str, Any] = {}
    path: KeyPath = ("router_settings", "provider_budget_config")
    for provider in reading.keys(*path):
        amount = reading.number(*path, provider, "budget_limit")
        window = _WINDOWS.get(str(reading.at(*path, provider, "time_period")))
        own = [model for model in models if model.deployment["provider"] == provider]
        if window is None or amount is None or not _AMOUNTS[0] <= amount <= _AMOUNTS[1] or not own:
            continue
        name = f"{provider}-budget"
        quotas[name] = {"amount": {window: f"{round(amount, 6).normalize():f} USD"}}
        for key in ("budget_limit", "time_period"):
            note = "a window begins with the calendar, and a call needs room for its worst cost"
            reading.use(*path, provider, key, note=note)
        for model in own:
            before = model.deployment.get("quota")
            model.deployment["quota"] = [before, name] if before is not None else name
    return quotas
