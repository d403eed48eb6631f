"""Plug-ins come through entry points; a broken one is named with its reason and breaks nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from providers import registry
from providers import registry as plugins
from providers.registry import GROUP, check_adapter, load_registry
from providers.testkit.simulator import NoSimulator, load_simulators
from providers.vendors.openai.adapter import ADAPTER
from providers.vendors.openai.simulator import SIMULATOR


@dataclass(frozen=True)
class Point:
    """An entry point with the members that the registry uses."""

    name: str
    value: str
    load: Callable[[], object]


def fails() -> object:
    raise ImportError("no module named 'acme_sdk'")


def load(monkeypatch: pytest.MonkeyPatch, *points: Point) -> registry.Registry:
    """Return the registry with these installed plug-ins."""

    def installed(*, group: str) -> tuple[Point, ...]:
        assert group == GROUP == "providers.adapters"
        return points

    monkeypatch.setattr(plugins, "entry_points", installed)
    return load_registry.__wrapped__()


def test_ours_are_installed_and_sound() -> None:
    found = load_registry()
    assert found.broken == {}
    assert {"openai", "openai-compatible", "gemini", "dashscope"} <= found.adapters.keys()
    assert all(adapter.name == name for name, adapter in found.adapters.items())
    assert load_registry() is found


def test_broken_plug_in_is_named_and_others_stay_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(
        monkeypatch,
        Point("acme", "acme.plugin:ADAPTER", fails),
        Point("half", "half:ADAPTER", lambda: object()),
        Point("missing", "gone:ADAPTER", lambda: getattr(registry, "ADAPTER")),  # noqa: B009
        Point("openai", "ours:ADAPTER", lambda: ADAPTER),
    )
    assert found.adapters == {"openai": ADAPTER}
    assert found.broken["acme"] == "acme.plugin:ADAPTER: ImportError: no module named 'acme_sdk'"
    assert found.broken["half"].startswith(
        "half:ADAPTER: TypeError: is not a valid adapter: it lacks name, capabilities, "
    )
    assert found.broken["missing"].startswith("gone:ADAPTER: AttributeError: ")


def test_adapter_name_must_equal_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch, Point("acme", "acme:ADAPTER", lambda: ADAPTER))
    assert found.adapters == {}
    assert found.broken == {"acme": "the adapter's name is 'openai'; it must be the entry point's name, 'acme'"}


def test_adapter_name_claimed_by_two_packages_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Point("openai", "ours:ADAPTER", lambda: ADAPTER)
    theirs = Point("openai", "theirs:ADAPTER", lambda: ADAPTER)
    for points in ((ours, theirs), (theirs, ours), (ours, theirs, ours)):
        found = load(monkeypatch, *points)
        assert found.adapters == {}
        assert "ours:ADAPTER" in found.broken["openai"]
        assert "theirs:ADAPTER" in found.broken["openai"]
    assert load(monkeypatch, ours, ours).adapters == {"openai": ADAPTER}


def test_simulator_name_claimed_by_two_packages_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    points = Point("openai", "ours:DIALECT", lambda: SIMULATOR), Point("openai", "theirs:DIALECT", lambda: SIMULATOR)
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points)
    found = load_simulators.__wrapped__()
    assert (found.simulators, list(found.broken)) == ({}, ["openai"])
    with pytest.raises(NoSimulator, match=r"the simulator of 'openai' doesn't load: .*theirs:DIALECT"):
        found.named("openai")
    with pytest.raises(NoSimulator, match="there is no simulator of 'acme': no entry point of that name"):
        found.named("acme")
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points[:1])
    assert load_simulators.__wrapped__().simulators == {"openai": SIMULATOR}


class Unfinished:
    name = "unfinished"
    capabilities = sites = auth = build_request = None

    def parse_response(self) -> None: ...

    def classify_error(self) -> None: ...


class TokenAuth:
    """A credential scheme that is not part of the contract."""


def test_adapter_with_unknown_auth_scheme_is_rejected_at_load() -> None:
    own: Any = TokenAuth()
    with pytest.raises(TypeError, match=r"its auth is TokenAuth; expected one of Bearer, HeaderKey, NoAuth, "):
        check_adapter(replace(ADAPTER, auth=own))


def test_missing_methods_of_an_adapter_are_named() -> None:
    assert check_adapter(ADAPTER) is ADAPTER
    with pytest.raises(TypeError, match=r"^is not a valid adapter: it lacks build_request, stream_parser$"):
        check_adapter(Unfinished())
