"""Each field of OpenAI's chat request in each wire format: sent, dropped and named, or refused with a code.

From the client's JSON to the provider's, by the functions that traffic uses: decode, decide, build.
"""

import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from gateway.api.errors import from_domain
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, Refused
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.routing import decide
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.matching.capability_matching import with_supported_choice, without_parameters
from providers.matching.requirements import requirements_of
from providers.openai_json import decode_request
from tests.gateway.location_reports import reported
from tests.kit.case_files import rows_in
from tests.kit.configs import Config, table_of

COLUMNS = ("gpt-6", "gpt-4o", "gemini", "qwen", "qwen-thinks", "house")
# One column a territory, so that each is the only deployment that may answer.
PLACES = dict(zip(COLUMNS, ("US", "GB", "JP", "CN", "HK", "DE"), strict=True))
CONFIG = Config.beside(__file__)


def table_with(deployment: dict[str, Any]) -> ConfigVersion:
    """Compile the config with these keys changed in every deployment."""
    return table_of(CONFIG.merge({"deployments": dict.fromkeys(CONFIG.data["deployments"], deployment)}), {})


TABLE = table_with({})
STRIPPING = table_with({"identity": "strip"})
STRICT = table_with({"identity": "strip", "unsupported": "refuse"})
REFUSING = table_with({"unsupported": "refuse"})


@dataclass(frozen=True)
class Expected:
    """The fate of a request at one deployment.

    Attributes:
        sent: the values that the provider gets, by path.
        absent: the paths at which the provider gets nothing.
        dropped: the fields that are named to the client as left out.
        code: of the 400 that the client gets instead, with its `param` and some `words` of its message.
    """

    sent: dict[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    dropped: frozenset[str] = frozenset()
    code: str = ""
    param: str | None = None
    words: str = ""


Q: dict[str, Any] = {"role": "user", "content": "JSON, please"}
GROUPS = {
    "all": COLUMNS,
    "openai": ("gpt-6", "gpt-4o", "house"),
    "vendor": ("gpt-6", "gpt-4o"),
    "chat": ("gpt-4o", "house"),
    "qwens": ("qwen", "qwen-thinks"),
}


def case_of(request: dict[str, Any], **rows: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Expected]]:
    """Return the fields of a case, and what each column expects. A later row counts before an earlier one."""
    expected: dict[str, Expected] = {}
    for name, row in rows.items():
        assert row.keys() <= Expected.__dataclass_fields__.keys(), (name, row)
        expected.update(dict.fromkeys(GROUPS.get(name, (name,)), msgspec.convert(row, Expected)))
    assert expected.keys() == set(COLUMNS), rows
    return request, expected


CASES = {
    name: case_of(**case) for name, case in rows_in(Path(__file__).with_name("request_fields.yaml"))["cases"].items()
}


def asked(
    table: ConfigVersion, column: str, fields: dict[str, Any]
) -> tuple[Any, frozenset[str]] | tuple[str, str | None, str]:
    """The provider's body and what was dropped, or the code, param and message of the refusal."""
    try:
        request = decode_request({"model": "assistant", "messages": [Q], **fields})
        location = resolve(table, None, reported(EdgeReport((PLACES[column],))))
        decision = decide(table, table.assistants["assistant"], location, requirements_of(request), {}, 0.0)
        if not isinstance(decision.outcome, Plan):
            raise Refused(decision.outcome)
        [step] = decision.outcome.steps
        deployment = step.deployment
        fitted = with_supported_choice(without_parameters(request, step.dropped), deployment.capabilities)
        wire = deployment.adapter.build_request(fitted, deployment.target)
        return json.loads(wire.body), step.dropped
    except (InvalidRequest, UnsupportedFeature, Refused) as error:
        shown = from_domain(error, [])
        assert shown.status == 400
        return shown.code, shown.param, shown.message


def at(value: Any, path: str) -> Any:
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError):
            return ...
    return value


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("asked_for", "expected"), CASES.values(), ids=CASES.keys())
def test_each_field_is_sent_or_named_or_refused(
    asked_for: dict[str, Any], expected: dict[str, Expected], column: str
) -> None:
    outcome, wanted = asked(TABLE, column, asked_for), expected[column]
    if wanted.code:
        assert len(outcome) == 3, outcome
        assert outcome[:2] == (wanted.code, wanted.param), outcome
        assert wanted.words in outcome[2]
        if wanted.param:
            assert wanted.param.removesuffix(".type") in outcome[2]
    else:
        assert len(outcome) == 2, outcome
        body, dropped = outcome
        assert dropped == wanted.dropped
        found = {path: at(body, path) for path in (*wanted.sent, *wanted.absent)}
        assert found == {**wanted.sent, **dict.fromkeys(wanted.absent, ...)}


DROPPED = [
    (name, column, wanted.dropped)
    for name, (_, expected) in CASES.items()
    for column, wanted in expected.items()
    if wanted.dropped
]


@pytest.mark.parametrize(
    ("name", "column", "dropped"), DROPPED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_unsupported_refuse_rejects_a_field_that_would_be_dropped(
    name: str, column: str, dropped: frozenset[str]
) -> None:
    outcome = asked(REFUSING, column, CASES[name][0])
    assert len(outcome) == 3, outcome
    assert outcome[0] == "unsupported_capability"
    names = ", ".join(f"`{field}`" for field in sorted(dropped))
    assert f"{column}: does not support {names}, and is set to refuse" in outcome[2]


WHO = {"user": "anna", "safety_identifier": "anna", "prompt_cache_key": "anna", "metadata": {"person": "anna"}}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("table", [STRIPPING, STRICT], ids=["drop", "refuse"])
def test_end_user_fields_reach_no_provider_and_are_not_refused(table: ConfigVersion, column: str) -> None:
    for fields in ({name: value} for name, value in WHO.items()):
        [name] = fields
        outcome = asked(table, column, fields)
        if table is STRICT and name not in table.deployments[column].capabilities.parameters:
            assert outcome[0] == "unsupported_capability"
            continue
        body, dropped = outcome[0], outcome[1]
        assert dropped == {name}
        assert "anna" not in json.dumps(body)


def test_the_table_has_every_field_that_the_sdk_sends() -> None:
    fields = typing.get_type_hints(CompletionCreateParamsNonStreaming)
    tested = {name for body, _ in CASES.values() for name in body}
    assert fields.keys() - tested - {"model"} == set()
