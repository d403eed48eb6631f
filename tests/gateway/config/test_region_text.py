"""Compile `labels`, `profile` and `refusals` of regions."""

import pickle
import re
import subprocess
import sys
from typing import Any

import pytest

from gateway.changes.pickling import pack, unpack
from gateway.config.known_texts import helplines, known_labels, known_refusals, units_of
from gateway.config.locales import best_text, canonical, display_name, full, locale_data
from gateway.config.profiles import offered_choices
from gateway.config.sentences import built_in_sentences, known_messages
from gateway.model.config_version import ConfigVersion
from gateway.model.refusal_reason import CODES_WITHOUT_A_REGION, REASON_BY_CODE, RefusalReason
from gateway.model.region_text import NO_PREFERENCES, SEPARATOR, RegionText
from gateway.policy.region_text import compose
from providers.territories import parse_territory
from tests.kit.case_files import cases
from tests.kit.config_cases import problems_of
from tests.kit.configs import BASE, KEYS, Config, table_of
from tests.kit.doc_pages import ROOT

PRODUCER = "{name: cn-gb45438, producer: 001191310000MA1FL0000X00000}"


def speaking(cn: str = "", eu: str = "") -> str:
    """The base configuration with these keys in two of its regions."""
    return BASE.merge(f"regions: {{cn: {{{cn}}}, eu: {{{eu}}}}}").text


def speech(table: ConfigVersion, region: str) -> RegionText:
    found = table.regions[region].texts
    return found


def problems(text: str) -> list[str]:
    return [re.sub(r"^gateway.yaml:\d+:\d+: ", "", str(problem)) for problem in problems_of(text, KEYS)]


@pytest.mark.parametrize(
    "code", ["001191310000MA1FL0000X00000", "001191310000MA1FL0000X1m001", "001191310000MA1FL0000X2m001"]
)
def test_producer_code_in_the_known_form_causes_no_warning(code: str) -> None:
    assert problems(speaking(f"labels: [{{name: cn-gb45438, producer: '{code}'}}]")) == problems(speaking())


def test_region_text_is_none_if_no_region_has_one() -> None:
    assert all(region.texts is None for region in table_of(speaking()).regions.values())


def test_every_region_removes_the_labels_of_all_regions() -> None:
    table = table_of(speaking(f"labels: [{PRODUCER}, {{name: house, text: {{zh: 您好}}, earlier: [你好]}}]"))
    wanted = {f"{text}{SEPARATOR}" for text in ("内容由AI生成", "內容由AI生成", "您好", "你好")}
    for region in table.regions.values():
        assert set(region.texts.known) == wanted
    assert speech(table, "us").default_locale.labels == ()
    assert speech(table, "cn").default_locale.first == "内容由AI生成\n\n您好\n\n"


def test_a_label_is_written_by_name_or_with_options() -> None:
    table = table_of(
        speaking("labels: [cn-gb45438]", "labels: [{name: eu-art50, show: never}, {name: own, text: {en: A, de: B}}]")
    )
    [label] = speech(table, "cn").default_locale.labels
    assert (label.name, label.show, label.producer) == ("cn-gb45438", "always", "")
    european = speech(table, "eu")
    assert [(one.name, one.show, one.producer) for one in european.default_locale.labels] == [
        ("eu-art50", "never", None),
        ("own", "always", None),
    ]
    assert (european.default_locale.locale, european.default_locale.first) == ("en", "A\n\n")
    assert (european.locales["de"].first, european.tags["de"], european.tags["no"]) == ("B\n\n", "de", "nb")
    assert european.locales["fr"].labels[0].text.startswith("Vous")


def test_a_profile_is_made_from_the_data_of_its_locale() -> None:
    table = table_of(
        speaking(f"labels: [{PRODUCER}], profile: {{locale: zh-CN, locales: [en, zh-TW], timezone: Asia/Shanghai}}")
    )
    chinese = speech(table, "cn")
    assert list(chinese.locales) == ["zh-CN", "en", "zh-TW"]
    profile = chinese.default_locale.profile
    block = compose(profile, "CN", NO_PREFERENCES)
    assert block.name.startswith("zh-CN@")
    assert block.message.content == (
        "You speak with somebody in a certain place. Keep to this unless the user asks for something else:\n"
        "- Language: Chinese (Simplified, China) (zh-CN), unless the user writes in another.\n"
        "- Formats: 31 March 2026 is written 2026年3月31日, and 1234.5 is written 1,234.5.\n"
        "- The user's time zone is Asia/Shanghai.\n"
        "- Units: metric (kilometres, kilograms, degrees Celsius).\n"
        "- Currency: Chinese Yuan (CNY).\n"
        "- Whom to call: police 110, ambulance 120, fire brigade 119, in a crisis or with thoughts of suicide 12356."
    )
    shown = (ROOT / "docs" / "operate" / "profiles.md").read_text("utf-8")
    quoted = [line.removeprefix(">").strip() for line in shown.splitlines() if line.startswith(">")]
    assert [line for line in quoted if line] == str(block.message.content).replace("(zh-CN)", "(zh-Hans-CN)").split(
        "\n"
    )
    traditional = chinese.locales["zh-TW"]
    assert (traditional.labels[0].text, traditional.refusals["content_filter"][:2]) == ("內容由AI生成", "無法")
    assert dict(traditional.profile.lines)["currency"] == "Currency: Chinese Yuan (CNY)."


@cases("profile", "about", "line")
def test_each_line_of_a_profile(profile: str, about: str, line: str) -> None:
    voice = speech(table_of(speaking(eu=f"profile: {{{profile}}}")), "eu").default_locale
    assert dict(voice.profile.lines).get(about, "").startswith(line)
    assert bool(line) is (about in dict(voice.profile.lines))


def test_the_numbers_of_a_region_of_several_territories() -> None:
    profile = speech(table_of(speaking(eu="profile: {locale: en}")), "eu").default_locale.profile
    assert profile.common == profile.helplines["NO"] == profile.helplines["CH"] == "Whom to call: in an emergency 112."
    rest = BASE.merge("regions: {default: {profile: {locale: en}}}")
    everywhere = speech(table_of(rest), "default").default_locale.profile
    assert (everywhere.common, everywhere.helplines["KR"][-4:]) == ("", "109.")
    own = speech(
        table_of(speaking(eu="profile: {locale: en, helplines: {police: '110'}}")), "eu"
    ).default_locale.profile
    assert (own.common, own.helplines) == ("", {})


def test_refusal_texts_of_a_region() -> None:
    table = table_of(
        speaking("profile: {locale: zh}, refusals: {content_filter: {zh: 不行}, region_blocked: {en: Sorry}}")
    )
    assert speech(table, "cn").default_locale.refusals == {"content_filter": "不行", "region_blocked": "Sorry"}


@pytest.mark.parametrize("code", sorted(REASON_BY_CODE))
def test_each_error_code_can_have_its_own_text(code: str) -> None:
    text = speaking(f"refusals: {{{code}: {{zh: 不行}}}}")
    locale = speech(table_of(text), "cn").default_locale
    assert (locale.refusals[code], locale.sentences[code].text) == ("不行", "不行")
    is_warned = any(f"regions.cn.refusals.{code}: has no effect" in problem for problem in problems(text))
    assert is_warned is (code in CODES_WITHOUT_A_REGION)


def test_config_version_with_region_text_can_be_pickled() -> None:
    claim = "claim: {issuer: i, audience: a, algorithms: [ES256], jwks: 'https://i.example/k', preferences: prefers}"
    text = speaking(f"labels: [{PRODUCER}], profile: {{locale: zh-CN, locales: [en]}}")
    table = table_of(Config.parse(text).merge(f"location: {{{claim}}}"))
    again = unpack(pack(table))
    assert again.regions == table.regions
    profile = speech(again, "cn").default_locale.profile
    assert profile.choices["time_zone"]["Asia/Tokyo"] == "The user's time zone is Asia/Tokyo."
    assert len(pickle.dumps(again.regions)) < 100_000


@pytest.mark.slow("imports the gateway in a new process")
def test_only_compiling_region_text_imports_babel() -> None:
    """It would stay in each process that serves."""
    code = (
        "import sys\n"
        "import gateway.app, gateway.server.host, gateway.server.worker, gateway.server.workers, gateway.config.compile\n"
        "from tests.kit.configs import BASE, table_of\n"
        "table_of(BASE)\n"
        "assert 'babel' not in sys.modules\n"
        "table_of(BASE.merge('regions: {cn: {profile: {locale: zh}}}'))\n"
        "assert 'babel' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


# --- the data -------------------------------------------------------------------------------------


def test_built_in_labels_contain_the_required_words() -> None:
    assert set(known_labels()) == {"cn-gb45438", "eu-art50", "kr-ai-basic-act", "us-not-human", "vn-ai-law"}
    for label in known_labels().values():
        for language, text in label.text.items():
            assert full(language) is not None, language
            assert text == text.strip()
            assert text.isprintable()
            assert all(any(word in text for word in group) for group in label.must_contain)


def test_built_in_helplines_have_a_source() -> None:
    lines: dict[str, Any] = helplines()
    assert {place for place in lines if parse_territory(place) != place} == set()
    assert {number for numbers in lines.values() for number in numbers.values() if not number.isdigit()} == set()
    assert (lines["CN"]["crisis"], lines["DE"], lines["TW"]["crisis"]) == ("12356", {"emergency": "112"}, "1925")
    assert "CU" not in lines


def test_built_in_refusals_are_in_known_languages() -> None:
    texts = known_refusals()["content_filter"]
    assert next(iter(texts)) == "en"
    assert {language for language in texts if full(language) is None} == set()
    assert {"zh", "zh-Hant", "en", "de", "ja", "ko"} <= texts.keys()


def test_preferences_of_callers_are_a_closed_set() -> None:
    assert {about: len(values) for about, values in offered_choices().items() if about != "time_zone"} == {
        "units": 3,
        "form": 2,
    }
    assert "Asia/Shanghai" in offered_choices()["time_zone"]


# --- tags -----------------------------------------------------------------------------------------


@cases("tag", "written", "data", "name")
def test_a_tag_means_a_language_and_a_script(tag: str, written: str, data: str, name: str) -> None:
    assert canonical(tag) == written
    assert str(locale_data(tag)).startswith(data)
    assert display_name(tag) == name


@cases("texts", "tag", "found")
def test_best_text_for_a_locale(texts: str, tag: str, found: str) -> None:
    assert best_text({one: one for one in texts.split()}, tag) == found


def test_the_units_of_a_place() -> None:
    assert [units_of(place) for place in ("US", "GB", "CN", "LR")] == ["us", "uk", "metric", "us"]


def test_sentence_for_a_pause_is_in_every_language_of_the_sentences() -> None:
    assert {*built_in_sentences("pauses").texts} == {*known_messages()[RefusalReason.AGE]}
