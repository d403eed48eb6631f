"""No mistake hides another one: each pair of mistakes is reported in one pass of `gateway check`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from gateway.config.problems import KeyPath, dotted
from tests.kit.config_cases import problems_of
from tests.kit.configs import Config

ENVIRON = {"KEY": "sk-key", "EDGE": "edge-word", "PSEUDONYMS": "p" * 32, "CONSENT": "c" * 32}
BASE = Config.beside(__file__)

APPROVAL = {"authority": "A", "kind": "registration", "number": "N", "model_name": "M"}
GONE = object()
"""The key is removed."""

MISTAKES: dict[str, tuple[KeyPath, Any]] = {}


def add(*path: str | int, **values: Any) -> None:
    for name, value in values.items():
        MISTAKES[f"{dotted(path)} {name.replace('_', ' ')}"] = (path, value)


add("deployments", "house", "provider", misspelt="opnai", gone=GONE, wrong_type=5)
add("deployments", "house", "model", gone=GONE, wrong_type=[])
add("deployments", "house", "endpoint", misspelt="euu", wrong_type=5, unknown="mars")
add("deployments", "house", "api_key", not_a_reference="${KEY", wrong_type=5)
add("deployments", "house", "attests", of_the_site=["zdrr"], wrong_type="zdr")
add("deployments", "house", "capabilities", unknown=["txt"], wrong_type=5)
add("deployments", "house", "available", unknown=["QQ"], wrong_type=5)
add("deployments", "house", "stores", unknown="QQ", wrong_type=5)
add("deployments", "house", "headers", unknown={"x-no": "1"}, wrong_type=5)
add("deployments", "house", "passthrough", refused=["model"], of_the_site=["store"], wrong_type=5)
add("deployments", "house", "concurrency", no_limit={"queue": 3}, wrong_type=[])
add("deployments", "house", "enabld", unknown=True)
add("deployments", "house", "consent", wrong_type=5, unknown_mode={"mode": "never"})
add("deployments", "house", "approvals", wrong_type=5, unknown_region=[{**APPROVAL, "region": "xx"}])
add("deployments", "house", "identity", unknown="none")
add("deployments", "own", "consent", "mode", unknown="never", gone=GONE)
add("deployments", "own", "consent", "recipient", wrong_type=5)
add("deployments", "own", "proxy", "url", malformed="ftp://proxy", wrong_type=5, gone=GONE)
add("deployments", "own", "proxy", "territory", unknown="QQ", wrong_type=5, gone=GONE)
add("regions", "de", "territories", unknown=["QQ"], wrong_type=5, gone=GONE)
add("regions", "de", "boundary", unknown=["QQ"], wrong_type=5, gone=GONE)
add("regions", "de", "transit", unknown=["QQ"], wrong_type=5)
add("regions", "de", "approvals", unknown="maybe")
add("regions", "de", "protected", without_keys=True, wrong_type="yes")
add("regions", "de", "labels", unknown=["nope"], wrong_type=5)
add("regions", "de", "profile", wrong_type=[])
add("clients", "app", "keys", malformed=["gk-1"], gone=GONE, wrong_type=5)
add("clients", "app", "region", unknown="xx", wrong_type=5)
add("clients", "app", "assistants", unknown=["nobody"], wrong_type=5)
add("clients", "app", "limits", unknown={"rpm": 1, "nothing": 1}, wrong_type=5)
add("exporters", "traces", "endpoint", malformed="otel", wrong_type=5, gone=GONE)
add("exporters", "traces", "stores", unknown="QQ", wrong_type=5)
add("exporters", "traces", "processes", unknown="QQ", wrong_type=5)
add("exporters", "traces", "regions", unknown=["xx"], wrong_type=5)
add("exporters", "traces", "headers", not_a_reference={"x-a": "${KEY"}, wrong_type=5)
add("assistants", "helper", "routes", wrong_type=5, empty={})
add("assistants", "helper", "routes", "de", unknown=["nobody"], wrong_type=5)
add("assistants", "helper", "routes", "us", unknown=["nobody"])
add("assistants", "helper", "aliases", wrong_type=5)
add("assistants", "helper", "schedules", unknown_region={"xx": {"candidate": "spare", "steps": "100%"}}, wrong_type=5)
add("assistants", "helper", "shadow", unknown={"de": {"deployment": "nobody"}}, wrong_type=5)
add("cell", "territory", unknown="QQ", gone=GONE, wrong_type=5)
add("cell", "serves", unknown=["xx"], wrong_type=5)
add("blocked", unknown=["QQ"], wrong_type=5)
add("admin_keys", wrong_type=5)
add("location", "signals", unknown=["nose"], wrong_type=5)
add("location", "unknown", unknown="xx", wrong_type=5)
add("location", "edges", 0, "from", malformed=["10.0.0.0/99"], wrong_type=5)
add("location", "edges", 0, "country", language="Accept-Language", wrong_type=5)
add("location", "edges", 0, "secret", "header", malformed="no header", gone=GONE, wrong_type=[])
add("location", "edges", 0, "secret", "value", not_a_reference="${EDGE", gone=GONE, wrong_type=5)
add("location", "geoip", empty={"path": ""}, wrong_type=5)
add("resilience", "connect", no_unit=5, wrong_type=[])
add("resilience", "total", no_unit=5)
add("resilience", "attempts", wrong_type=5)
add("secrets", "consent", short="short", wrong_type=5)
add("receipts", wrong_type=5)
add("usage", "currency", unknown="euros", wrong_type=5)
add("usage", "rates", "USD", malformed="much")
add("usage", "rates", "EUR", own_currency=1.1)
add("usage", "timezone", unknown="Mars/Berlin", wrong_type=5)
add("usage", "on_loss", unknown="allow", wrong_type=5)
add("usage", "on_loss", "allow", malformed="much", other_currency="1 USD")
add("usage", "alerts", "at", too_small=[0], twice=[80, 80], wrong_type="all", gone=GONE)
add("usage", "alerts", "webhook", "url", clear_text="http://hooks.example/x", wrong_type=5, gone=GONE)
add("usage", "alerts", "webhook", "territory", unknown="QQ", wrong_type=5, gone=GONE)
add("usage", "internal_project", unknown="nothing", wrong_type=5)
add("projects", "shop", "budgets", 0, "amount", malformed="much", other_currency="1 USD")
add("projects", "shop", "budgets", 0, "per", unknown="fortnight", gone=GONE)
for store in ("database", "valkey"):
    add("stores", store, "url", malformed="ftp://db", wrong_type=5, gone=GONE)
    add("stores", store, "password", not_a_reference="${KEY", wrong_type=5)
    add("stores", store, "territory", unknown="QQ", wrong_type=5, gone=GONE)
add("cors", "origins", malformed=["app.example"], gone=GONE, wrong_type=5)
add("cors", "headers", malformed=["no header"], wrong_type=5)


def errors(*mistakes: tuple[KeyPath, Any]) -> frozenset[str]:
    """Return the path of each error that the base configuration with these mistakes has."""
    data = deepcopy(BASE.data)
    for path, value in mistakes:
        node: Any = data
        for part in path[:-1]:
            node = node[part] if isinstance(part, int) else node.setdefault(part, {})
        if value is GONE:
            del node[path[-1]]
        else:
            node[path[-1]] = value
    found = problems_of(Config(data).text, ENVIRON)
    return frozenset(dotted(problem.path) for problem in found if problem.severity == "error")


# The judgement of the second key needs the first one.
DEPENDENT = {
    *(("provider", key) for key in ("endpoint", "headers")),
    *((key, other) for key in ("routes", "de") for other in ("schedules", "shadow")),
    *((key, "regions") for key in ("stores", "processes")),
    *(("currency", key) for key in ("EUR", "allow")),
}


@cache
def errors_of(names: frozenset[str]) -> frozenset[str]:
    """Neither of two mistakes is in the value of the other, so their order does not matter."""
    return errors(*(MISTAKES[name] for name in sorted(names)))


def alone(name: str) -> frozenset[str]:
    return errors_of(frozenset({name}))


def overlap(name: str, other: str) -> bool:
    """Return whether one mistake is in the value of the other, so that no configuration has both."""
    return all(part == of for part, of in zip(MISTAKES[name][0], MISTAKES[other][0], strict=False))


@cache
def may_hide(name: str, other: str) -> bool:
    """Return whether a mistake explains why another one is not reported. The name that a misspelt one means is known."""
    (path, _), (at, _) = MISTAKES[name], MISTAKES[other]
    needs_site = path[-1] in ("provider", "endpoint", "stores") and "of the site" in other
    is_dependent = (path[-1], at[-1]) in DEPENDENT or needs_site
    return overlap(name, other) or (is_dependent and "misspelt" not in name)


def is_free(name: str, group: Iterable[str]) -> bool:
    """Return whether no other mistake of a group may hide this one."""
    return not any(may_hide(other, name) for other in group if other != name)


def groups_of(section: str) -> Iterator[list[str]]:
    """Return groups of mistakes of a section. In one of them, each mistake meets each one that it must not hide."""
    names = [name for name, (path, _) in MISTAKES.items() if path[0] == section]
    missing = {(name, other) for name in names for other in names if not may_hide(name, other)}
    while missing:
        group = list(min(missing))
        wanted = Counter(name for pair in missing for name in pair)
        for name in sorted(names, key=lambda name: (-wanted[name], name)):
            is_possible = not any(overlap(name, other) for other in group)
            if is_possible and not any(may_hide(name, other) for other in group if is_free(other, group)):
                group.append(name)
        missing -= {(name, other) for other in group if is_free(other, group) for name in group}
        yield group


def test_base_configuration_has_no_error() -> None:
    assert errors() == frozenset()


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_reported_once(name: str) -> None:
    assert len(alone(name)) == 1


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(group, id=f"{section}-{number}")
        for section in dict.fromkeys(str(path[0]) for path, _ in MISTAKES.values())
        for number, group in enumerate(groups_of(section))
    ],
)
def test_mistakes_hide_none_of_each_other(group: list[str]) -> None:
    found = errors_of(frozenset(group))
    assert not {name: missing for name in group if is_free(name, group) and (missing := alone(name) - found)}


@pytest.mark.full
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_hides_no_other_mistake_of_its_section(name: str) -> None:
    path, _ = MISTAKES[name]
    others = [other for other, (at, _) in MISTAKES.items() if at[0] == path[0] and not may_hide(name, other)]
    hidden = {other: alone(other) - errors_of(frozenset({name, other})) for other in others}
    assert not {other: missing for other, missing in hidden.items() if missing}
