"""The errors that a config can have, and some warnings: position, message and fix. `mistakes/` has them below their places.

To write the notes of changed or new mistakes:

    WRITE=1 .venv/bin/python -m pytest tests/gateway/config/test_broken_configs.py
"""

from pathlib import Path

import pytest

from gateway.config.problems import dotted
from tests.gateway.config.annotated_configs import annotated, documents, errors_of
from tests.kit.config_cases import compiled, marked, more, rejected, sections
from tests.kit.expected_files import expected_text

FILES = sorted(Path(__file__).with_name("mistakes").glob("*.yaml"))
OWN = "stores: DE, processes: DE"
HASH = "sha256:" + "ab" * 32


def test_base_config_of_the_cases_is_valid() -> None:
    assert compiled(sections()).warnings == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_mistakes_are_reported_at_their_positions_with_their_fixes(file: Path) -> None:
    reported = "---\n".join(annotated(document) for document in documents(file))
    assert reported == expected_text(file, reported)


def test_blocked_member_of_a_group_is_excluded_there() -> None:
    [error] = errors_of(sections(blocked="blocked: [FR]"))
    assert error.message.startswith("FR is blocked")
    assert error.hint == 'remove it there, or exclude it here: "!FR"'


def test_missing_sections_are_reported_at_the_first_section() -> None:
    text = "cell: {territory: DE, serves: [eu, us]}\n" + sections(version="", cell="", regions="")
    assert [str(error) for error in errors_of(text)] == [
        "gateway.yaml:1:1: regions: is missing; add it: Groups of territories under one policy, by name.",
        "gateway.yaml:1:1: version: is missing; add it: The version of this format: 1.",
    ]


REFERRING = sections(
    assistants="""\
        assistants:
          a:
            routes: {cn: [{qwen-cn: 95, chatgpt-eu: 5}], us: [chatgpt-us]}
            schedules: {cn: {candidate: chatgpt-eu, steps: "5% for 10m, 100%"}}
            shadow: {us: {deployment: chatgpt-us}}
        """,
    deployments=more(
        "deployments",
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: '${US_KEY}', approvals: "
        "[{region: cn, authority: A, kind: registration, number: N, model_name: M}]}",
    ),
    clients=f"clients: {{a: {{keys: ['{HASH}'], region: cn, assistants: [a]}}}}",
    location="location: {unknown: us}",
    exporters=f"exporters: {{t: {{endpoint: 'https://otel.example', {OWN}, regions: [eu]}}}}",
)


@pytest.mark.parametrize("section", ["assistants", "deployments", "regions"])
def test_reference_to_a_broken_section_is_not_an_error(section: str) -> None:
    lines = REFERRING.splitlines()
    first = lines.index(f"{section}:")
    last = next(index for index in range(first + 1, len(lines)) if not lines[index].startswith(" "))
    text = "\n".join([*lines[:first], f"{section}: [a]", *lines[last:]]) + "\n"
    errors = [str(problem) for problem in rejected(text) if problem.severity == "error"]
    assert len(errors) == 1, errors
    assert f"{section}: must be a mapping, not a list" in errors[0]


def test_planned_key_is_rejected_by_name_in_any_section() -> None:
    region = "regions: {cn: {territories: [CN], boundary: [CN], ▸evaluations: {}}}"
    text, places = marked(f"▸evaluations: true\n{sections(regions=region)}")
    found = [one for one in rejected(text) if one.message == "`evaluations` is not supported by this version yet"]
    assert [(one.line, one.column) for one in found] == places
    assert [dotted(one.path) for one in found] == ["evaluations", "regions.cn.evaluations"]
    assert {one.hint for one in found} == {"remove it"}


def test_syntax_shape_and_meaning_errors_are_reported_together() -> None:
    text, places = marked(
        sections(
            version="version: ▸2",
            assistants="assistants: {a: {routes: {cn: [▸chatgpt-us], ▸fr: [qwen-cn, ▸nobody]}}}",
            blocked="▸blokced: [CU]\nblocked: [▸XY]\n▸blocked: []",
            clients="clients: {a: {keys: [▸plain]}}",
        )
    )
    errors = [problem for problem in rejected(text) if problem.severity == "error"]
    assert [(problem.line, problem.column) for problem in errors] == places
