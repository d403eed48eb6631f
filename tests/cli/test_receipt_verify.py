"""`gateway receipt verify` rejects files that were changed after signing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.signing import RECEIPT_KIND, Signer, new_key
from tests.cli.conftest import Command

RECEIPT = {"version": 1, "id": "req_1", "region": "eu", "status": 200, "tried": [{"deployment": "a"}]}
NOT_SIGNED = "it was changed after it was signed"
TWICE = "is not valid JSON, or has a duplicate key"


@pytest.fixture
def signed() -> tuple[str, str]:
    """Return a receipt as the gateway returns it, and the key."""
    pem, public = new_key()
    path = Path("key.pem")
    path.write_bytes(pem)
    path.chmod(0o600)
    shown = {"receipt": RECEIPT, "jws": Signer.read(path).sign(RECEIPT_KIND, RECEIPT), "key": public.text}
    return json.dumps(shown), public.text


@pytest.mark.parametrize(
    ("change", "message"),
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
def test_receipt_verify_rejects_a_file_that_differs_from_the_signed_receipt(
    gateway: Command, signed: tuple[str, str], change: Callable[[str], str], message: str | None
) -> None:
    text, key = signed
    Path("receipt.json").write_text(change(text))
    done = gateway("receipt", "verify", "receipt.json", "--key", key)
    assert (done.status == 0) == (message is None), done.err
    assert message is None or message in done.err
    assert message is not None or json.loads(done.out) == RECEIPT
