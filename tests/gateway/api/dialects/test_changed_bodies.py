"""A request of any dialect with any part replaced, removed or added is read, or refused by name: never another error."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.dialects.paths import counter_at, dialect_at
from gateway.api.errors import ApiError, from_domain
from providers.failures import InvalidRequest, UnsupportedFeature
from tests.kit.case_files import tables_of

PIXEL = "iVBORw0KGgoAAAANSUhEUg=="
_TABLES = tables_of(__file__)
CHAT = _TABLES["chat"]
RESPONSES = _TABLES["responses"]
MESSAGES = _TABLES["messages"]
GEMINI = _TABLES["gemini"]
EMBED = {"model": "models/assistant", "content": {"parts": [{"text": "Hi"}]}, "taskType": "RETRIEVAL_QUERY"}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
_MODEL = "/v1beta/models/assistant"
BODIES: dict[str, Any] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "assistant", "prompt": ["Hi"], "stop": ["END"], "stream": True, "logit_bias": {}},
    "/v1/responses": RESPONSES,
    "/v1/responses/input_tokens": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": MESSAGES,
    f"{_MODEL}:generateContent": GEMINI,
    f"{_MODEL}:countTokens": {"generateContentRequest": {"model": "m", **GEMINI}},
    f"{_MODEL}:embedContent": EMBED,
    f"{_MODEL}:batchEmbedContents": {"requests": [EMBED, {**EMBED, "title": "t"}]},
    "/v1/embeddings": {"model": "assistant", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64"},
    "/v1/moderations": {"model": "assistant", "input": [{"type": "text", "text": "a"}, IMAGE]},
}
"""A request with many parts for each path."""
REPLACEMENTS: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, 1e300, 2**63, -(2**70), "", "x", " ", "\x00", "\ud800", "data:,", "é" * 70),
    *([], {}, [[]], [None], [{}], [1], [""], {"": ""}, {"type": "text"}, {"type": None}, {"type": []}, {"text": 1}),
    *({"$ref": "#"}, {"type": "object", "properties": []}, {"type": ["string", "null"]}, {"role": "user"}),
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a value, with each of its keys or positions."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from places(inner)


def decode(path: str, body: Any) -> None:
    """Read a body as the endpoint at this path does, and write the error of a refusal."""
    dialect = counter_at(path) or dialect_at(path)
    assert dialect is not None
    data = json.dumps(body).encode("utf-8", "surrogatepass")
    try:
        dialect.decode(data)
    except (ApiError, InvalidRequest, UnsupportedFeature) as error:
        shown = from_domain(error, [])
        assert shown.status in (400, 413, 422), shown
        assert json.loads(dialect.encode_error(shown, "req_1"))


@pytest.mark.parametrize("path", BODIES)
def test_whole_body_is_read(path: str) -> None:
    dialect = counter_at(path) or dialect_at(path)
    assert dialect.decode(json.dumps(BODIES[path]).encode()).model == "assistant"


@pytest.mark.parametrize("path", BODIES)
def test_body_with_one_part_changed_is_read_or_refused(path: str) -> None:
    count = len(list(places(BODIES[path])))
    changes: list[Callable[[Any, Any], None]] = [lambda container, key: container.pop(key)]
    for value in REPLACEMENTS:
        changes.append(lambda container, key, value=value: container.__setitem__(key, copy.deepcopy(value)))  # type: ignore[misc]
    for position in range(count):
        for change in changes:
            body = copy.deepcopy(BODIES[path])
            change(*list(places(body))[position])
            decode(path, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), path=st.sampled_from(list(BODIES)))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_body_with_several_parts_changed_is_read_or_refused(data: st.DataObject, path: str) -> None:
    body = copy.deepcopy(BODIES[path])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(body)) or [(body, "x")]))
        container[key] = copy.deepcopy(data.draw(JSON | st.sampled_from(REPLACEMENTS)))
    decode(path, body)
