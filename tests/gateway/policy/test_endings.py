"""One rule for all facts that end: reported from 90 days before it, an error of `gateway check` after it, and kept."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config import region_text
from gateway.config.loading import load_document
from gateway.config.problems import Problem
from gateway.features.configuration import compile_config
from gateway.model.approval import begun_everywhere, days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import price_endings_of
from providers.registry import load_registry
from tests.kit.configs import BASE, KEYS

ON = date(2027, 3, 1)
PRICE = {"input": 1, "output": 2, "currency": "CNY", "as_of": "2026-11-01", "ends": str(ON)}
LATER = {"input": 3, "output": 4, "currency": "CNY", "as_of": "2026-11-01", "valid_from": str(ON)}
OWN = {"catalogue": {"models": ["models.yaml"]}}
APPROVED = {"deployments": {"qwen-cn": {"approvals": [
    {"region": "cn", "authority": "A", "kind": "registration", "number": "N", "model_name": "M", "valid_until": str(ON - timedelta(1))}
]}}}  # fmt: skip
LABELLED = {"regions": {"cn": {"labels": ["eu-art50"]}}}
FACTS = {"price": OWN, "approval": APPROVED, "law": LABELLED}
WORDS = {"price": "its price end", "approval": "its approval for region 'cn' end", "law": "the law of the label end"}


def compiled(now_s: float, *patches: Any, prices: Any = (PRICE,)) -> tuple[ConfigVersion, list[Problem]]:
    models = {"version": 1, "models": {"dashscope": {"qwen3-max": {"price": [*prices]}}}}
    Path("models.yaml").write_text(json.dumps(models), "utf-8")
    Path("gateway.yaml").write_text(BASE.merge(*patches).text, "utf-8")
    document = load_document(Path("gateway.yaml"), KEYS, clock=lambda: now_s)
    done = compile_config(document, registry=load_registry())
    return done.config, [it for it in done.warnings if any(words in it.message for words in WORDS.values())]


@pytest.fixture(autouse=True)
def law_that_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(region_text, "law_ends", lambda: {"eu-art50": (ON, "eu-art50-new")})


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize(
    ("days", "reported", "fails"), [(-93, False, False), (-89, True, False), (-2, True, False), (-1, True, True)]
)
def test_each_fact_is_reported_before_its_end_and_fails_a_check_after_it(
    fact: str, days: int, reported: bool, fails: bool
) -> None:
    _, found = compiled(begun_everywhere(ON + timedelta(days)), FACTS[fact])
    assert [(WORDS[fact] in it.message, it.fails_check) for it in found] == ([(True, fails)] if reported else [])


@pytest.mark.parametrize(("fact", "left"), [("price", []), ("approval", [False])])
def test_operator_keeps_what_has_ended(fact: str, left: list[bool]) -> None:
    """An approval that has ended stays a warning: without a valid one, the region still gets no answer."""
    kept = {"deployments": {"qwen-cn": {"accept_ended": True}}}
    config, found = compiled(begun_everywhere(ON), FACTS[fact], kept)
    assert [it.fails_check for it in found] == left
    assert config.deployments["qwen-cn"].ends_s is None


def test_later_price_replaces_one_that_ends() -> None:
    config, found = compiled(begun_everywhere(ON), OWN, prices=[PRICE, LATER])
    assert not found
    assert not price_endings_of(config.deployments.values(), days_at(begun_everywhere(ON)))


def test_price_is_used_after_its_end() -> None:
    config, _ = compiled(begun_everywhere(ON), OWN)
    price = config.deployments["qwen-cn"].price_at(begun_everywhere(ON) + 1e8)
    assert price is not None
    assert price.rates.input == 1_000_000


def test_label_of_a_law_that_goes_on_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = [
        {"labels": ["a", "b"], "ends": ON, "instead": "c"},
        {"labels": ["b"]},
        {"labels": ["a"], "ends": date(2027, 1, 1)},
    ]
    monkeypatch.setattr(region_text, "_table", lambda _: {"laws": rows})
    region_text.law_ends.cache_clear()
    try:
        assert region_text.law_ends() == {"a": (ON, "c")}
    finally:
        region_text.law_ends.cache_clear()
