"""The key of a provider's cache: a pseudonym by provider, site and client, never the user, and by the rule of a region."""

import hmac
from typing import Any

import pytest

from gateway.config.problems import ConfigRejected
from gateway.execution.conversation import Conversation, for_caches
from gateway.model.deployment import Deployment
from providers.chat import AssistantMessage, ChatRequest, TextPart, ToolCall, ToolMessage, UserMessage
from providers.value import replace
from tests.kit.configs import Config, table_of

KEY = b"k" * 32
CALL = AssistantMessage(None, tool_calls=(ToolCall("c", "count", "{}"),))
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
    return for_caches(request, request, deployment, conversation).extra.get("prompt_cache_key")


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
        ({"identity": "pass"}, "pass", "strip"),
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
        for keys in (
            {"cache_key": "pseudonym"},
            {"cache_key": "pass"},
            {"identity": "pass"},
            {"passthrough": ["prompt_cache_key"]},
        ):
            assert sent_key(deployed(**keys), conversation, prompt_cache_key="anna", **said) is None
    assert sent_key(deployed(), Conversation(KEY, "app", user="s-1", session="s-1")) is None


def test_key_goes_only_with_the_chat_of_a_client_and_where_the_field_is_known() -> None:
    assert sent_key(deployed(), None, prompt_cache_key="thread-1") is None
    claude = deployed(provider="anthropic", model="claude-sonnet-5", endpoint="us")
    assert sent_key(claude, Conversation(KEY, "app", session="s-1")) is None


CLAUDE = {"provider": "anthropic", "model": "claude-sonnet-5", "endpoint": "us", "cache": "auto"}


@pytest.mark.parametrize(
    ("messages", "session", "marked"),
    [
        ((UserMessage("Hi"),), None, ()),
        ((UserMessage("Hi"),), "s-1", (0,)),
        ((UserMessage("Hi"), AssistantMessage("Hello"), UserMessage("Go on")), None, (2,)),
        ((UserMessage("Hi"), AssistantMessage("Hello"), UserMessage((TextPart("Go"), TextPart(" ")))), None, (2,)),
        ((UserMessage((TextPart("Hi", "1h"),)), AssistantMessage("Hello"), UserMessage("Go on")), None, (0,)),
        ((UserMessage("Hi"), CALL, ToolMessage("c", "12")), None, (2,)),
        ((UserMessage("Hi"), CALL, ToolMessage("c", " ")), None, (0,)),
    ],
    ids=str,
)
def test_gateway_marks_the_end_of_a_prompt_that_is_likely_to_be_sent_again(
    messages: tuple[Any, ...], session: str | None, marked: tuple[int, ...]
) -> None:
    request = ChatRequest("assistant", messages)
    sent = for_caches(request, request, deployed(**CLAUDE), Conversation(KEY, "app", session=session))
    assert tuple(at for at, message in enumerate(sent.messages) if has_mark(message)) == marked


def has_mark(message: Any) -> bool:
    parts = message.content if isinstance(message.content, tuple) else ()
    return getattr(message, "cache", None) is not None or any(part.cache is not None for part in parts)


def test_salt_keeps_clients_or_users_apart() -> None:
    house = {
        "provider": "vllm",
        "model": "m",
        "endpoint": "https://llm.example.com/v1",
        "stores": "US",
        "processes": "US",
    }

    def salt(isolation: str, client: str, user: str, field: str = "user") -> Any:
        request = ChatRequest("assistant", (UserMessage("Hi"),), extra={"cache_salt": "own"})
        named = {"user": user} if field == "user" else {"extra": {**request.extra, field: user}}
        request = replace(request, **named)
        deployment = deployed(**house, cache_isolation=isolation)
        return for_caches(request, request, deployment, Conversation(KEY, client)).extra["cache_salt"]

    assert salt("client", "app", "anna") == salt("client", "app", "bert") != salt("client", "shop", "anna")
    assert len({salt("user", "app", "anna"), salt("user", "app", "bert"), salt("user", "shop", "anna")}) == 3
    assert salt("user", "app", "anna").startswith("p_")
    assert salt("user", "app", "anna", "safety_identifier") == salt("user", "app", "anna")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"cache_isolation": "client"}, "separate accounts"),
        ({"cache": "auto"}, "is for models of Claude"),
        (
            {"provider": "anthropic", "model": "MiniMax-M3", "endpoint": "us", "cache": "auto"},
            "is for models of Claude",
        ),
    ],
    ids=str,
)
def test_key_that_the_provider_cannot_fulfil_is_an_error(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigRejected, match=said):
        deployed(**keys)
