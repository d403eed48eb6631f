"""Routes of embeddings and moderations in a config: what a change means. `patches/inputs.yaml` has their mistakes."""

import dataclasses

import pytest

from gateway.changes.activation import changes_between
from gateway.changes.plan import deployments_prompted
from gateway.config.problems import ConfigRejected
from providers.registry import load_registry
from tests.kit.configs import table_of
from tests.kit.input_gateway import CONFIG


def test_assistant_may_have_embeddings_and_no_routes() -> None:
    table = table_of(CONFIG.merge("assistants: {assistant: {routes: null, moderations: null}}"))
    assistant = table.assistants["assistant"]
    assert (dict(assistant.routes), len(assistant.routes_for("embeddings"))) == ({}, 1)


def test_site_that_needs_a_field_of_chats_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    site = dataclasses.replace(load_registry().adapters["mistral"].sites["eu"], pins={"region": "eu"})
    monkeypatch.setattr("providers.compatible.adapter.CompatibleAdapter.sites", {"eu": site}, raising=False)
    pinned = "{provider: mistral, model: mistral-embed, endpoint: eu, attests: [residency], api_key: '${K}'}"
    config = CONFIG.merge(f"deployments: {{pinned: {pinned}}}", "assistants: {b: {embeddings: {default: [pinned]}}}")
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
