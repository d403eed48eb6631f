"""No fact that ships has ended: on the day of the last commit, so that an old clone stays green."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from providers.adapter import KnowsOffers
from providers.catalogue.ended import ended_providers
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from scripts import facts
from scripts.facts import day_of, ended, ending, examples, old
from tests.kit.case_files import cases

ROOT = Path(__file__).parents[2]


def test_nothing_that_ships_has_ended_without_a_successor() -> None:
    assert not ended(ROOT, day_of(ROOT))


def test_shipped_config_with_an_ended_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "x.yaml").write_text(
        "version: 1\nassistants: {a: {routes: {cn: [d]}}}\nregions: {cn: {territories: [CN], boundary: [CN], approvals: none}}\n"
        "deployments:\n  d: {provider: xai, model: grok-3, stores: CN, processes: CN, endpoint: 'https://h.example/v1'}\n",
        "utf-8",
    )
    (line,) = ended(tmp_path, date(2026, 11, 29))
    assert not [word for word in ("grok-3", "2026-05-15", "grok-4.3") if word not in line]
    assert not ended(tmp_path, date(2026, 5, 1))


def test_list_names_what_ends_soon_and_what_was_read_long_ago() -> None:
    assert ending(date(2026, 11, 29))[0] == "2026-11-30  anthropic  claude-sonnet-4-5* -> claude-sonnet-5-5"
    assert not ending(date(2031, 1, 1))
    assert len(old(date(2031, 1, 1))) > len(old(date(2026, 11, 29)))


def test_day_without_git_is_that_of_the_last_release(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changes\n\n## [Unreleased]\n\n## [0.2.0] - 2026-08-01\n\n## [0.1.0] - 2026-01-01\n"
    )
    assert day_of(tmp_path) == date(2026, 8, 1)


@pytest.mark.parametrize("name", sorted(ended_providers()))
def test_ended_provider_is_gone_and_its_successor_has_what_it_names(name: str) -> None:
    adapters, row = load_registry().adapters, ended_providers()[name]
    assert name not in adapters
    successor = adapters[row.successor]
    assert set(row.sites.values()) <= successor.sites.keys()
    assert row.key in {site.api_key_env for site in successor.sites.values()}
    assert row.model_for("a-model-of-another-name")


@pytest.mark.parametrize("name", sorted(load_registry().adapters))
def test_replacement_of_a_model_has_not_ended_itself(name: str) -> None:
    adapter = load_registry().adapters[name]
    for row in adapter.offers.retirements if isinstance(adapter, KnowsOffers) else ():
        later = adapter.offers.retirement(row.instead) if row.instead else None  # type: ignore[attr-defined]
        assert later is None or row.on is None or later.on > row.on, (row.models, row.instead)


def test_law_and_price_that_ended_need_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laws = '[[laws]]\nduty = "Notice"\nends = 2026-03-01\n\n[[laws]]\nduty = "Mark"\nends = 2026-03-01\ninstead = "Mark 2"\n'
    (tmp_path / "laws.toml").write_text(laws)
    monkeypatch.setattr("scripts.facts.LAWS", tmp_path / "laws.toml")
    assert [line for line in ended(tmp_path, date(2026, 3, 1)) if "law" in line] == [
        "law: Notice on 2026-03-01: write what replaces it"
    ]
    assert not [line for line in ended(tmp_path, date(2026, 2, 28)) if "law" in line]
    (price,) = [line for line in ending(date(2026, 11, 29)) if "gemini: price" in line]
    assert price.endswith("-> a later price")


def test_each_law_was_read_on_a_day_that_is_listed() -> None:
    assert len([line for line in old(date(2031, 1, 1)) if "laws.toml: " in line]) > 15


def test_no_example_has_a_model_that_leaves_within_ninety_days() -> None:
    assert not examples(ROOT, day_of(ROOT))


@pytest.mark.parametrize(
    "example",
    ["{provider: acme, model: m, endpoint: x}", "  provider: acme\n  model: m\n", '{"provider": "acme", "model": "m"}'],
)
@cases("days", "left", "is_named")
def test_example_is_named_by_the_days_that_its_model_has_left(
    days: str, left: int, is_named: bool, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = 'name = "acme"\n[sites.x]\norigin = "https://x.example"\nbase_path = "/v1"\nstores = ["NO"]\nprocesses = ["NO"]\n[dialect]\n'
    toml += "features = []\nparameters = []\n[[retirements]]\nmodels = ['m']\nas_of = 2026-01-01\nsource = 'https://x.example'\n"
    toml += days if "unconfirmed" in days else f"{days}\nquote = 'w'"
    registry = load_registry()
    adapters = {**registry.adapters, "acme": adapter_of(toml)}
    monkeypatch.setattr(facts, "load_registry", lambda: replace(registry, adapters=adapters))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(f"```yaml\n{example}\n```\n")
    today = date(2027, 3, 1) - timedelta(left)
    assert [line.split(":")[0] for line in examples(tmp_path, today)] == ["docs/page.md"] * is_named
    shown = {("docs/page.md", "m"): "it shows an end"}
    unused = ["docs/page.md m: remove it from SHOW_AN_END"]
    assert examples(tmp_path, today, shown) == ([] if is_named else unused)
