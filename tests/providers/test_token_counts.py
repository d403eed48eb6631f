"""The tokens that we report for each vendor's recorded answers add up to the total that the vendor states."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from providers.registry import load_registry

WIRE = Path(__file__).parents[1] / "wire"
VENDORS = sorted(load_registry().adapters)
TOTAL = re.compile(rb'"(?:total_tokens|totalTokenCount|totalTokens|TotalTokens)"\s*:\s*([0-9]+)')


def usage_and_totals(vendor: str) -> list[tuple[str, int, int]]:
    """Return each recording with both numbers: its name, our total, and the last total of the vendor."""
    found = []
    for expected in sorted((WIRE / vendor).glob("*.expect.json")):
        case = expected.name.removesuffix(".expect.json")
        document = json.loads(expected.read_bytes())
        for member, kind in (("answer", "response.json"), ("stream", "stream.txt")):
            file = expected.with_name(f"{case}.{kind}")
            result = document.get(member, document.get("answer", {}))
            totals = TOTAL.findall(file.read_bytes()) if file.exists() else []
            if totals and (usage := result.get("usage")):
                ours = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
                found.append((file.name, ours, int(totals[-1])))
    return found


@pytest.mark.parametrize("vendor", VENDORS)
def test_recorded_usage_adds_up_to_the_total_of_the_vendor(vendor: str) -> None:
    different = [(name, ours, theirs) for name, ours, theirs in usage_and_totals(vendor) if ours != theirs]
    assert not different


def test_most_vendors_have_a_recording_with_a_total() -> None:
    without = [vendor for vendor in VENDORS if not usage_and_totals(vendor)]
    # Claude's API states no total. The others accept any model of the operator.
    assert set(without) <= {"anthropic", "openai-compatible", "llamacpp", "ollama", "vllm"}
