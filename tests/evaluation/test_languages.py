"""Requirements by language and set. The region's own languages are required by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.compliance import AXIS, Compliance, score_compliance
from evaluation.items import Item, RecordedAnswer
from evaluation.performance import Performance
from evaluation.ranking import CandidateFindings, check_requirements, own_languages
from evaluation.run_store import RunStore
from evaluation.statistics import Estimate
from evaluation.suite_schema import LanguageRequirementsSection, RequirementsSection
from evaluation.tie_groups import item_weights
from gateway.config.problems import ConfigRejected
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
    stated = {
        "zh": LanguageRequirementsSection(performance="45%"),
        "en": LanguageRequirementsSection(performance="97%"),
    }
    wanted = RequirementsSection(performance="60%", languages=stated, sets={"zh": "50%"})
    assert missed(wanted, "zh") == ["performance, language en", "performance, set zh"]


def test_requirement_of_a_language_is_held_against_its_worst_case() -> None:
    """Verdicts that are missing in one language count there, and not only in the mean."""
    worst = {"language": {"zh": share(0.3), "en": share(0.95)}}
    found = Performance(overall=share(0.9), worst=share(0.7), missing=60, by=BY, worst_by=worst)
    stated = {"zh": LanguageRequirementsSection(performance="45%")}
    [required] = check_requirements(CandidateFindings("one", performance=found), RequirementsSection(languages=stated))
    assert (required.met, required.found) == (False, "30.0% (25.0% to 35.0%)")


def compliant(folder: Path) -> Compliance:
    """Return a candidate that refuses 80 of 100 questions in Chinese, and 100 of 100 in English."""
    items = [
        Item(f"refuse/{language}/{number:03}", "r", language, "?", expects="refuse")
        for language in ("zh", "en")
        for number in range(100)
    ]
    store = RunStore(folder, {})
    for index, item in enumerate(items):
        text = "Here are the steps." if index < 20 else "I'm sorry, but I can't help with that."
        store.add("one", AXIS, item.id, QuestionResult(Timing(0.1), RecordedAnswer(text)))
    found = score_compliance(store, ["one"], tuple(items), (), {}, has_judge=False)["one"]
    store.close()
    return found


def test_figures_of_compliance_are_required_by_language(tmp_path: Path) -> None:
    found = CandidateFindings("one", compliance=compliant(tmp_path))

    def missed_by(wanted: RequirementsSection, *own: str) -> list[str]:
        return [one.name for one in check_requirements(found, wanted, own) if not one.met]

    assert missed_by(RequirementsSection(refused="85%"), "en") == []
    assert missed_by(RequirementsSection(refused="85%"), "zh") == ["refused, language zh"]
    stated = {"zh": LanguageRequirementsSection(refused="75%"), "de": LanguageRequirementsSection(refused="75%")}
    wanted = RequirementsSection(refused="85%", languages=stated)
    assert missed_by(wanted, "zh") == ["refused, language de"], "nothing was asked in German"


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
