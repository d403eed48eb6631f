"""Each path of a dialect is known everywhere else: in the API document, in the hint of a 404 and in the fence tests."""

import re
from typing import Any

from gateway.api.dialects.paths import _AT_PATH, CHAT_PATH, counter_at, dialect_at
from gateway.api.openapi import complete_document
from gateway.api.path_hints import _PATHS, INPUT_PATHS
from tests.kit.prompt_paths import PROMPT_FORMS


def test_each_dialect_has_its_operation_in_the_api_document() -> None:
    posts = {path for path, item in _paths_of_document(is_demo=False).items() if "post" in item}
    assert {*_AT_PATH, CHAT_PATH} <= posts
    assert [path for path in posts if dialect_at(path) is None and counter_at(path) is None] == []


def test_route_in_traces_is_the_path_in_the_api_document() -> None:
    posts = [path for path, item in _paths_of_document(is_demo=False).items() if "post" in item]
    for path in posts:
        dialect = dialect_at(path) or counter_at(path)
        assert _with_model(dialect.route) == _with_model(path)


def _with_model(path: str) -> str:
    """Return the path with one name for the model."""
    return re.sub(r"\{\w+\}", "{model}", path)


def test_header_of_a_demo_is_not_in_a_later_document() -> None:
    before = _paths_of_document(is_demo=False)
    assert _paths_of_document(is_demo=True) != before
    assert _paths_of_document(is_demo=False) == before


def _paths_of_document(*, is_demo: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"paths": {}}
    complete_document(document, is_demo=is_demo)
    paths: dict[str, Any] = document["paths"]
    return paths


def test_each_dialect_is_named_in_the_hint_of_a_404() -> None:
    assert {f"POST {path}" for path in _AT_PATH} <= {hint for _, hint in _PATHS}


def test_each_dialect_of_chats_is_in_the_fence_tests() -> None:
    attacked = {path for form in PROMPT_FORMS for path in form.paths}
    assert set(_AT_PATH) - {*INPUT_PATHS} <= attacked
