"""Requirements by language and set. The region's own languages are required by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.problems import ConfigRejected
from gateway.evaluate.performance import Performance
from gateway.evaluate.ranking import CandidateFindings, check_requirements, own_languages
from gateway.evaluate.statistics import Estimate
from gateway.evaluate.suite_schema import RequirementsSection
from gateway.evaluate.tie_groups import item_weights
from gateway.model.config_version import Region
from providers.territories import Places
from tests.kit.evaluation_candidates import ITEMS, suite_in


def share(value: float) -> Estimate:
    return Estimate(value, value - 0.05, min(1.0, value + 0.05), 100)


BY = {"language": {"zh": share(0.49), "en": share(0.95)}, "set": {"zh": share(0.49), "en": share(0.95)}}
FOUND = CandidateFindings("one", performance=Performance(overall=share(0.72), worst=share(0.72), by=BY))


def missed(wanted: RequirementsSection, *own: str) -> list[str]:
    return [one.name for one in check_requirements(FOUND, wanted, own) if not one.met]


def test_share_of_right_answers_is_required_in_the_languages_of_the_region() -> None:
    wanted = RequirementsSection(performance="60%")
    assert missed(wanted) == []
    assert missed(wanted, "zh", "de") == ["performance, language zh"], "German was not asked"
    assert missed(wanted, "en") == []


def test_requirement_of_a_language_replaces_that_of_all() -> None:
    wanted = RequirementsSection(performance="60%", languages={"zh": "45%", "en": "97%"}, sets={"zh": "50%"})
    assert missed(wanted, "zh") == ["performance, language en", "performance, set zh"]


@pytest.mark.parametrize(
    ("territories", "expected"),
    [(("CN",), {"zh"}), (("HK", "US"), {"zh", "en"}), (("US-CA",), {"en"}), (("CH",), {"de", "fr", "it", "gsw"})],
)
def test_languages_of_a_region_are_the_official_ones(territories: tuple[str, ...], expected: set[str]) -> None:
    region = Region("r", Places(frozenset(territories)), Places(frozenset(territories)))
    assert own_languages(region) == expected


def test_region_of_all_other_territories_has_no_languages_of_its_own() -> None:
    region = Region("r", Places(frozenset({"CN"})), Places(frozenset({"CN"})))
    assert own_languages(replace(region, territories=Places(None))) == frozenset()


def test_weights_of_language_and_set_are_multiplied(tmp_path: Path) -> None:
    sets = f"performance: {{sets: [{{name: a, file: {ITEMS}/zh.yaml}}, {{name: b, file: {ITEMS}/en.yaml}}]}}\n"
    suite = suite_in(tmp_path, sets + "weights: {languages: {zh: 3}, sets: {a: 2, b: 5}}")
    assert {item[0]: weight for item, weight in item_weights(suite).items()} == {"a": 6, "b": 5}
    assert item_weights(suite_in(tmp_path, sets)) == {}


@pytest.mark.parametrize("section", ["weights: {sets: {c: 2}}", "requirements: {sets: {c: 20%}}"])
def test_unknown_set_is_rejected(tmp_path: Path, section: str) -> None:
    sets = f"performance: {{sets: [{{name: cc, file: {ITEMS}/zh.yaml}}]}}\n"
    with pytest.raises(ConfigRejected, match=r"sets\.c: there is no set 'c'; did you mean 'cc'\?"):
        suite_in(tmp_path, sets + section)
