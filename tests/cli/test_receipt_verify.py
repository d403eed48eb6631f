"""`gateway receipt verify` on files that somebody has changed: a receipt counts as it was signed, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.assembly.receipts import KIND
from gateway.signing import Signer, new_key
from tests.cli.conftest import Command

RECEIPT = {"version": 1, "id": "req_1", "region": "eu", "status": 200, "tried": [{"deployment": "a"}]}
NOT_SIGNED = "what it shows is not what was signed"
TWICE = "is no JSON whose names are each there once"


@pytest.fixture
def signed() -> tuple[str, str]:
    """A receipt as the gateway gives it, and the key."""
    pem, public = new_key()
    path = Path("key.pem")
    path.write_bytes(pem)
    path.chmod(0o600)
    shown = {"receipt": RECEIPT, "jws": Signer.read(path).sign(KIND, RECEIPT), "key": public.text}
    return json.dumps(shown), public.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text, None),
        (lambda text: json.dumps(json.loads(text), indent=4, sort_keys=True), None),
        (lambda text: text.replace('"eu"', '"us"'), NOT_SIGNED),
        (lambda text: text.replace('"version": 1', '"version": true'), NOT_SIGNED),
        (lambda text: text.replace("200", "200.0"), NOT_SIGNED),
        (lambda text: text.replace('"key": "ed25519:', '"key": "ed25519:x'), NOT_SIGNED),
        (lambda text: text.replace('"region": "eu"', '"region": "us", "region": "eu"'), TWICE),
        (lambda text: text.replace('{"receipt"', '{"receipt": {"region": "us"}, "receipt"'), TWICE),
        (lambda text: text.replace('{"deployment"', '{"deployment": "b", "deployment"'), TWICE),
    ],
)
def test_what_a_person_reads_in_the_file_is_what_was_signed(
    gateway: Command, signed: tuple[str, str], change: Callable[[str], str], said: str | None
) -> None:
    text, key = signed
    Path("receipt.json").write_text(change(text))
    done = gateway("receipt", "verify", "receipt.json", "--key", key)
    assert (done.status == 0) == (said is None), done.err
    assert said is None or said in done.err
    assert said is not None or json.loads(done.out) == RECEIPT
