"""The same call has the same counts of a cache in its row and in its answer, whatever the dialect."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.assembly.application import Gateway
from tests.kit.configs import table_of
from tests.kit.gateway_process import APP_KEY, config_of_one_region
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.usage_rows import kept_rows
from tests.kit.waiting import eventually

TEXT = "Hello! Who are you?"
MESSAGE = {"role": "assistant", "content": "Hello!"}
CHAT = {"id": "a", "created": 1, "model": "m", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}
CHAT_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 7,
    "total_tokens": 1007,
    "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
}
CLAUDE = {"type": "message", "id": "a", "model": "m", "role": "assistant", "stop_reason": "end_turn"}
CLAUDE_USAGE = {
    "input_tokens": 100,
    "output_tokens": 7,
    "cache_read_input_tokens": 600,
    "cache_creation_input_tokens": 300,
}
CONVERSE = {"message": {"role": "assistant", "content": [{"text": "Hello!"}]}}
CONVERSE_USAGE = {
    "inputTokens": 100,
    "outputTokens": 7,
    "totalTokens": 1007,
    "cacheReadInputTokens": 600,
    "cacheWriteInputTokens": 300,
}
GEMINI = [{"content": {"role": "model", "parts": [{"text": "Hello!"}]}, "finishReason": "STOP"}]
GEMINI_USAGE = {"promptTokenCount": 1000, "candidatesTokenCount": 7, "cachedContentTokenCount": 600}
VENDORS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "openai": ("gpt-6-luna", "/v1", CHAT | {"usage": CHAT_USAGE}, 300),
    "anthropic": (
        "claude-sonnet-5",
        "/v1",
        CLAUDE | {"content": [{"type": "text", "text": "Hello!"}], "usage": CLAUDE_USAGE},
        300,
    ),
    "bedrock": (
        "anthropic.claude-sonnet-5",
        "",
        {"output": CONVERSE, "stopReason": "end_turn", "usage": CONVERSE_USAGE},
        300,
    ),
    "gemini": ("gemini-3.8-flash", "/v1beta", {"candidates": GEMINI, "usageMetadata": GEMINI_USAGE}, 0),
}
"""By provider: model, base path, answer, and the tokens that it wrote into its cache."""
MARKED = {"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}
POINT = {"type": "input_text", "text": TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [MARKED]}]}),
    "responses": ("/v1/responses", {"input": [{"role": "user", "content": [POINT]}]}),
    "messages": ("/v1/messages", {"max_tokens": 100, "messages": [{"role": "user", "content": [MARKED]}]}),
    "gemini": ("/v1beta/models/assistant:generateContent", {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}),
}


def counts_of(dialect: str, answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return all input, what was read from a cache and what was written into it, as the client gets them."""
    if dialect == "gemini":
        usage = answer["usageMetadata"]
        return usage["promptTokenCount"], usage["cachedContentTokenCount"], 0
    usage = answer["usage"]
    if dialect == "messages":
        read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
        return usage["input_tokens"] + read + written, read, written
    details = usage["prompt_tokens_details" if dialect == "chat" else "input_tokens_details"]
    total = usage["prompt_tokens" if dialect == "chat" else "input_tokens"]
    return total, details["cached_tokens"], details.get("cache_write_tokens", 0)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_counts_of_a_cache_are_those_of_the_vendor_in_each_dialect(tmp_path: Path, vendor: str) -> None:
    model, base, answer, written = VENDORS[vendor]
    deployment = {"provider": vendor, "model": model, "endpoint": f"https://llm.example.com{base}"}
    config = config_of_one_region({"assistant": deployment})
    transport = HttpxTransport(httpx.MockTransport(lambda _: httpx.Response(200, content=json.dumps(answer).encode())))
    gateway = Gateway(table_of(config, {"KEY": "sk-one"}), transport, state_dir=tmp_path)
    headers = {"authorization": f"Bearer {APP_KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
        for dialect, (path, body) in DIALECTS.items():
            got = await client.post(path, json={"model": "assistant", **body}, headers=headers)
            assert got.status_code == 200, got.text
            assert counts_of(dialect, got.json()) == (1000, 600, written if dialect != "gemini" else 0)
    await asyncio.to_thread(eventually, lambda: len(kept_rows(tmp_path)) == len(DIALECTS))
    rows = kept_rows(tmp_path)
    assert {(row.input_tokens, row.cached_tokens, row.cache_write_tokens) for row in rows} == {(1000, 600, written)}
