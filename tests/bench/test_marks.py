"""The bench of signed marks measures the mark that answers get, whole and in pieces."""

from __future__ import annotations

import json

from bench.marks import least_us, streamed, whole
from gateway.features.marks.policy import MarkRules, MarkSigner
from providers.auth import Secret
from tests.kit.doc_pages import ROOT


def test_both_ways_give_the_same_mark_and_are_measured() -> None:
    vectors = json.loads((ROOT / "tests/fixtures/marks/vectors.json").read_text("utf-8"))
    signer = MarkSigner(MarkRules(vectors["issuer"], "", (), Secret(vectors["private_key"])), lambda: 1.0)
    assert len(whole(signer)) == 1
    assert whole(signer) == streamed(signer)
    assert least_us(whole, rounds=1, calls=2) > 0
