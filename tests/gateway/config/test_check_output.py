"""The exact output of `check`: the files in `golden/`, rewritten with WRITE=1 in the environment."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.config.check_report import render_matrix, render_problems
from gateway.config.problems import ConfigRejected, Problem
from gateway.policy.location import SIGNALS
from tests.kit.config_cases import compiled, compiled_file
from tests.kit.configs import BASE, KEYS, table_of
from tests.kit.expected_files import expected_text
from tests.kit.location_signals import NAMES, listing, registered, trial, with_another, with_only

GOLDEN = Path(__file__).parent / "golden"
NOW_S = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
"""The files have the prices, and the ends of models, of this day."""
_NO_SIGNAL = "no signal locates a caller"


def report(name: str) -> str:
    try:
        compiled = compiled_file(GOLDEN / name, clock=lambda: NOW_S)
    except ConfigRejected as rejection:
        text = render_problems(rejection.problems)
    else:
        text = f"{render_problems(compiled.warnings)}\n\n{render_matrix(compiled.config, now_s=NOW_S)}"
    return text.replace(f"{GOLDEN}/", "") + "\n"


@pytest.mark.parametrize("name", sorted(file.stem for file in GOLDEN.glob("*.yaml")))
def test_report_equals_the_golden_file(name: str) -> None:
    found = report(f"{name}.yaml")
    assert found == expected_text(GOLDEN / f"{name}.txt", found)


def test_the_matrix_is_readable_at_100_columns() -> None:
    matrix = report("full.yaml").partition("\n\nconfig ")[2]
    assert matrix
    assert max(map(len, matrix.splitlines())) <= 100
    assert matrix.isascii()


@pytest.mark.parametrize("name", NAMES)
def test_matrix_warns_if_no_signal_can_locate_a_caller(name: str) -> None:
    assert _NO_SIGNAL not in render_matrix(with_only(name))
    matrix = render_matrix(with_another(name))
    # The region of a client is final, also if `api_key` is not listed.
    assert (_NO_SIGNAL in matrix) == (name != "api_key")
    if (key := SIGNALS[name].setup_key) is not None:
        assert f"`{key}`" in " ".join(matrix.split())


@pytest.mark.parametrize("can", [True, False])
def test_matrix_knows_a_trial_signal(can: bool) -> None:
    with registered(trial(can_locate=can)):
        config = replace(listing("trial"), clients={})
        assert (_NO_SIGNAL in render_matrix(config)) != can


def test_matrix_shows_moderation_age_bands_choices_and_emulated_schemas() -> None:
    matrix = render_matrix(
        table_of("""
version: 1
assistants:
  a: {routes: {default: [model]}, choices: {house: {deployments: [model], title: {en: House}}}}
regions:
  default:
    territories: ["*"]
    boundary: ["*"]
    moderation: {input: [judge, spare], output: [judge], on_failure: closed}
    age_bands: {under_14: {}, under_18: {}}
    age_missing: under_18
deployments:
  model: {provider: openai-compatible, model: m, endpoint: "https://m.example/v1", stores: any, processes: any,
          structured_output: emulate}
  judge: {provider: openai-compatible, model: j, endpoint: "https://j.example/v1", stores: any, processes: any}
  spare: {provider: openai-compatible, model: j, endpoint: "https://s.example/v1", stores: any, processes: any}
""")
    )
    for line in (
        "      moderation: requests by judge, then spare; answers by judge; without a verdict: refused",
        "      age bands: under_14, under_18; users whose age no claim names: under_18",
        "  choice house: model",
        "       JSON schemas: emulated",
    ):
        assert line in matrix.splitlines()


def _warnings(count: int) -> list[Problem]:
    """One warning for each of many deployments, in the middle of the file."""
    texts = ("KEY_{} is not set: the deployment is skipped", "no route uses this deployment")
    return [
        Problem("a.yaml", 10 + number, 3, ("deployments", f"d{number}"), text.format(number), "", "warning")
        for number in range(count)
        for text in texts
    ]


@pytest.mark.parametrize("change", ["websocket: false", "regions: {eu: {websocket: false}}"])
def test_matrix_names_each_region_without_websocket(change: str) -> None:
    lines = render_matrix(table_of(BASE.merge(change))).splitlines()
    named = [line for line in lines if "no WebSocket" in line]
    assert len(named) == (1 if "eu" in change else len(BASE.data["regions"]))


def test_errors_come_after_all_warnings() -> None:
    error = Problem("a.yaml", 1, 1, ("regins",), "unknown key 'regins'")
    shown = render_problems([error, *_warnings(3)]).splitlines()
    assert [*map(str, _warnings(3)), str(error)] == shown[:-2]
    assert shown[-1] == "1 error, 6 warnings"


def test_repeated_warnings_are_grouped() -> None:
    error = Problem("a.yaml", 1, 1, ("regins",), "unknown key 'regins'")
    shown = render_problems([error, *_warnings(256)]).splitlines()
    assert shown == [
        "a.yaml:10:3: warning: deployments.d0: KEY_0 is not set: the deployment is skipped",
        "    the same for d1, d2, d3, d4, d5, d6, d7, d8 and 247 more",
        "a.yaml:10:3: warning: deployments.d0: no route uses this deployment",
        "    the same for d1, d2, d3, d4, d5, d6, d7, d8 and 247 more",
        "a.yaml:1:1: regins: unknown key 'regins'",
        "",
        "1 error, 512 warnings (`gateway check --all` prints each warning)",
    ]
    assert len(render_problems([error, *_warnings(256)], every_warning=True).splitlines()) == 515


def test_routes_with_the_same_warning_are_grouped() -> None:
    routes = [
        Problem("a.yaml", 5, number, ("assistants", "helper", "routes", f"r{number}"), "is empty now", "", "warning")
        for number in range(20)
    ]
    assert render_problems(routes).splitlines()[1].startswith("    the same for helper/r1, helper/r2")


def test_different_warnings_are_not_grouped() -> None:
    words = "one two three four five six seven eight nine ten".split()
    different = [Problem("a.yaml", 1, 1, ("deployments", "x"), f"has {word} tokens", "", "warning") for word in words]
    assert len(render_problems(different).splitlines()) == 12


def test_report_without_problems_is_empty() -> None:
    assert render_problems([]) == ""


def test_terminal_control_characters_are_escaped() -> None:
    problem = Problem("a\x1b[2J\u202e.yaml", 0, 0, (), "unknown assistant 'x'", "there is a\nb")
    assert str(problem) == "a\\x1b[2J\\u202e.yaml: unknown assistant 'x'; there is a\\nb"


def test_a_problem_of_the_whole_file_has_no_line() -> None:
    problem = Problem("a.yaml", 0, 0, (), "is too large", "make it smaller", "warning")
    assert render_problems([problem]) == "a.yaml: warning: is too large; make it smaller\n\n1 warning"


def test_matrix_excepts_stored_clients_from_those_whom_no_signal_locates() -> None:
    with registered(trial(can_locate=False)):
        config = replace(listing("trial"), clients={}, clients_source="database")
        matrix = " ".join(render_matrix(config).split())
    assert f"{_NO_SIGNAL}, except a client of the database with a region" in matrix


@pytest.mark.parametrize(("site", "warned"), [("us", 0), ("eu", 0), ("global", 1)])
def test_emulation_of_schemas_without_effect_is_warned_of(site: str, warned: int) -> None:
    """OpenAI's sites with a promise of residency keep no schemas inside of it, so emulation has an effect there."""
    emulating = {"structured_output": "emulate", "attests": ["zdr"]}
    config = BASE.merge(
        {"deployments": {"chatgpt-us": {"endpoint": site, **emulating}}}, "regions: {us: {boundary: ['*']}}"
    )
    found = [it.message for it in compiled(config.text, KEYS).warnings if "structured_output" in it.path]
    assert found == ["it has no effect: 'gpt-6-luna' has JSON schemas at this site"] * warned
