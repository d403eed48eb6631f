"""Each path of a dialect is known everywhere else: in the API document, in the hint of a 404 and in the fence tests."""

from __future__ import annotations

from gateway.api.dialects.paths import _AT_PATH, CHAT_PATH, EMBEDDINGS_PATH, MODERATIONS_PATH
from gateway.api.openapi import INPUT_OPERATIONS
from gateway.api.openapi_dialects import dialect_operations
from gateway.api.public_routes import _PATHS
from tests.kit.prompt_paths import PROMPT_FORMS


def test_each_dialect_has_its_operation_in_the_api_document() -> None:
    assert set(_AT_PATH) - {CHAT_PATH} <= {*dialect_operations(), *INPUT_OPERATIONS}


def test_each_dialect_is_named_in_the_hint_of_a_404() -> None:
    assert {f"POST {path}" for path in _AT_PATH} <= {hint for _, hint in _PATHS}


def test_each_dialect_of_chats_is_in_the_fence_tests() -> None:
    attacked = {path for form in PROMPT_FORMS for path in form.paths}
    assert set(_AT_PATH) - {EMBEDDINGS_PATH, MODERATIONS_PATH} <= attacked
