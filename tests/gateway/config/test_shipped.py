"""The files that come with the gateway, and the schema that editors use."""

import json
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, create_model

from gateway.config.compile import Compiled
from gateway.config.examples import example_names, example_path, starting_files
from gateway.config.field_types import Section
from gateway.config.loading import load_document
from gateway.config.operator_catalogue import catalogue_schema_json
from gateway.config.problems import dotted
from gateway.config.shape import UNSUPPORTED_KEYS
from gateway.config.yaml_document import parse_yaml
from gateway.features.configuration import compile_config, schema_json
from gateway.model.budget import KeyRules, LedgerRetention
from gateway.model.config_version import ConfigVersion, ReceiptRules
from gateway.model.decision import Plan
from gateway.model.deployment import capabilities_for
from gateway.model.resilience import Resilience
from gateway.model.route import deployments_of
from gateway.model.schedule import StopRule
from gateway.model.section import PlainSection, default_as_written
from gateway.policy.location.geoip import GeoIpRules
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.refusals import refuse_location
from gateway.policy.routing import decide
from providers.chat import ChatRequest, UserMessage
from providers.matching.requirements import requirements_of
from providers.registry import load_registry
from providers.value import replace
from tests.gateway.config.annotated_configs import completed, documents, errors_of
from tests.gateway.location_reports import reported

FILES = ("gateway.yaml", "demo.yaml")
EXAMPLES = {
    # The first and last deployment that answers a user there. Brackets: another cell serves the region. None: refused.
    "asserting-backend": {"US": "chatgpt-us", "DE": "gemini chatgpt-global", "CN": None, "IR": None},
    "cell-beijing": {"CN": "qwen-cn", "DE": "(eu)", "JP": "(world)", "CU": None},
    "cell-frankfurt": {"CN": "(cn)", "DE": "chatgpt-eu", "CH": "chatgpt-eu", "JP": "gemini", "HK": None},
    "china-and-the-rest": {"CN": "(cn)", "DE": "gemini chatgpt", "HK": None, "KP": None},
    "decisions": {"DE": "decide-eu", "US": "decide-us decide-eu", "JP": "gemini", "CN": None},
    "eu-only": {"FR": "chatgpt-eu house", "CH": "chatgpt-eu house", "GB": None, "US": None, "CN": None},
    "one-key": {"": "chatgpt"},
    "one-key-gemini": {"": "gemini"},
    "one-key-qwen": {"": "qwen"},
    "private-first": {"": "device rack chatgpt-eu"},
}
KEYS_OF = {f"{one}_API_KEY" for one in ("DASHSCOPE", "DASHSCOPE_INTL", "GEMINI", "OPENAI_EU", "OPENAI_US", "QIANFAN")}

QUESTION = ChatRequest(model="assistant", messages=(UserMessage("Hello!"),))

# Mistakes of meaning. In JSON Schema, 1.0 is a whole number.
NO_EDITOR_CAN_SEE = [
    "assistants.a.routes.cn[0]",
    "assistants.no-weight.routes.cn[0]",
    "assistants.stages-that-fall.schedules.cn.steps",
    "clients.without-keys.assistants[0]",
    "clients.without-keys.keys",
    "clients.without-keys.region",
    "deployments",
    "deployments.a-deployment-without-a-model-of-no-provider.provider",
    "deployments.a-deployment-without-a-model-of-no-provider.stores[0]",
    "deployments.reference-out-of-place.model",
    "deployments.reference-under-a-misspelt-key.headers.x-a",
    "regions.a-region-without-a-boundary-of-no-territory.territories[1]",
    "resilience.commit",
    "resilience.idle",
    "version",
]


@cache
def schema() -> jsonschema.Draft202012Validator:
    """One for all: to make it takes longer than to ask it."""
    return jsonschema.Draft202012Validator(json.loads(schema_json()))


def shipped(name: str, environ: dict[str, str]) -> Compiled:
    return compile_config(load_document(example_path(name), environ), registry=load_registry())


def values(text: str) -> dict[str, object]:
    return parse_yaml(text.encode(), "f").values


def test_demo_speaks_the_format_of_a_request_without_one() -> None:
    routes = shipped("demo.yaml", {}).config.assistants["assistant"].by_use["speech"]
    assert set(routes) >= {"cn", "eu", "default"}
    for route in routes.values():
        able = (capabilities_for(deployment, "speech").features for deployment in deployments_of(route))
        assert any("response_format.mp3" in features for features in able)


def test_demo_config_needs_no_secrets() -> None:
    compiled = shipped("demo.yaml", {})
    assert compiled.warnings == ()
    assert compiled.config.demo
    assert all(item.simulates for item in compiled.config.deployments.values())


def test_shipped_config_needs_only_keys() -> None:
    assert shipped("gateway.yaml", dict.fromkeys(KEYS_OF, "sk")).warnings == ()
    warnings = shipped("gateway.yaml", {}).warnings
    assert all("not set" in problem.message or "is available now" in problem.message for problem in warnings)


def test_env_example_lists_the_keys_of_the_shipped_config() -> None:
    lines = example_path("env.example").read_text("utf-8").splitlines()
    assert {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")} == KEYS_OF


def answers(table: ConfigVersion, territory: str) -> str | None:
    """Return the deployments that answer a user there, as the first client of the example."""
    client = next(iter(table.clients.values()))
    edges = table.location.rules.edges
    edge = EdgeReport((territory,)) if edges else None
    location = resolve(table, client, reported(edge, "", (territory,) if client.may_assert else ()))
    refusal = refuse_location(table, location)
    if refusal is not None:
        return f"({location.region.name})" if refusal.home and location.region else None
    assistant, needs = table.assistants["assistant"], requirements_of(QUESTION)
    if not assistant.routes:
        assistant, needs = assistant.for_use("decisions"), replace(needs, use="decisions")
    outcome = decide(table, assistant, location, needs, {}, 0.0).outcome
    return " ".join(step.deployment.name for step in outcome.steps) if isinstance(outcome, Plan) else None


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_matches_its_description(name: str) -> None:
    path = example_path(f"examples/{name}.yaml")
    keys = starting_files(name)["env.example"]
    environ = {line.rstrip("="): "sk" for line in keys.splitlines() if line.endswith("=")}
    compiled = compile_config(load_document(path, environ), registry=load_registry())
    assert compiled.warnings == ()
    assert {place: answers(compiled.config, place) for place in EXAMPLES[name]} == EXAMPLES[name]  # type: ignore[attr-defined]


def test_example_names_are_complete() -> None:
    assert example_names() == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_begins_with_its_schema(name: str) -> None:
    text = example_path(f"examples/{name}.yaml").read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=../gateway.schema.json\n")
    assert starting_files(name)["gateway.yaml"].startswith("# yaml-language-server: $schema=gateway.schema.json\n")
    schema().validate(values(text))


@pytest.mark.parametrize("name", FILES)
def test_mainland_china_stays_inside(name: str) -> None:
    table = shipped(name, {}).config
    china = table.region_by_territory["CN"]
    steps = table.assistants["assistant"].routes[china.name]
    assert {step.residency.stores.included for step in steps} == {frozenset({"CN"})}
    assert {step.residency.processes.included for step in steps} == {frozenset({"CN"})}
    assert "HK" not in (china.territories.included or ())


@pytest.mark.parametrize("name", FILES)
def test_the_schema_is_named_and_accepts_the_file(name: str) -> None:
    path = example_path(name)
    text = path.read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=gateway.schema.json\n")
    schema().validate(values(text))


def test_the_schema_file_is_current() -> None:
    assert example_path("gateway.schema.json").read_text("utf-8") == schema_json() + "\n"


def test_the_schema_is_one() -> None:
    schema().check_schema(schema().schema)


def places(error: jsonschema.ValidationError) -> Iterator[str]:
    """Yield the places of an error as the compiler names them. A choice has all places of its branches."""
    path = tuple(error.absolute_path)
    yield dotted(path)
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict):
            yield from (dotted((*path, key)) for key in error.instance.keys() - error.schema["properties"].keys())
        case "required":
            yield from (dotted((*path, key)) for key in error.validator_value if key not in error.instance)
        case "pattern" if "propertyNames" in error.absolute_schema_path:
            yield dotted((*path, error.instance))
    for inner in error.context or ():
        yield from places(inner)


def test_the_schema_refuses_what_the_compiler_refuses_for_its_shape() -> None:
    unseen: list[str] = []
    for document in documents(Path(__file__).with_name("mistakes") / "shape.yaml"):
        text = completed(document)
        seen = {place for error in schema().iter_errors(values(text)) for place in places(error)}
        unseen += [path for error in errors_of(text) if (path := dotted(error.path)) not in seen]
    assert sorted(unseen) == NO_EDITOR_CAN_SEE


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the schema that has properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from objects(value, f"{path}/{key}")


def descendants(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in kind.__subclasses__():
        yield from (each, *descendants(each))


def test_every_field_is_described_and_no_other_is_allowed() -> None:
    found = {f"config{path}": schema for path, schema in objects(json.loads(schema_json()))}
    found |= {f"catalogue{path}": schema for path, schema in objects(json.loads(catalogue_schema_json()))}
    # The suites of an evaluation have sections too. A section with the keys of features has the name of the one without them.
    # `StoreSection` has the keys that two others share.
    ours = (it.__name__ for it in descendants(Section) if it.__module__.startswith("gateway."))
    own = {name for name in ours if name[0] != "_" and name != "StoreSection"}
    plain = {section.__name__ for section in PlainSection.__subclasses__()}
    assert len(found) == len(own) + len(plain)
    for path, schema in found.items():
        assert schema["additionalProperties"] is False or path == "config/$defs/RatesSection", path
        for name, field in schema["properties"].items():
            assert field.get("description") or "$ref" in field, f"{path}: {name}"
            assert name not in UNSUPPORTED_KEYS, f"{path}: {name} is both known and not supported yet"


@pytest.mark.parametrize(
    "default", [Resilience(), StopRule(), ReceiptRules(), GeoIpRules("/x.mmdb"), LedgerRetention(), KeyRules()]
)
def test_a_default_with_a_unit_is_what_the_schema_shows(default: PlainSection) -> None:
    strict = ConfigDict(strict=True, extra="forbid")
    written = create_model("File", __config__=strict, section=(type(default), ...)).model_validate
    assert vars(written({"section": default_as_written(default)})) == {"section": default}


def test_unknown_example_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"the package has no example nothing\.yaml"):
        example_path("nothing.yaml")


def test_the_wheel_carries_the_examples() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "config" in wheel["only-include"]
    assert wheel["sources"]["config"] == "gateway/examples"
