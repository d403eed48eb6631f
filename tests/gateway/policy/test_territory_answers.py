"""The territories that lose, gain or change their first answer are those of the function that serves traffic."""

import pytest

from gateway.changes.plan_checks import checks_of
from gateway.model.answer_change import AnswerChange, FirstAnswer, territory_list
from gateway.model.config_version import ConfigVersion
from gateway.policy.territory_answers import answer_changes, answers_of, region_answers, territories_of, unanswered
from tests.kit.config_cases import edited
from tests.kit.configs import Config, table_of
from tests.kit.console_pages import DEMO, demo_config

NOW_S = 1_795_132_800.0
ROUTE = "default: [gemini, qwen-hk, qwen-intl]"
PARTS = Config.parse("""
version: 1
cell: {territory: US}
assistants: {assistant: {routes: {us: [house], ca: [house]}, embeddings: {us: [house]}}}
regions:
  us: {territories: [US], boundary: [US]}
  ca: {territories: [US-CA], boundary: [US]}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:1/v1", stores: US, processes: US, available: [US]}
  keyed: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:2/v1", stores: US, processes: US, api_key: "${KEY}"}
location: {edges: [{from: [10.0.0.1], country: x-country}]}
""")


def demo_changes(*edits: tuple[str, str]) -> tuple[AnswerChange, ...]:
    return answer_changes(demo_config(DEMO), demo_config(edited(DEMO, *edits)), NOW_S)


def changes(new: Config, old: Config = PARTS, environ: dict[str, str] | None = None) -> dict[tuple[str, ...], str]:
    found = answer_changes(table_of(old, environ or {}), table_of(new, environ or {}), NOW_S)
    return {(it.kind, it.use, *it.territories): f"{it.before} -> {it.after}" for it in found}


def test_territories_that_only_a_removed_step_serves_lose_their_answer() -> None:
    lost, gained, changed = demo_changes((ROUTE, "default: [chatgpt-us, gemini]"))
    assert (lost.kind, lost.route, lost.territories) == ("lost", "assistant/default", ("HK", "MO"))
    assert (str(lost.before), str(lost.after)) == ("qwen-hk", "refused (no_eligible_deployment)")
    assert "openai does not serve Hong Kong" in lost.why
    assert (gained.kind, str(gained.after), "AF" in gained.territories) == ("gained", "chatgpt-us", True)
    assert (changed.kind, "JP" in changed.territories, "DE" in changed.territories) == ("changed", True, False)


def test_step_in_front_of_the_others_takes_no_answer_away() -> None:
    kinds = {it.kind for it in demo_changes((ROUTE, "default: [chatgpt-us, gemini, qwen-hk, qwen-intl]"))}
    assert kinds == {"gained", "changed"}


def test_blocked_territory_loses_its_answer_for_every_use() -> None:
    found = demo_changes(("blocked: [CU,", "blocked: [CU, VN,"))
    assert {(it.kind, it.use, it.territories) for it in found} == {
        ("lost", use, ("VN",)) for use in ("chat", "embeddings", "moderations", "transcription", "speech", "decisions")
    }


def test_lost_route_of_embeddings_is_a_loss_of_that_use_only() -> None:
    found = demo_changes(("      us: [embed-us]\n", ""))
    assert [(it.kind, it.route, it.territories) for it in found] == [("lost", "assistant/us (embeddings)", ("US",))]


def test_same_answers_are_no_change() -> None:
    assert demo_changes(("unknown: refuse", "unknown: refuse\nresilience: {total: 60s}")) == ()
    assert answer_changes(demo_config(DEMO), demo_config(DEMO), NOW_S) == ()


def test_part_of_a_country_with_its_own_rule_has_its_own_change() -> None:
    assert "US-CA" in territories_of(table_of(PARTS))
    new = PARTS.merge("assistants: {assistant: {routes: {ca: null}}}")
    assert changes(new) == {("lost", "chat", "US-CA"): "house -> refused (region_blocked)"}


def test_region_whose_territory_goes_to_another_loses_no_answer() -> None:
    new = PARTS.merge("{assistants: {assistant: {routes: {ca: null}}}, regions: {ca: null}}")
    assert not [key for key in changes(new) if key[0] == "lost"]


def test_missing_keys_of_a_shell_hide_no_loss() -> None:
    old = PARTS.merge("assistants: {assistant: {routes: {us: [keyed], ca: [keyed]}, embeddings: null}}")
    new = old.merge("{assistants: {assistant: {routes: {ca: null}}}}")
    assert changes(new, old) == {("lost", "chat", "US-CA"): "keyed -> refused (region_blocked)"}
    assert unanswered(table_of(old, {}), table_of(old, {}).assistants["assistant"], NOW_S) == {}


def test_callers_of_a_bound_client_without_a_territory_are_listed_by_region() -> None:
    client = {"clients": {"shop": {"keys": ["sha256:" + "c1" * 32], "region": "ca"}}}
    old = PARTS.merge(client)
    before, after = table_of(old, {}), table_of(old.merge("assistants: {assistant: {routes: {ca: null}}}"), {})
    found = answer_changes(before, after, NOW_S)
    assert [(it.region, it.territories) for it in found] == [("ca", ("US-CA",)), ("ca", ())]
    for accepted in ({"US-CA"}, {"US"}, {"US-CA", "ca"}):
        assert checks_of(before, after, (), NOW_S, accepted=accepted)[0].ok
    check = checks_of(before, after, (), NOW_S, accepted={"ca"})[0]
    assert (check.ok, len(check.findings)) == (False, 1)
    assert "`--accept-loss US-CA` accepts this" in check.findings[0]


@pytest.mark.parametrize(("accepted", "rest"), [((), "HK (Hong Kong), MO (Macao)"), (("HK",), "MO (Macao)")])
def test_check_names_the_losses_that_are_not_accepted(accepted: tuple[str, ...], rest: str) -> None:
    old, new = demo_config(DEMO), demo_config(edited(DEMO, (ROUTE, "default: [gemini]")))
    check = checks_of(old, new, (), NOW_S, accepted=accepted)[0]
    assert (check.name, check.ok) == ("answered", False)
    assert f"no deployment answers these users any more: {rest} (gemini: gemini does not serve" in check.findings[0]
    check = checks_of(old, new, (), NOW_S, accepted=("HK", "MO"))[0]
    assert (check.ok, check.findings[0].startswith("accepted: assistant/default: HK, MO lose")) == (True, True)


def test_answers_are_those_of_explain() -> None:
    from gateway.service.explain import PlainRequest, explain, reports_from

    config = demo_config(DEMO)
    assistant = config.assistants["assistant"].for_use("embeddings")
    for code, answer in answers_of(config, assistant, NOW_S, ["CN", "DE", "US", "HK", "RU", "CU"]).items():
        outcome = explain(PlainRequest(config, None, reports_from(code), assistant, NOW_S))["outcome"]
        assert isinstance(outcome, dict)
        assert [step["deployment"] for step in outcome.get("plan", [])] == list(answer.deployments)
        assert outcome.get("refusal", {"code": None})["code"] == answer.refusal


REST = PARTS.merge("""
assistants: {assistant: {routes: {ca: null, rest: [abroad, house]}}}
regions: {ca: null, rest: {territories: ["*"], boundary: ["*", "!CN"]}}
blocked: [CU, US-NY]
deployments: {abroad: {provider: openai-compatible, model: m, endpoint: "https://llm.example/v1", stores: JP, processes: JP, available: [JP, CN, RU]}}
""")


@pytest.mark.parametrize("config", [demo_config(DEMO), table_of(PARTS), table_of(REST)], ids=["demo", "parts", "rest"])
def test_answers_of_regions_are_those_of_each_territory_alone(config: ConfigVersion) -> None:
    found = [it for it in region_answers(config, NOW_S) if it.assistant == "assistant"]
    named = {code: it for it in found for code in it.territories}
    others = {it.region: it for it in found if not it.territories}
    for code, alone in answers_of(config, config.assistants["assistant"], NOW_S, territories_of(config)).items():
        if alone.region in others:
            shown = named.get(code, others[alone.region])
            assert (dict(alone.shares), alone.refusal) == (shown.shares, shown.refusal), code


def test_list_of_territories_is_bounded_and_ascii() -> None:
    assert (
        territory_list(["AX", "HK", "US-CA", "MO", "TW"], 3) == "AX (Aland Islands), HK (Hong Kong), US-CA and 2 more"
    )


def test_line_of_the_log_names_the_first_of_many_territories() -> None:
    (line,) = (it.summary for it in demo_changes((ROUTE, "default: [gemini, qwen-intl]")))
    assert line == "assistant/default: HK, MO have another first answer: qwen-hk -> qwen-intl"
    many = AnswerChange(
        "a", "chat", "lost", "r", FirstAnswer("one"), FirstAnswer(refusal="x"), "", tuple(f"X{it}" for it in range(30))
    )
    assert many.summary.endswith("X19 and 10 more lose their answer: one -> refused (x)")


def test_answers_of_a_region_name_blocked_territories_with_their_own_refusal() -> None:
    texts = [str(answer) for answer in region_answers(demo_config(DEMO), NOW_S)]
    assert "assistant/default in CU, IR, KP, SY: nobody (refused with region_blocked)" in texts
    assert "assistant/default in HK, MO: qwen-hk 100%" in texts
    assert "assistant/cn: qwen-cn 100%" in texts
