"""Headers that an operator may set: each is declared, has a narrow form, and does not frame or authenticate requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from providers.adapter import TakesHeaders
from providers.catalogue import CatalogueError
from providers.catalogue.headers import FixedHeader, headers_of, load_headers
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.providers.adapter_facts import facts_of

ADAPTERS = load_registry().adapters
DECLARED = [
    pytest.param(name, header, id=f"{provider}-{name}")
    for provider, adapter in ADAPTERS.items()
    if isinstance(adapter, TakesHeaders)
    for name, header in adapter.headers.items()
]
SOUND = {"value": "app-[a-z]{1,8}", "about": "what it does", "source": "a page"}


def headers(provider: str) -> Mapping[str, FixedHeader]:
    adapter = ADAPTERS[provider]
    assert isinstance(adapter, TakesHeaders)
    return adapter.headers


def test_adapters_have_exactly_the_reviewed_headers() -> None:
    there_are = {
        name: set(one.headers) for name, one in ADAPTERS.items() if isinstance(one, TakesHeaders) and one.headers
    }
    assert there_are == {
        "dashscope": {"X-DashScope-WorkSpace"},
        "dashscope-compatible": {"X-DashScope-WorkSpace"},
        "qianfan": {"appid"},
    }
    assert headers("dashscope") == headers("dashscope-compatible")


@pytest.mark.parametrize(("name", "header"), DECLARED)
def test_each_header_is_described_and_accepts_only_names(name: str, header: object) -> None:
    assert isinstance(header, FixedHeader)
    assert header.about
    assert header.source
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", header.as_of)
    for wrong in ("", "a b", "a\r\nhost: evil", "https://evil.example", "a" * 300, "ü" * 8, "{}", "app-a\n"):
        assert not header.takes(wrong)


@pytest.mark.parametrize(
    ("value", "taken", "refused"),
    [
        ("X-DashScope-WorkSpace", ["llm-abc", "ws-1a2B_3"], ["abc", "-abcd", "a.bcd"]),
        ("appid", ["app-A1"], ["app-", "appid", "app-a-b", "xapp-a"]),
    ],
)
def test_forms(value: str, taken: list[str], refused: list[str]) -> None:
    header = {**headers("dashscope"), **headers("qianfan")}[value]
    assert [header.takes(text) for text in (*taken, *refused)] == [True] * len(taken) + [False] * len(refused)


@pytest.mark.parametrize(
    ("name", "row", "complaint"),
    [
        ("Authorization", SOUND, "can.t have this name"),
        ("host", SOUND, "can.t have this name"),
        ("x y", SOUND, "can.t have this name"),
        ("x-a", SOUND | {"colour": "red"}, "'colour' is not known"),
        ("x-a", SOUND | {"about": ""}, "'about' is missing"),
        ("x-a", {"value": "app-[a-z]+", "about": "a"}, "'source' is missing"),
        ("x-a", SOUND | {"value": "["}, "is not a regular expression"),
        ("x-a", SOUND | {"value": "[a-z]{3,}"}, "fewer than four"),
        ("x-a", SOUND | {"value": "[0-9]*"}, "fewer than four"),
        ("x-a", SOUND | {"value": "[0-9]{3,9}"}, "fewer than four"),
    ],
)
def test_mistake_in_the_data_is_reported(name: str, row: dict[str, str], complaint: str) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        headers_of({"headers": {name: row}})


def test_declared_facts_equal_the_file() -> None:
    row = SOUND | {"value": "[0-9a-z]{4,8}", "as_of": "2026-11-20"}
    (header,) = headers_of({"headers": {"x-a": row}}).values()
    assert header == FixedHeader("[0-9a-z]{4,8}", "what it does", "a page", "2026-11-20")
    load_headers.cache_clear()
    assert list(load_headers(facts_of(ADAPTERS["qianfan"]))) == ["appid"]


def test_vendor_of_a_plug_in_has_its_own_headers() -> None:
    row = 'name = "acme"\n[dialect]\n[headers.x-acme-team]\nvalue = "team-[a-z]{1,20}"\nabout = "who pays"\nsource = "its page"\n'
    assert list(adapter_of(row).headers) == ["x-acme-team"]
