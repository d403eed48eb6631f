"""The fuzz targets over their seeds and small mutations of them, without coverage. `make fuzz` runs them with atheris."""

from __future__ import annotations

import importlib
import random
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest

from providers.registry import load_registry

_MUTATIONS = 200
_PARSERS = ("sse", "event_stream", "headers", "requests", "redaction", "converse", "compatible")


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Return the module of the targets. It is imported without atheris, which has wheels for Linux only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "atheris", SimpleNamespace(instrument_imports=lambda **_: nullcontext()))
        return importlib.import_module("tests.fuzz.fuzz")


def mutated(seed: bytes, draw: random.Random) -> bytes:
    """Return the seed with one to four bytes changed, added or removed, or truncated."""
    data = bytearray(seed)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(4):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                data[at:at] = draw.randbytes(draw.randint(1, 4))
            case 2:
                del data[at : at + draw.randint(1, 8)]
            case _:
                data[at : at + 1] = draw.choice(
                    [b'"', b"{", b"}", b"[", b"]", b"\n", b"\r\n\r\n", b"null", b"\0", b"-1"]
                )
    return bytes(data[: draw.randint(0, len(data))] if draw.random() < 0.1 else data)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_PARSERS, *sorted(load_registry().adapters)])
def test_target_holds_for_its_seeds_and_small_mutations(fuzz: ModuleType, name: str) -> None:
    target, seeds = fuzz.target_named(name)
    draw = random.Random(name)
    assert seeds
    for seed in seeds:
        target(seed)
    for _ in range(_MUTATIONS):
        target(mutated(draw.choice(seeds), draw))
