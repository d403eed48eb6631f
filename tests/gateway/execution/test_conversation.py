"""The key of a provider's cache: a pseudonym by provider, site and client, never the user, and by the rule of a region."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from gateway.execution.conversation import Conversation, with_cache_key
from gateway.model.deployment import Deployment
from providers.chat import ChatRequest, UserMessage
from tests.kit.configs import Config, table_of

KEY = b"k" * 32
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {all: [one]}}}
regions: {all: {territories: [US], boundary: ["*"]}}
deployments:
  one: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: k}
""")


def deployed(**keys: Any) -> Deployment:
    return table_of(CONFIG.merge({"deployments": {"one": keys}}), {}).deployments["one"]


def sent_key(deployment: Deployment, conversation: Conversation | None, user: str | None = None, **extra: Any) -> Any:
    request = ChatRequest("assistant", (UserMessage("Hi"),), user=user, extra=extra)
    return with_cache_key(request, request, deployment, conversation).extra.get("prompt_cache_key")


def pseudonym_of(value: str, client: str = "app", provider: str = "openai", site: str = "us") -> str:
    data = "\0".join(("cache 1", provider, site, client, value)).encode()
    return f"p_{hmac.new(KEY, data, 'sha256').hexdigest()[:32]}"


def test_key_is_a_pseudonym_of_the_provider_the_site_and_the_client() -> None:
    mine, other = Conversation(KEY, "app"), Conversation(KEY, "shop")
    assert sent_key(deployed(), mine, prompt_cache_key="thread-1") == pseudonym_of("thread-1")
    assert sent_key(deployed(), other, prompt_cache_key="thread-1") == pseudonym_of("thread-1", client="shop")
    elsewhere = deployed(endpoint="global")
    assert sent_key(elsewhere, mine, prompt_cache_key="thread-1") == pseudonym_of("thread-1", site=elsewhere.site)


def test_session_of_an_agent_is_the_key_of_a_request_without_one() -> None:
    agent = Conversation(KEY, "app", session="s-1")
    assert sent_key(deployed(), agent) == pseudonym_of("s-1")
    assert sent_key(deployed(), agent, prompt_cache_key="thread-1") == pseudonym_of("thread-1")
    assert sent_key(deployed(cache_key="pass"), agent) == "s-1"


@pytest.mark.parametrize(
    ("keys", "everywhere", "protected"),
    [
        ({}, "pseudonym", "strip"),
        ({"identity": "strip"}, "strip", "strip"),
        ({"identity": "pass"}, "pass", "pass"),
        ({"cache_key": "pseudonym"}, "pseudonym", "pseudonym"),
        ({"cache_key": "strip"}, "strip", "strip"),
        ({"identity": "strip", "cache_key": "pass"}, "pass", "pass"),
        ({"passthrough": ["prompt_cache_key"]}, "pass", "pass"),
        ({"passthrough": ["prompt_cache_key"], "cache_key": "pseudonym"}, "pseudonym", "pseudonym"),
    ],
    ids=str,
)
def test_treatment_follows_the_file(keys: dict[str, Any], everywhere: str, protected: str) -> None:
    deployment = deployed(**keys)
    shown = {"pseudonym": pseudonym_of("thread-1"), "pass": "thread-1", "strip": None}
    for is_protected, wanted in ((False, everywhere), (True, protected)):
        conversation = Conversation(KEY, "app", is_protected=is_protected)
        assert sent_key(deployment, conversation, prompt_cache_key="thread-1") == shown[wanted]
        treatment = deployment.treatment_of("prompt_cache_key", "chat", protected=is_protected)
        assert treatment == wanted
        assert deployment.treatment_of("prompt_cache_key", "embeddings", protected=is_protected) == "strip"


def test_value_that_names_the_end_user_is_removed() -> None:
    for conversation, said in (
        (Conversation(KEY, "app", user="anna"), {}),
        (Conversation(KEY, "app"), {"user": "anna"}),
        (Conversation(KEY, "app"), {"safety_identifier": "anna"}),
    ):
        for mode in ("pseudonym", "pass"):
            assert sent_key(deployed(cache_key=mode), conversation, prompt_cache_key="anna", **said) is None
    assert sent_key(deployed(), Conversation(KEY, "app", user="s-1", session="s-1")) is None


def test_key_goes_only_with_the_chat_of_a_client_and_where_the_field_is_known() -> None:
    assert sent_key(deployed(), None, prompt_cache_key="thread-1") is None
    claude = deployed(provider="anthropic", model="claude-sonnet-5", endpoint="us")
    assert sent_key(claude, Conversation(KEY, "app", session="s-1")) is None
