"""Data URIs in a request are normalised, and an invalid one is described."""

from __future__ import annotations

import re

import pytest

from providers.chat import FilePart, ImagePart, UserMessage
from providers.failures import InvalidRequest
from providers.openai_json.decode_messages import decode_messages, sound_data_uri


@pytest.mark.parametrize(
    ("uri", "taken"),
    [
        ("data:image/png;base64,aGk=", "data:image/png;base64,aGk="),
        ("data:image/svg+xml;charset=utf-8;base64,aGk_-", "data:image/svg+xml;charset=utf-8;base64,aGk_-"),
        ("DATA:Image/PNG;Base64,aGkA", "data:image/png;base64,aGkA"),
    ],
)
def test_valid_data_uri_is_normalised(uri: str, taken: str) -> None:
    assert sound_data_uri(uri) == taken


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("data:image/png,abc", "is a data URI that is not in base64"),
        ("data:image/png;base64", "is a data URI that is not in base64"),
        ("data:image/png;base64,", "is a data URI without content"),
        ("data:;base64,aGk=", "is a data URI with an invalid media type"),
        ("data:image png;base64,aGk=", "is a data URI with an invalid media type"),
        ("data:image/png;base64,aG\nk=", "has white space in its base64 (at character 3)"),
        ("data:image/png;base64,aGk=é", "has an invalid character in its base64 (at character 5)"),
        ("aGk=", "is not a data URI"),
    ],
)
def test_invalid_data_uri_is_described_without_quoting_it(uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        sound_data_uri(uri)


def test_data_uri_error_names_the_param_and_shows_an_example() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png,abc"}}
    with pytest.raises(InvalidRequest) as raised:
        decode_messages([{"role": "user", "content": [image]}])
    assert str(raised.value) == (
        "`messages[0].content[0].image_url.url` is a data URI that is not in base64: write data:image/png;base64,…"
    )
    with pytest.raises(InvalidRequest) as raised:
        decode_messages([{"role": "user", "content": [{"type": "file", "file": {"file_data": "aGk="}}]}])
    assert str(raised.value) == (
        "`messages[0].content[0].file.file_data` is not a data URI: write data:application/pdf;base64,…"
    )


def test_parts_hold_the_one_spelling() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "DATA:image/png;base64,aGk="}},
        {"type": "file", "file": {"file_data": "Data:Application/PDF;BASE64,aGk="}},
    ]
    assert decode_messages([{"role": "user", "content": parts}]) == (
        UserMessage((ImagePart("data:image/png;base64,aGk="), FilePart("data:application/pdf;base64,aGk="))),
    )
