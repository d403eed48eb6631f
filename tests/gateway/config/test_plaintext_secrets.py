"""Find secrets that are written in the config itself."""

from __future__ import annotations

import pytest

from gateway.config.sensitive_keys import secrets_in_clear
from gateway.config.yaml_document import parse_yaml


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("deployments: {a: {api_key: '${KEY}'}, b: {api_key: ['${A}', '${file:/run/b}']}, c: {model: m}}", []),
        ("deployments: {a: {api_key: sk-1}}", ["deployments.a.api_key"]),
        ("deployments: {a: {api_key: ['${A}', sk-2]}}", ["deployments.a.api_key"]),
        ("deployments: {a: {headers: {x-a: '${A}', x-b: bbbb}}}", ["deployments.a.headers.x-b"]),
        ("location: {edges: [{secret: {header: h, value: '${S}'}}, {secret: {header: h, value: s}}]}", ["location.edges[1].secret.value"]),
        ("location: {claim: {secret: s}}", ["location.claim.secret"]),
        ("exporters: {x: {headers: {authorization: '${T}', x-token: t}}}", ["exporters.x.headers.x-token"]),
        ("secrets: {consent: '${C}', identity: i}", ["secrets.identity"]),
        ("deployments: [1, 2]\nlocation: text\nexporters: {x: null}", []),
    ],
)  # fmt: skip
def test_each_plain_text_secret_is_found(text: str, found: list[str]) -> None:
    assert secrets_in_clear(parse_yaml(text.encode(), "test.yaml").values) == found
