"""The operator's own catalogue: it takes precedence field by field, and every error has a position."""

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path

import jsonschema
import pytest

from gateway.changes.pickling import pack, unpack
from gateway.cli.provider_pages import deployments_text
from gateway.config.check_report import render_matrix
from gateway.config.examples import example_path
from gateway.config.loading import load_document
from gateway.config.operator_catalogue import catalogue_schema_json
from gateway.config.problems import ConfigRejected, Problem
from gateway.config.source_text import read_files
from gateway.model.approval import days_at
from gateway.model.deployment import Deployment
from providers.catalogue.prices import Rates, free_price, offers_of
from tests.gateway.config.annotated_configs import documents, own_lines, with_notes
from tests.gateway.config.catalogue_files import CONFIG, NOW, load
from tests.kit.case_files import cases
from tests.kit.config_cases import ENVIRON, compiled_file, edited
from tests.kit.expected_files import expected_text

DECEMBER = date(2026, 12, 1)
DECEMBER_S = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


UNCHANGED = "version: 1\nmodels: {}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def of(model: str, facts: str) -> str:
    """Return a catalogue with these facts of a model, which is written as `PROVIDER: {MODEL`."""
    return f"version: 1\nmodels: {{{model}: {facts}}}}}"


def house(price: str) -> str:
    return of("openai-compatible: {m", f"{{price: {price}}}")


def deployments(home: Path, catalogue: str) -> dict[str, Deployment]:
    return dict(load(home, catalogue).config.deployments)


def rejected(home: Path, catalogue: str, *more: str) -> list[str]:
    with pytest.raises(ConfigRejected) as caught:
        load(home, catalogue, *more)
    return messages_of(home, caught.value.problems)


def messages_of(home: Path, problems: tuple[Problem, ...]) -> list[str]:
    return [str(problem).replace(f"{home}{os.sep}", "") for problem in problems if problem.severity == "error"]


def test_omitted_facts_keep_their_known_values(home: Path) -> None:
    plain = deployments(home, UNCHANGED)
    facts = "{context_tokens: 400000}, gpt-4o: {retires_on: 2027-03-01}"
    own = deployments(home, of("openai: {gpt-6-luna", facts))
    luna, before = own["luna"], plain["luna"]
    assert luna.capabilities.context_tokens == luna.target.facts.context_tokens == 400_000
    assert luna.target.facts.efforts == before.target.facts.efforts
    assert luna.capabilities.features == before.capabilities.features
    assert (luna.price, luna.retirement) == (before.price, None)
    assert own["old"].retires_on == date(2027, 3, 1)
    assert plain["old"].retires_on == date(2027, 1, 14)
    assert own["old"].retirement.instead == "gpt-6-luna"  # type: ignore[union-attr]


def test_catalogue_can_state_every_fact_of_an_unknown_model(home: Path) -> None:
    text = """
        version: 1
        models:
          openai:
            "o9*":
              capabilities: [tools, reasoning]
              without: [temperature]
              context_tokens: 123456
              output_tokens: 4096
              efforts: [low, high]
              flags: [tools_think_by_responses]
              price:
                {input: 1.25, output: 10, cached_input: 0.125, cache_write: 1.5, currency: EUR, as_of: 2026-11-01,
                 source: "contract 7", above: [{prompt_tokens: 1000, input: 2.5, output: 20, cache_write: 3}]}
              retires_on: 2030-01-01
        """
    compiled = load(home, text)
    new = compiled.config.deployments["new"]
    facts = new.target.facts
    assert new.capabilities.features == {"tools", "reasoning"}
    assert "temperature" not in new.capabilities.parameters
    assert (facts.context_tokens, facts.output_tokens, facts.efforts) == (123_456, 4096, ("low", "high"))
    assert facts.flags == {"tools_think_by_responses"}
    assert new.price.rates == Rates(1_250_000, 10_000_000, 125_000, 1_500_000)
    assert new.price.above == ((1000, Rates(2_500_000, 20_000_000, cache_write=3_000_000)),)
    assert (new.price.currency, new.price.as_of, new.price.source) == ("EUR", date(2026, 11, 1), "contract 7")
    assert new.retires_on == date(2030, 1, 1)
    assert not any("no facts are known" in warning.message for warning in compiled.warnings)
    assert any("no facts are known" in warning.message for warning in load(home, UNCHANGED).warnings)
    assert unpack(pack(compiled.config)).deployments["new"].price == new.price


def test_only_the_most_specific_entry_applies(home: Path) -> None:
    text = """
        version: 1
        models:
          openai:
            "*": {context_tokens: 1000}
            "gpt-6*": {output_tokens: 2000}
            gpt-6-luna: {efforts: [low]}
        """
    own = deployments(home, text)
    assert own["luna"].target.facts.efforts == ("low",)
    assert own["luna"].target.facts.output_tokens == 128_000
    assert own["luna"].capabilities.context_tokens == 922_000
    assert own["new"].capabilities.context_tokens == 1000


def test_a_host_of_the_operator_gets_a_price(home: Path) -> None:
    price = "{input: 0.2, output: 0.2, currency: USD, as_of: 2026-01-01}"
    own = deployments(home, house(price))["house"].price
    assert (own.rates.input, own.source) == (200_000, "your own catalogue")


def test_a_price_has_rates_of_reasoning_and_of_tool_calls(home: Path) -> None:
    price = "{input: 1, output: 2, reasoning: 3.5, tool_calls: {web_search: 0.01}, currency: USD, as_of: 2026-11-01}"
    own = deployments(home, house(price))["house"].price
    assert own.rates == Rates(1_000_000, 2_000_000, reasoning=3_500_000)
    assert own.tool_calls == (("web_search", 10_000),)


@pytest.mark.parametrize("zero", ["0", "0.0"])
def test_price_zero_is_a_model_that_costs_nothing(home: Path, zero: str) -> None:
    compiled = load(home, house(zero))
    assert compiled.config.deployments["house"].price == free_price("your own catalogue")
    assert not any("price" in warning.message for warning in compiled.warnings)
    assert "XXX" not in deployments_text(compiled.config.deployments.values(), NOW)


def own_price(*prices: str) -> str:
    known = "currency: USD, as_of: 2026-11-01"
    listed = ", ".join(price if price == "0" else f"{{{price}, {known}}}" for price in prices)
    return of("openai: {gpt-6-luna", f"{{price: {f'[{listed}]' if len(prices) > 1 else listed}}}")


def test_own_price_holds_from_its_day_and_the_known_one_until_then(home: Path) -> None:
    compiled = load(home, own_price("input: 1, output: 2, valid_from: 2026-12-01"))
    luna, known = compiled.config.deployments["luna"], deployments(home, UNCHANGED)["luna"].price
    assert unpack(pack(compiled.config)).deployments["luna"].price == luna.price
    (coming,) = luna.coming_prices(NOW)
    assert (luna.price_at(NOW), coming.rates, coming.valid_from) == (known, Rates(1_000_000, 2_000_000), DECEMBER)
    assert luna.price_at(DECEMBER_S - 1) == known
    assert luna.price_at(DECEMBER_S) is coming
    matrix = " ".join(render_matrix(compiled.config, None, NOW).split())
    head = "prices that change within 30 days, at 00:00 UTC luna: "
    assert f"{head}USD 0.11 input, 0.55 output; from 2026-12-01 on USD 1.00 input, 2.00 output" in matrix
    assert "prices that change" not in render_matrix(compiled.config, None, DECEMBER_S)
    assert "prices that change" not in render_matrix(compiled.config, None, DECEMBER_S - 31 * 86_400)
    lines = deployments_text([luna], NOW).splitlines()
    assert [line.split()[:6] for line in lines[1:]] == [
        ["luna", "openai", "gpt-6-luna", "922000", "USD", "0.11"],
        ["from", "2026-12-01", "USD", "1.00", "1.00", "1.00"],
    ]


@pytest.mark.parametrize(
    ("zone", "ahead_h", "shown"),
    [
        ("UTC", 0, "from 2026-12-01 on"),
        ("Europe/Berlin", 1, "(00:00 of UTC+01:00)"),
        ("Asia/Kolkata", 5.5, "(00:00 of UTC+05:30)"),
        ("America/Chicago", -6, "(00:00 of UTC-06:00)"),
    ],
)
def test_own_price_changes_at_midnight_of_its_zone(home: Path, zone: str, ahead_h: float, shown: str) -> None:
    compiled = load(home, own_price(f"input: 1, output: 2, valid_from: 2026-12-01, timezone: {zone}"))
    luna, begins_s = compiled.config.deployments["luna"], DECEMBER_S - ahead_h * 3600
    (coming,) = luna.coming_prices(NOW)
    assert luna.price_at(begins_s - 1) is not coming
    assert luna.price_at(begins_s) is coming
    assert unpack(pack(compiled.config)).deployments["luna"].price == luna.price
    assert shown in " ".join(render_matrix(compiled.config, None, NOW).split())


def test_list_of_own_prices_replaces_the_known_price(home: Path) -> None:
    later = "input: 3, output: 3, valid_from: 2027-01-01"
    luna = deployments(home, own_price("input: 2, output: 2, valid_from: 2026-12-01", "0", later))["luna"]
    days = (NOW, DECEMBER_S, DECEMBER_S + 31 * 86_400)
    found = [price.rates.input if (price := luna.price_at(day_s)) is not None else None for day_s in days]
    assert found == [0, 2_000_000, 3_000_000]


def test_fee_that_is_never_charged_is_warned_of(home: Path) -> None:
    price = "input: 1, output: 2, tool_calls: {web_serch: 0.01, web_search_options: 0.02, zzzzzzzzzz: 1}"
    warned = [str(one).partition("models.yaml:")[2] for one in load(home, own_price(price)).warnings]
    start = "models.openai.gpt-6-luna.price.tool_calls"
    assert [one for one in warned if "tool_calls" in one] == [
        f"2:85: warning: {start}.web_serch: its fee for 'web_serch' is never charged, because no known request field "
        "has this name; did you mean 'web_search'?",
        f"2:129: warning: {start}.zzzzzzzzzz: its fee for 'zzzzzzzzzz' is never charged, because no known request field "
        "has this name; such as web_search_options",
    ]


def test_retirement_is_warned_of_before_and_after_its_day(home: Path) -> None:
    def warned(on: str) -> list[str]:
        compiled = load(home, of("openai: {gpt-4o", f"{{retires_on: {on}}}"))
        assert f"model retires: {on}" in render_matrix(compiled.config)
        warnings = [str(warning).split("warning: ")[1] for warning in compiled.warnings]
        fails = [warning.fails_check for warning in compiled.warnings if "RETIRED" in warning.message]
        assert fails == [True] * (date.fromisoformat(on) <= date(2026, 11, 19))
        return [warning for warning in warnings if "retire" in warning.lower()]

    ending = "; use another model, such as gpt-6-luna"
    kept = "; if the vendor still serves you, write `accept_ended: true`"
    start = "deployments.old.model: its model 'gpt-4o' "
    assert warned("2027-02-18") == []
    for on, when in (("2027-02-17", "in 90 days"), ("2026-11-20", "in 1 day")):
        assert warned(on) == [f"{start}is retired on {on}, {when}; routes pass it over from {on} 12:00 UTC{ending}"]
    for on in ("2026-11-19", "2020-01-01"):
        assert warned(on) == [f"{start}is RETIRED since {on}: routes pass it over{ending}{kept}"]


def test_mistakes_are_reported_at_their_positions_with_their_fixes(home: Path) -> None:
    """They are noted as those of `mistakes/` are."""

    def noted(document: str) -> str:
        own = own_lines(document)
        with pytest.raises(ConfigRejected) as caught:
            load(home, "\n".join(own) + "\n")
        errors = [problem for problem in caught.value.problems if problem.severity == "error"]
        return with_notes(own, errors, [*range(len(own)), len(own) - 1])

    file = Path(__file__).with_name("catalogue_mistakes.yaml")
    found = "---\n".join(map(noted, documents(file)))
    assert found == expected_text(file, found)


@pytest.mark.parametrize(
    ("text", "line"), [("", "1:1: the file is empty"), ("version: 1\nmodels: [", "3:1: not valid")]
)
def test_file_that_is_no_yaml_is_reported(home: Path, text: str, line: str) -> None:
    (found,) = rejected(home, text)
    assert found.startswith(f"models.yaml:{line}")


def test_catalogue_errors_are_reported_together_with_config_errors(home: Path) -> None:
    bad = """
        version: 1
        models:
          opnai: {g: {context_tokens: 0}}
          openai: {g: {price: 3, flags: [no]}, h: {thinking: x}}
        """
    found = rejected(home, bad, "version: 2\nmodels: {openai: {h: {without: [heat]}}}")
    places = [problem.split(": ")[:2] for problem in found]
    assert places == [
        ["models.yaml:4:3", "models.opnai"],
        ["models.yaml:4:31", "models.opnai.g.context_tokens"],
        ["models.yaml:5:23", "models.openai.g.price"],
        ["models.yaml:5:34", "models.openai.g.flags[0]"],
        ["models.yaml:5:54", "models.openai.h.thinking"],
        ["more0.yaml:1:10", "version"],
        ["more0.yaml:2:19", "models.openai.h"],
        ["more0.yaml:2:33", "models.openai.h.without[0]"],
    ]
    assert "is already defined in models.yaml:5" in found[6].replace(str(home) + os.sep, "")


def test_missing_file_is_reported_at_the_key_that_names_it(home: Path) -> None:
    load(home, UNCHANGED)
    (home / "models.yaml").unlink()
    with pytest.raises(ConfigRejected) as caught:
        compiled_file(home / "gateway.yaml")
    [error] = messages_of(home, caught.value.problems)
    expected = "gateway.yaml:3:22: catalogue.models[0]: the file models.yaml can't be read (No such file or directory)"
    assert error == expected


def test_the_files_are_watched_and_are_part_of_the_version(home: Path) -> None:
    first = load(home, UNCHANGED)
    models = str(home / "models.yaml")
    assert first.files == read_files([str(home / "gateway.yaml"), models])
    same = load(home, "# a remark\nversion: 1\nmodels: {}")
    assert same.config.version == first.config.version
    assert same.files[models] != first.files[models]
    other = load(home, "version: 1\nmodels: {openai: {}}")
    assert other.config.version != first.config.version
    (home / "models.yaml").unlink()
    gone = load_document(home / "gateway.yaml", ENVIRON)
    assert gone.files[models] == ""


def test_catalogue_accepts_a_single_name_and_an_absolute_path(home: Path) -> None:
    (home / "elsewhere").mkdir()
    elsewhere = home / "elsewhere" / "c.yaml"
    elsewhere.write_text(of("openai: {gpt-4o", "{context_tokens: 9000}"), "utf-8")
    (home / "gateway.yaml").write_text(CONFIG % elsewhere, "utf-8")
    compiled = compiled_file(home / "gateway.yaml")
    assert compiled.config.deployments["old"].capabilities.context_tokens == 9000


@cases("section", "message")
def test_mistake_in_the_section_is_reported(home: Path, section: str, message: str) -> None:
    (home / "models.yaml").write_text(UNCHANGED, "utf-8")
    text = edited(CONFIG, ("catalogue: {models: %s}", f"catalogue: {section}"))
    (home / "gateway.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigRejected) as caught:
        compiled_file(home / "gateway.yaml")
    assert any(message in problem for problem in messages_of(home, caught.value.problems))


def test_pipe_without_writer_does_not_block(home: Path) -> None:
    os.mkfifo(home / "models.yaml")
    (home / "gateway.yaml").write_text(CONFIG % "models.yaml", "utf-8")
    with pytest.raises(ConfigRejected, match="it is not a regular file"):
        compiled_file(home / "gateway.yaml")


SCHEMA = json.loads(catalogue_schema_json())


def test_catalogue_schema_accepts_the_files_that_compile(home: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert example_path("catalogue.schema.json").read_text("utf-8") == catalogue_schema_json() + "\n"
    price = {"input": 1.5, "output": 2, "currency": "EUR", "as_of": "2026-11-01"}
    catalogue = {"version": 1, "models": {"openai": {"gpt-6*": {"price": price, "retires_on": "2027-01-01"}}}}
    jsonschema.validate(catalogue, SCHEMA)
    load(home, json.dumps(catalogue))
    catalogue["models"]["openai"]["gpt-6*"]["price"] = [0, price | {"valid_from": "2027-01-01"}]  # type: ignore[index]
    jsonschema.validate(catalogue, SCHEMA)
    load(home, json.dumps(catalogue))
    for change in ({"input": -1}, {"currency": "euro"}, {"as_of": "soon"}, {"inputt": 1}, {"valid_from": "soon"}):
        broken = {"version": 1, "models": {"openai": {"gpt-6*": {"price": price | change}}}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)
        assert rejected(home, json.dumps(broken))


def test_catalogue_can_disable_stream_options(home: Path) -> None:
    own = deployments(home, of("openai-compatible: {m", "{without: [stream_options]}"))
    assert own["house"].target.facts.without == {"stream_options"}
    wrong = of("gemini: {g", "{without: [stream_options]}")
    assert "models.gemini.g.without[0]: unknown value 'stream_options'" in rejected(home, wrong)[0]


@pytest.mark.parametrize("price", ["price: 3", "price: [3]", "price: {input: 1}", "pric: 0", "price: {inptu: x}"])
def test_wrong_fact_of_an_entry_hides_no_other_mistake_of_it(home: Path, price: str) -> None:
    found = rejected(home, of("openai: {gpt-6-luna", f"{{flags: [no], {price}}}"))
    assert any("models.openai.gpt-6-luna.flags[0]: unknown value 'no'" in line for line in found)
    assert any("models.openai.gpt-6-luna.pric" in line for line in found)


def test_misspelt_key_of_a_single_price_is_reported_where_it_is(home: Path) -> None:
    (found,) = rejected(home, own_price("inptu: 1, output: 2"))
    assert found.endswith("models.openai.gpt-6-luna.price.inptu: unknown key 'inptu'; did you mean 'input'?")


def test_report_of_a_config_names_a_deployment_that_has_ended(home: Path) -> None:
    compiled = load(home, of("openai: {gpt-4o", "{retires_on: 2026-11-01}"))
    shown = render_matrix(compiled.config, days_at(datetime(2026, 11, 20, tzinfo=UTC).timestamp()))
    assert "not now: ended on 2026-11-01" in shown


def test_end_of_a_site_is_that_of_its_models_there() -> None:
    rows = {"on": date(2026, 1, 1), "as_of": date(2025, 1, 1), "source": "https://v.example"}
    later = {**rows, "models": ["m"], "on": date(2027, 1, 1)}
    offers = offers_of({"retirements": [{**rows, "models": ["*"], "sites": ["old"]}, later]})
    ends = {(model, site): offers.retirement(model, site) for model in ("m", "n") for site in ("old", "new", "")}
    assert {where: end.on.year for where, end in ends.items() if end is not None} == {
        ("m", "old"): 2026, ("m", "new"): 2027, ("m", ""): 2027, ("n", "old"): 2026,
    }  # fmt: skip
