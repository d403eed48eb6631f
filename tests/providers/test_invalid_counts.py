"""A usage with a count that is not one must not be taken for an exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.usage.estimates import is_plausible
from providers.chat import Usage
from providers.formats import claude_answer as anthropic
from providers.openai_json.read_answer import read_usage as read_openai
from providers.vendors.dashscope import answer as dashscope
from providers.vendors.gemini import answer as gemini
from providers.vendors.hunyuan import answer as hunyuan
from providers.vendors.openai import responses_answer as responses


def of(translate: Callable[[Mapping[str, object]], Mapping[str, Any]]) -> Callable[[Mapping[str, object]], Usage]:
    return lambda usage: read_openai(translate({"usage": usage, "Usage": usage})["usage"])


READERS: Mapping[str, tuple[Callable[[Mapping[str, object]], Usage], str, str]] = {
    "openai": (read_openai, "prompt_tokens", "completion_tokens"),
    "anthropic": (anthropic._usage, "input_tokens", "output_tokens"),
    "dashscope": (of(dashscope._as_openai), "input_tokens", "output_tokens"),
    "gemini": (gemini.read_usage, "promptTokenCount", "candidatesTokenCount"),
    "hunyuan": (of(hunyuan._as_openai), "PromptTokens", "CompletionTokens"),
    "responses": (responses._usage, "input_tokens", "output_tokens"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("invalid", [-3, 1.5, "many", True, [], 2**60])
def test_usage_with_an_invalid_count_is_not_exact(name: str, invalid: object) -> None:
    read, prompt, completion = READERS[name]
    assert is_plausible(read({prompt: 10, completion: 3}))
    assert not is_plausible(read({prompt: 10, completion: invalid}))
    assert not is_plausible(read({prompt: invalid, completion: 3}))


def test_invalid_details_are_not_exact() -> None:
    counts = {"prompt_tokens": 10, "completion_tokens": 3}
    for name, detail in ("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens"):
        assert is_plausible(read_openai({**counts, name: {detail: None}}))
        assert not is_plausible(read_openai({**counts, name: {detail: -1}}))
