"""Convert the limits that LiteLLM gives to models and providers: they become quotas of the deployments."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.config.problems import KeyPath
from gateway.litellm.files import SourceReading
from gateway.litellm.models import Model

_LIMITS = {"rpm": "requests", "tpm": "tokens", "itpm": "input_tokens", "otpm": "output_tokens"}
_WINDOWS = {"1d": "day", "24h": "day", "7d": "week", "1w": "week", "30d": "month", "1mo": "month"}
_COUNTS = range(1, 2**53 + 1)
_AMOUNTS = Decimal("0.000001"), Decimal(10**9)
_BY_ALL = "a quota counts over all workers and instances, and LiteLLM for each replica"


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
    for key, unit in _LIMITS.items():
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
