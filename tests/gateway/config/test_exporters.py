"""Compile exporters: the regions that each may receive, and the errors of those that it may not."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.check_report import render_matrix
from gateway.model.config_version import Exporter
from providers.sites import Residency
from providers.territories import parse_places
from tests.gateway.random_configs import compiled as table_or_none
from tests.gateway.random_configs import configs
from tests.kit.config_cases import compiled, problems_of, sections
from tests.kit.example_counts import examples

DE = "stores: DE, processes: DE"
URL = "endpoint: 'https://otel.example.de/v1/traces'"


def written(*lines: str) -> str:
    return sections(exporters="exporters:\n" + "\n".join(f"  {line}" for line in lines))


def one(text: str) -> Exporter:
    (exporter,) = compiled(text).config.exporters
    return exporter


def messages_of(text: str) -> list[str]:
    """The mistakes and warnings about exporters."""
    return [
        f"{problem.message}; {problem.hint}" if problem.hint else problem.message
        for problem in problems_of(text)
        if problem.path[:1] == ("exporters",)
    ]


def test_an_exporter_as_it_is_compiled() -> None:
    headers = "headers: {Authorization: '${EDGE}', x-scope: a}"
    text = written(f"traces: {{{URL}, {DE}, regions: [eu], sampling: 0.25, {headers}}}")
    exporter = one(text)
    assert (exporter.name, exporter.permit.origin, exporter.path) == ("traces", "https://otel.example.de", "/v1/traces")
    headers = {name: secret.reveal() for name, secret in exporter.headers}
    assert headers == {"authorization": "edge-word", "x-scope": "a"}
    assert (exporter.regions, exporter.ratio, exporter.missing) == ({"eu"}, 0.25, ())
    assert not exporter.includes_unlocated
    assert "edge-word" not in repr(compiled(text).config)
    assert messages_of(text) == []


def test_default_path_is_added() -> None:
    assert one(written(f"t: {{endpoint: 'https://otel.example.de', {DE}, regions: [eu]}}")).path == "/v1/traces"


def test_check_shows_the_exporters() -> None:
    text = written(f"traces: {{{URL}, {DE}, regions: [eu], sampling: 0.5, headers: {{x-key: '${{UNSET}}'}}}}")
    shown = render_matrix(compiled(text).config).partition("exporters\n")[2].partition("\n\nfacts of")[0]
    assert shown == (
        "  traces: traces to https://otel.example.de/v1/traces\n"
        "      stores and processes: DE\n"
        "      receives: eu\n"
        "      never receives: cn, us, requests of no known region\n"
        "      samples: 0.5 of new traces\n"
        "      not now: a header has no value"
    )
    assert messages_of(text) == ["UNSET is not set: nothing is exported"]


WORLD = "regions: {cn: {territories: [CN], boundary: ['*']}, eu: {territories: [DE], boundary: ['*']}, us: {territories: [US], boundary: ['*']}}"


def test_exporter_inside_every_boundary_receives_requests_without_region() -> None:
    text = sections(regions=WORLD, exporters=f"exporters: {{t: {{{URL}, {DE}}}}}")
    exporter = one(text)
    assert exporter.includes_unlocated
    assert exporter.regions == {"cn", "eu", "us"}
    assert "never receives" not in render_matrix(compiled(text).config)
    named = sections(regions=WORLD, exporters=f"exporters: {{t: {{{URL}, {DE}, regions: [cn, eu, us]}}}}")
    assert not one(named).includes_unlocated, "who names regions means those"


def test_region_of_another_cell_needs_no_entry() -> None:
    """cn is not served here, us is."""
    text = written(f"t: {{{URL}, {DE}}}")
    assert messages_of(text) == [
        "'t' stores and processes in DE, outside the boundary of region 'us' (US): it must not receive that region's "
        "requests; list the regions that it may receive: regions: [eu]"
    ]
    alone = sections(cell="cell: {territory: DE, serves: [eu]}", exporters=f"exporters: {{t: {{{URL}, {DE}}}}}")
    assert not one(alone).includes_unlocated, "it is not inside every boundary"
    every = messages_of(sections(cell="cell: {territory: DE}", exporters=f"exporters: {{t: {{{URL}, {DE}}}}}"))
    assert ["outside the boundary of region 'cn'" in message for message in every] == [True, False]
    assert one(alone).regions == {"eu"}


def test_empty_header_is_reported_as_missing() -> None:
    text = written(f"t: {{{URL}, {DE}, regions: [eu], headers: {{X-Scope: ''}}}}")
    assert messages_of(text) == ["the value is empty: nothing is exported"]
    assert one(text).missing == ("X-Scope",)


FACTS = ["CN", "DE", "US", "any", "FR"]
collectors = st.fixed_dictionaries(
    {"stores": st.sampled_from(FACTS), "processes": st.sampled_from(FACTS)},
    optional={"regions": st.lists(st.sampled_from(["a", "b", "c", "rest"]), min_size=1, unique=True)},
)


@pytest.mark.slow("compiles each example")
@given(configs(sound=True), st.lists(collectors, min_size=1, max_size=3))
@settings(max_examples=examples(150), deadline=None)
def test_compiled_exporter_never_receives_a_region_whose_boundary_excludes_it(
    config: dict[str, Any], made: list[dict[str, Any]]
) -> None:
    boundaries = {name: parse_places(region["boundary"]) for name, region in config["regions"].items()}
    for facts in made:
        if "regions" in facts:
            facts["regions"] = [name for name in facts["regions"] if name in boundaries] or ["rest"]
    exporters = {f"e{i}": {"endpoint": f"https://o{i}.example"} | facts for i, facts in enumerate(made)}
    config = config | {"exporters": exporters}

    def inside(facts: dict[str, Any], name: str) -> bool:
        return Residency(parse_places([facts["stores"]]), parse_places([facts["processes"]])).within(boundaries[name])

    sound = all(inside(facts, name) for facts in made for name in facts.get("regions", boundaries))
    table = table_or_none(config)
    assert (table is not None) == sound
    for exporter, facts in zip(table.exporters if table is not None else (), made, strict=table is not None):
        assert exporter.regions == set(facts.get("regions", boundaries))
        assert exporter.includes_unlocated == ("regions" not in facts)
