"""The page of models lists everything that the adapters declare."""

import time

from gateway.cli.provider_pages import deployments_text, models_page, models_text
from providers.adapter import KnowsModels, KnowsOffers
from providers.registry import load_registry
from tests.kit.configs import BASE, table_of

ADAPTERS = load_registry().adapters


def test_every_model_price_and_retirement_has_a_row() -> None:
    page, text = models_page(ADAPTERS), models_text(ADAPTERS)
    rows = sum(len(adapter.models) for adapter in ADAPTERS.values() if isinstance(adapter, KnowsModels))
    for adapter in ADAPTERS.values():
        if isinstance(adapter, KnowsOffers):
            rows += len(adapter.offers.prices) + len(adapter.offers.retirements)
    assert page.count("\n| `") == rows
    assert len(text.splitlines()) == rows + 3 + 2
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "| `moonshot` | `kimi-k3` | cn | CNY 20.00 | 2.00 | 20.00 | 100.00 | | 2026-07-18 |" in page
    assert "272000: 0.20, 0.02, 0.25, 0.75" in page
    assert "us +10 %" in page


def test_each_deployment_has_a_row() -> None:
    table = table_of(BASE)
    head, *rows = deployments_text(table.deployments.values(), time.time()).splitlines()
    assert head.split()[:4] == ["deployment", "provider", "model", "prompt"]
    [qwen] = [row for row in rows if row.startswith("qwen-cn ")]
    assert qwen.split()[1:7] == ["dashscope", "qwen-plus", "1000000", "CNY", "0.80", "0.16"]
