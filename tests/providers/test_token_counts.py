"""The tokens that we report for each vendor's recorded answers add up to the total that the vendor states."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.reading.token_counts import count_prompt, merged
from providers.registry import load_registry
from tests.kit.case_files import cases

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
    own = {"openai-compatible", "llamacpp", "lmstudio", "ollama", "sglang", "tei", "tgi", "vllm"}
    assert set(without) <= {"anthropic", "anthropic-vertex"} | own


COUNTS = st.none() | st.integers(0, 3) | st.sampled_from([0.0, 2.0, "", "2", [], {}])
REPORTS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), COUNTS),
    lambda inner: st.dictionaries(st.sampled_from("abc"), COUNTS | inner),
    max_leaves=6,
)


def counts_in(report: object, path: str = "") -> dict[str, object]:
    """Return every count of a report by its path."""
    if not isinstance(report, dict):
        return {path: report} if report else {}
    return {place: one for name, value in report.items() for place, one in counts_in(value, f"{path}/{name}").items()}


@given(st.lists(REPORTS, max_size=4))
def test_a_later_report_adds_and_takes_nothing_away(reports: list[dict[str, object]]) -> None:
    known: dict[str, object] = {}
    for report in reports:
        before, known = counts_in(known), dict(merged(known, report))
        # A count may become an object of details, or the reverse, if a vendor changes its form.
        stays = {path: one for path, one in before.items() if path in counts_in(known)}
        assert counts_in(known).items() >= {**stays, **counts_in(report)}.items()
        lost = before.keys() - counts_in(known).keys()
        assert all(
            any(new.startswith(f"{old}/") or old.startswith(f"{new}/") for new in counts_in(report)) for old in lost
        )


@cases("prompt", "cached", "total", "wanted")
def test_cached_tokens_are_inside_or_outside_the_prompt(prompt: int, cached: int, total: object, wanted: int) -> None:
    assert count_prompt(prompt, 50, cached, total) == wanted
