"""The part of `gateway check` about limits: which are in effect, in which currency, and what an outage may cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.model.budget import Money, StoreServer
from gateway.model.config_version import Client, ClientLimitRule, ConfigVersion

_MOST_NAMES = 20
_BEYOND = "only by calls whose provider counts more than the input as sent and the cap or longest answer"
_REFUSED = "requests with a budget are refused, so that no budget is exceeded"
_STORE_NAMES = {"database": "PostgreSQL", "valkey": "Valkey"}


def limit_lines(config: ConfigVersion) -> Iterator[tuple[str, str]]:
    """Yield the start and the text of each line. Nothing if the config limits nothing."""
    clients = {client.name: client for client in config.clients.values()}
    limited = [(name, text) for name, client in clients.items() if (text := _client(client))]
    budgeted = [(name, listed_budgets(project.budgets)) for name, project in config.projects.items()]
    if limited or budgeted or config.clients_source == "database":
        yield "limits", ""
        usage = config.usage
        if usage.currency is not None:
            rates = [f"1 {other} = {rate} {usage.currency}" for other, rate in usage.rates.items()]
            day = [f"as of {usage.rates_as_of}"] if usage.rates_as_of is not None else []
            yield "  currency: ", ", ".join([usage.currency, *rates, *day])
        yield "  days, weeks and months: ", usage.timezone
        for kind, entries in (("project", budgeted), ("client", limited)):
            yield from ((f"  {kind} {name}: ", text or "no budget") for name, text in entries[:_MOST_NAMES])
            if len(entries) > _MOST_NAMES:
                yield f"  and {len(entries) - _MOST_NAMES} more {kind}s", ""
        if config.clients_source == "database":
            where = "`stores.database`" if config.has_shared_clients else "`clients.db` of the state directory"
            yield "  clients, keys, projects and budgets: ", f"in {where}"
        yield from _exceptions(config, clients.values())
    if config.quotas:
        yield "quotas", ""
        yield from ((f"  {name}: ", str(quota)) for name, quota in config.quotas.items())
        if config.stores is None or config.stores.valkey is None:
            yield "  without `stores`: ", "each instance counts alone, so each may use the whole of them"
    if config.stores is not None:
        yield "stores", ""
        yield from (_store(store) for store in (config.stores.database, config.stores.valkey) if store is not None)
        if config.stores.valkey is None:
            yield "  without Valkey: ", "limits are counted on one machine, so run one instance only"


def _client(client: Client) -> str:
    spending = client.spending
    parts = [*_limits(client.limits)] if client.limits is not None else []
    parts += [listed_budgets(spending.budgets)] if spending.budgets else []
    parts += [f"each end user {listed_budgets(spending.user_budgets)}"] if spending.user_budgets else []
    parts += [f"each request {spending.max_request}"] if spending.max_request is not None else []
    parts += [f"project {spending.project.name}"] if spending.project is not None else []
    return ", ".join(parts)


def _limits(limits: ClientLimitRule) -> Iterator[str]:
    for number, unit in (
        (limits.rpm, "requests per minute"),
        (limits.tpm, "tokens per minute"),
        (limits.concurrent, "concurrent requests"),
        (limits.body_bytes, "bytes per body"),
        (limits.connections, "WebSocket connections per worker"),
    ):
        if number is not None:
            yield f"{number} {unit}"


def listed_budgets(budgets: Iterable[object]) -> str:
    """Return the texts of budgets in a line."""
    return ", ".join(map(str, budgets))


def _exceptions(config: ConfigVersion, clients: Iterable[Client]) -> Iterator[tuple[str, str]]:
    """Yield what is not limited, how a budget can be exceeded, and what an outage may cost."""
    transit = [name for name, region in config.regions.items() if region.transit.included]
    if transit and any(client.spending.user_budgets for client in clients):
        yield "  budgets of end users do not apply in: ", f"{', '.join(transit)} (transit)"
    yield "  a budget can be exceeded: ", _BEYOND
    if config.stores is not None and config.stores.valkey is not None:
        yield "  without Valkey: ", _on_loss(config.usage.on_loss)
    else:
        yield "  if the counters can't be read: ", _REFUSED


def _on_loss(allowed: Money | None) -> str:
    if allowed is None:
        return _REFUSED
    return f"each instance may spend {allowed} per outage: the worst overshoot is instances x {allowed}"


def _store(store: StoreServer) -> tuple[str, str]:
    security = "TLS" if store.uses_tls else "no TLS, on this machine"
    return (
        f"  {store.kind}: ",
        f"{_STORE_NAMES[store.kind]} at {store.host}:{store.port} ({security}), in {store.territory}",
    )
