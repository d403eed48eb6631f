"""Read Hunyuan's native answers: chat completions in PascalCase. A whole one is in `Response`; errors have status 200.

Source: tencentcloud-sdk-python-hunyuan 3.1.180 (models, errorcodes) and the vendor's error-code page, read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.chat import ChatCompletion
from providers.failures import Failure
from providers.json_values import as_map, read_count, read_map
from providers.openai_json.read_answer import ChatReader, read_body
from providers.reading.errors import classify, error_object, load_rules
from providers.vendors.hunyuan.request import FACTS, dialect
from providers.wire import WireResponse

_SITES = ("international", "mainland")
_WORD = re.compile("(?<=[a-z])(?=[A-Z])")
_MOST_DEEP = 12


def hunyuan_failure(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure that the code of an error body means, or else its HTTP status."""
    return classify(_as_openai(body), response, load_rules(FACTS), _SITES)


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """Read the whole answer of a 2xx body. Raises ProviderFailed."""
    return read_body(_as_openai(error_object(response.body)), response, HunyuanReader(model))


def _as_openai(answer: Mapping[str, object]) -> Mapping[str, object]:
    inner = as_map(_in_snake_case(read_map(answer, "Response") or answer))
    error = inner.get("error") or inner.get("error_msg")
    shown = {**inner, "id": inner.get("id") or inner.get("request_id"), "error": error}
    usage, details = read_map(inner, "usage"), read_map(read_map(inner, "usage"), "prompt_tokens_details")
    if type(cached := details.get("cached_tokens")) is str and cached.isdecimal():
        # The vendor's SDK declares this one count as a text.
        shown["usage"] = {
            **usage,
            "prompt_tokens_details": {**details, "cached_tokens": read_count(details, "cached_tokens")},
        }
    return shown


def _in_snake_case(value: object, depth: int = 0) -> object:
    """Return the value with the names of OpenAI's API: `ToolCalls` is `tool_calls`."""
    if isinstance(value, dict) and depth < _MOST_DEEP:
        return {_WORD.sub("_", name).lower(): _in_snake_case(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list) and depth < _MOST_DEEP:
        return [_in_snake_case(member, depth + 1) for member in value]
    return value


class HunyuanReader(ChatReader):
    """Read the events of one answer into its `assembler`."""

    def __init__(self, model: str) -> None:
        super().__init__(model, dialect().answers, load_rules(FACTS), _SITES)

    def read_event(self, chunk: Mapping[str, object], event: str) -> None:
        """Read one event of a stream."""
        self.read_chunk(_as_openai(chunk), event)
