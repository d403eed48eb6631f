"""Routes of embeddings and moderations in a config: what `check` refuses, and what a change of them means."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.changes.activation import changes_between
from gateway.changes.plan import deployments_prompted
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected
from gateway.features.configuration import compile_config
from providers.registry import load_registry
from tests.kit.configs import Config, table_of
from tests.kit.input_gateway import CONFIG

OTHER = "{provider: openai-compatible, model: other, endpoint: 'https://x.example/v1', stores: any, processes: any}"


def errors_of(config: Config) -> list[tuple[str, str]]:
    with pytest.raises(ConfigRejected) as rejected:
        table_of(config)
    problems = [one for one in rejected.value.problems if one.severity == "error"]
    return [(".".join(map(str, one.path)), one.message) for one in problems]


def test_assistant_may_have_embeddings_and_no_routes() -> None:
    table = table_of(CONFIG.merge("assistants: {assistant: {routes: null, moderations: null}}"))
    assert (dict(table.assistants["assistant"].routes), len(table.assistants["assistant"].embeddings)) == ({}, 1)


def test_assistant_without_any_route_is_refused() -> None:
    nothing = CONFIG.merge("assistants: {empty: {aliases: [e]}}")
    assert errors_of(nothing) == [("assistants.empty.routes", "the assistant has no route")]


def test_different_models_in_one_region_are_refused() -> None:
    config = CONFIG.merge(f"deployments: {{other: {OTHER}}}").merge(
        "assistants: {assistant: {embeddings: {default: [house, other]}}}"
    )
    ((path, message),) = errors_of(config)
    assert path == "assistants.assistant.embeddings.default"
    assert message == "the deployments have different models (m, other), whose vectors cannot be compared"


def test_different_models_in_two_regions_are_accepted() -> None:
    regions = "regions: {eu: {territories: [DE], boundary: [DE]}, default: {territories: ['*'], boundary: ['*']}}"
    config = CONFIG.merge(
        regions, f"deployments: {{other: {OTHER}}}", "deployments: {other: {stores: DE, processes: DE}}"
    ).merge("assistants: {assistant: {embeddings: {eu: [other]}}}")
    assert set(table_of(config).assistants["assistant"].embeddings) == {"default", "eu"}


def test_moderations_may_have_different_models() -> None:
    config = CONFIG.merge(f"deployments: {{other: {OTHER}}}").merge(
        "assistants: {assistant: {moderations: {default: [judge, other]}}}"
    )
    assert len(table_of(config).assistants["assistant"].moderations["default"]) == 2


@pytest.mark.parametrize("use", ["embeddings", "moderations"])
def test_deployment_outside_the_boundary_is_refused(use: str) -> None:
    regions = "regions: {eu: {territories: [DE], boundary: [DE]}, default: {territories: ['*'], boundary: ['*']}}"
    config = CONFIG.merge(regions).merge(f"assistants: {{assistant: {{{use}: {{eu: [house]}}}}}}")
    ((path, message),) = errors_of(config)
    assert path == f"assistants.assistant.{use}.eu.0"
    assert "outside the boundary of region 'eu'" in message


@pytest.mark.parametrize("use", ["embeddings", "moderations"])
@pytest.mark.parametrize(
    ("listed", "place", "words"),
    [
        ("{nowhere: [house]}", "nowhere", "unknown region"),
        ("{default: []}", "default", "the route has no step"),
        ("{default: [nobody]}", "default.0", "unknown deployment"),
        ("{default: [house, house]}", "default.1", "already in this route"),
    ],
)
def test_mistake_in_a_list_is_named(use: str, listed: str, place: str, words: str) -> None:
    config = CONFIG.merge(f"assistants: {{assistant: {{{use}: null}}}}").merge(
        f"assistants: {{assistant: {{{use}: {listed}}}}}"
    )
    ((path, message),) = errors_of(config)
    assert path == f"assistants.assistant.{use}.{place}"
    assert words in message


@pytest.mark.parametrize(
    ("use", "words"), [("embeddings", "has no embeddings"), ("moderations", "classifies no content")]
)
def test_deployment_that_cannot_do_it_is_refused(use: str, words: str) -> None:
    claude = "{provider: anthropic, model: claude-opus-5, endpoint: global, api_key: '${K}'}"
    config = CONFIG.merge(f"deployments: {{claude: {claude}}}").merge(
        f"assistants: {{assistant: {{{use}: {{default: [claude]}}}}}}"
    )
    with pytest.raises(ConfigRejected) as rejected:
        table_of(config, {"K": "sk-1234567890"})
    assert any(words in one.message for one in rejected.value.problems)


def test_site_that_needs_a_field_of_chats_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    site = dataclasses.replace(load_registry().adapters["mistral"].sites["eu"], pins={"region": "eu"})
    monkeypatch.setattr("providers.compatible.adapter.CompatibleAdapter.sites", {"eu": site}, raising=False)
    pinned = "{provider: mistral, model: mistral-embed, endpoint: eu, attests: [residency], api_key: '${K}'}"
    config = CONFIG.merge(f"deployments: {{pinned: {pinned}}}").merge(
        "assistants: {b: {embeddings: {default: [pinned]}}}"
    )
    with pytest.raises(ConfigRejected, match="are valid only with `region`, which embeddings do not have"):
        table_of(config, {"K": "sk-1234567890"})


def test_change_of_a_list_is_a_change_of_the_route() -> None:
    before = table_of(CONFIG)
    after = table_of(CONFIG.merge("assistants: {assistant: {embeddings: {default: [spare, house]}}}"))
    assert changes_between(before, after).routes == ("assistant/default",)


def test_plan_counts_every_deployment_that_gets_prompts() -> None:
    assistant = table_of(CONFIG).assistants["assistant"]
    names = [deployment.name for deployment in deployments_prompted(assistant, "default")]
    assert names == ["chat", "house", "spare", "judge"]


def test_no_warning_asks_for_capabilities_of_a_model_for_embeddings() -> None:
    known = "{provider: openai, model: text-embedding-3-small, endpoint: global, api_key: '${K}'}"
    config = CONFIG.merge(f"deployments: {{known: {known}}}").merge("assistants: {b: {embeddings: {default: [known]}}}")
    assert table_of(config, {"K": "sk-1234567890"}).assistants["b"].embeddings


def test_hidden_model_without_a_key_is_a_warning() -> None:
    hidden = CONFIG.merge("assistants: {assistant: {reveal_model: false}}")
    (warning,) = [one for one in warnings_of(hidden) if "embedding space" in one]
    assert "set `secrets.identity`" in warning
    keyed = hidden.merge('secrets: {identity: "${ID}"}')
    assert not [one for one in warnings_of(keyed, {"ID": "i" * 40}) if "embedding space" in one]


def warnings_of(config: Config, environ: dict[str, str] | None = None) -> list[str]:
    document = parse_document(config.text.encode(), "test.yaml", environ or {})
    return [str(problem) for problem in compile_config(document, registry=load_registry()).warnings]


@pytest.mark.parametrize(("model", "is_known"), [("text-embedding-3-small", True), ("text-embedding-99", False)])
def test_embedding_model_that_no_catalogue_knows_is_a_warning(model: str, *, is_known: bool) -> None:
    vectors = f"{{provider: openai, model: {model}, endpoint: global, api_key: '${{K}}'}}"
    config = CONFIG.merge(f"deployments: {{vectors: {vectors}}}").merge(
        "assistants: {b: {embeddings: {default: [vectors]}}}"
    )
    found = [one for one in warnings_of(config, {"K": "sk-1234567890"}) if "does not know" in one]
    assert len(found) == (0 if is_known else 1)
    assert all("the catalogue does not know openai's model 'text-embedding-99'" in one for one in found)
