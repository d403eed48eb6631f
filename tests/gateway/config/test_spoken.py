"""What an operator says of how one server speaks: taken where the provider's adapter has it, named where it hasn't."""

from __future__ import annotations

from gateway.config.problems import dotted
from tests.gateway.config.cases import compiled, more, sections

HOUSE = "endpoint: 'https://llm.example.com/v1', stores: US, processes: US, model: m"


def config(text: str) -> str:
    return sections(deployments=more("deployments", f"x: {{{text}}}"))


def test_a_server_that_refuses_the_field_for_usage_is_without_it() -> None:
    for provider in ("openai-compatible", "vllm"):
        for key, without in (
            ("", frozenset()),
            (", stream_options: true", frozenset()),
            (", stream_options: false", {"stream_options"}),
        ):
            x = compiled(config(f"provider: {provider}, {HOUSE}{key}")).table.deployments["x"]
            assert x.target.facts.without == without


def test_who_is_never_sent_the_field_needs_no_key_for_it() -> None:
    for provider, where in (("gemini", "model: gemini-3.5-flash"), ("mistral", "model: mistral-small-2603")):
        found = compiled(config(f"provider: {provider}, {where}, api_key: '${{G_KEY}}', stream_options: false"))
        told = [(dotted(one.path), one.message) for one in found.warnings if "stream_options" in one.path]
        assert told == [("deployments.x.stream_options", f"{provider} is never sent this field")]
