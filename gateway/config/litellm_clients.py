"""Convert the keys, limits and budgets of a configuration of LiteLLM into clients and projects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from gateway.config.litellm_files import LOGIN, Gap, SourceReading, Unique
from gateway.config.litellm_models import facts
from gateway.config.problems import KeyPath
from gateway.config.schema.usage import UsageSection

_NEW_KEY = Gap("the hash of a key, which `gateway key new` makes, as a list")


def _plain(name: object, otherwise: str) -> str:
    text = LOGIN.sub("://", name) if isinstance(name, str) else ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:40] or otherwise


@dataclass(slots=True)
class ClientReader:
    """Converts the master key, keys and teams as LiteLLM's API lists them, and the budgets of all.

    Attributes:
        aliases: The assistant of each name that clients send.
    """

    reading: SourceReading
    aliases: Mapping[str, str]
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    projects: dict[str, Any] = field(default_factory=dict)
    _names: Unique = field(default_factory=Unique)
    _projects: Unique = field(default_factory=lambda: Unique({"litellm"}))
    _teams: dict[int, str] = field(default_factory=dict)

    def sections(self, foreign_prices: bool) -> dict[str, Any]:
        """Return the sections `projects`, `clients` and `usage`. Without `foreign_prices`, all prices are in USD."""
        read = self.reading
        master: KeyPath = ("general_settings", "master_key")
        if read.at(*master) not in (None, ""):
            self.clients[self._names.unique("master")] = {"keys": self._hashes(master, in_clear=True)}
        for index in read.entries("keys"):
            self._add_key(index)
        budget = self._budget(("litellm_settings", "max_budget"), ("litellm_settings", "budget_duration"))
        users = self._budget(("litellm_settings", "max_end_user_budget"), None)
        if (budget or users) and not self.clients:
            self.clients["app"] = {"keys": _NEW_KEY}
        if budget:
            self.projects["litellm"] = {"budgets": [budget]}
        for client in self.clients.values():
            if budget and "project" not in client:
                client["project"] = "litellm"
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

    def _add_key(self, index: int) -> None:
        """Add a client for a key that `GET /key/list` of LiteLLM returns."""
        read = self.reading
        entry: KeyPath = ("keys", index)
        self._pass_nulls(entry)
        if read.at(*entry, "blocked") is True:
            read.note(*entry, note="not converted: the key is blocked")
            return
        at = next((key for key in ("token", "key") if isinstance(read.at(*entry, key), str)), "")
        client: dict[str, Any] = {"keys": self._hashes((*entry, at), in_clear=at != "token")}
        if any(client["keys"] == other["keys"] != _NEW_KEY for other in self.clients.values()):
            read.note(*entry, note="not converted: another client has this key")
            return
        alias = read.at(*entry, "key_alias")
        name = self._names.unique(_plain(alias, "key"))
        if isinstance(alias, str):
            read.use(*entry, "key_alias", note="" if name == alias else f"the client {name}")
        models = read.at(*entry, "models")
        allowed: list[str] = []
        for position, model in enumerate(models if isinstance(models, list) else []):
            if model == "all-proxy-models":
                allowed += self.aliases.values()
            elif isinstance(model, str) and model in self.aliases:
                allowed.append(self.aliases[model])
            else:
                continue
            read.use(*entry, "models", position)
        if models:
            client["assistants"] = list(dict.fromkeys(allowed)) or Gap("the assistants that it may use, as a list")
        client |= self._limits(entry)
        if budget := self._budget((*entry, "max_budget"), (*entry, "budget_duration")):
            client["budgets"] = [budget]
        team = read.at(*entry, "team_id")
        number = next((it for it in read.entries("teams") if team and read.at("teams", it, "team_id") == team), None)
        if number is not None:
            client["project"] = self._team(number)
            read.use(*entry, "team_id")
        self.clients[name] = client

    def _team(self, index: int) -> str:
        """Return the project of a team of LiteLLM."""
        read = self.reading
        entry: KeyPath = ("teams", index)
        if index not in self._teams:
            self._pass_nulls(entry)
            alias = read.at(*entry, "team_alias")
            key = "team_alias" if isinstance(alias, str) else "team_id"
            self._teams[index] = name = self._projects.unique(_plain(read.at(*entry, key), "team"))
            read.use(*entry, "team_alias")
            read.use(*entry, "team_id")
            budget = self._budget((*entry, "max_budget"), (*entry, "budget_duration"))
            self.projects[name] = {"budgets": [budget] if budget else []}
        return self._teams[index]

    def _pass_nulls(self, entry: KeyPath) -> None:
        for key in self.reading.keys(*entry):
            if self.reading.at(*entry, key) is None:
                self.reading.use(*entry, key)

    def _limits(self, entry: KeyPath) -> dict[str, Any]:
        limits: dict[str, int] = {}
        bounds = {"rpm": ("rpm_limit", 10**6), "tpm": ("tpm_limit", 10**12)}
        for ours, (theirs, most) in (bounds | {"concurrent": ("max_parallel_requests", 10**6)}).items():
            number = self.reading.number(*entry, theirs)
            if number is not None and number == int(number) and 1 <= number <= most:
                limits[ours] = int(number)
                self.reading.use(*entry, theirs)
        return {"limits": limits} if limits else {}

    def _hashes(self, path: KeyPath, *, in_clear: bool) -> list[str] | Gap:
        """Return the hash of a key. LiteLLM stores SHA-256 hashes too, so apps keep their keys."""
        value = self.reading.at(*path)
        variable = self.reading.variable(*path)
        if variable is not None:
            self.reading.note(*path, note=f"write the hash of the key in {variable}")
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
