"""Test that a compatible vendor is confirmed by recordings or called unconfirmed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cli.provider_pages import providers_page
from providers.compatible import CompatibleAdapter, adapter_of, simulator_of
from providers.conformance.recordings import RecordedVendor
from providers.conformance.selection import Selection
from providers.conformance.subject import subjects_of
from providers.conformance.test_wire import test_compatible_vendor_is_confirmed_by_recordings as check
from providers.registry import load_registry

_TOML = 'name = "coconut"\n[dialect]\n{unconfirmed}\n[simulator.errors]\nquota = ["insufficient_quota", ""]\n'
_ANSWER = '{"id":"r","model":"m","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}'


def vendor(folder: Path, *origins: dict[str, str], unconfirmed: bool = False) -> RecordedVendor:
    text = _TOML.format(unconfirmed="unconfirmed = true" if unconfirmed else "")
    wire = folder / "coconut"
    wire.mkdir(exist_ok=True)
    for number, origin in enumerate(origins):
        (wire / f"case{number}.response.json").write_text(_ANSWER)
        expected = {"about": "a", "date": "2026-11-20", "model": "m", **origin}
        (wire / f"case{number}.expect.json").write_text(json.dumps(expected))
    selection = Selection(subjects_of(adapter_of(text), simulator_of(text)), folder)
    (one,) = selection.parameters(frozenset({"recorded_vendor"}))["recorded_vendor"]
    assert isinstance(one, RecordedVendor)
    return one


def test_new_compatible_vendor_needs_two_recordings_of_the_vendor(tmp_path: Path) -> None:
    made_up = {"source": "made up"}
    real = {"source": "our own account", "taken_from": "call"}
    page = {"source": "docs.coconut.example/api"}
    thread = {"source": "palm/trees, issue 17"}
    for origins in ((), (real,), (real, made_up)):
        with pytest.raises(
            AssertionError, match=f"{len([*filter(real.__eq__, origins)])} recorded answers .* 2 are needed"
        ):
            check(vendor(tmp_path, *origins))
    for origins in ((real, page), (page, thread)):
        check(vendor(tmp_path, *origins))


def test_vendor_without_recordings_is_called_unconfirmed_on_its_page(tmp_path: Path) -> None:
    one = vendor(tmp_path, unconfirmed=True)
    check(one)
    adapter = one.subject.adapter
    assert isinstance(adapter, CompatibleAdapter)
    assert "| `coconut` | `unconfirmed` |" in providers_page({"coconut": adapter})
    confirmed = replace(adapter, dialect=replace(adapter.dialect, unconfirmed=False))
    assert "| `coconut` | `unconfirmed` |" not in providers_page({"coconut": confirmed})


def test_no_more_vendors_of_this_repository_are_unconfirmed() -> None:
    """These were there before recordings were asked for, but `tei`: no package has its server, so its form is from its source.

    The list may only get shorter.
    """
    before = frozenset(
        "ark azure dashscope-compatible deepseek huawei llamacpp minimax mistral moonshot ollama "
        "qianfan siliconflow tei tokenhub vllm zhipu".split()
    )
    compatible = {name: one for name, one in load_registry().adapters.items() if isinstance(one, CompatibleAdapter)}
    assert {name for name, one in compatible.items() if one.unconfirmed} <= before
