"""The receipt store and the signing key of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.config_version import ConfigVersion
from gateway.model.record import Record
from gateway.operator_errors import CommandError, StateError
from gateway.telemetry.log import logger
from providers.value import Value

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.signing import Signer


class ReceiptSettings(Value, frozen=True):
    """Where receipts are stored, and the key that signs them, if any: its newer version, then its former one."""

    directory: Path
    signers: tuple[Signer, ...] = ()


def read_receipt_settings(state_dir: Path | None, receipt_key: Path | None) -> ReceiptSettings | None:
    """Return the receipt storage of these settings, or None without a state directory. Raises KeyUnusable."""
    if state_dir is None:
        return None
    if receipt_key is None:
        return ReceiptSettings(state_dir)
    from gateway.signing import Signer  # loads a large library that is not needed without a key

    return ReceiptSettings(state_dir, Signer.read_versions(receipt_key))


def check_receipts(settings: Settings) -> None:
    """Prepare the receipts, and check the key that signs them. Raises CommandError if the key is unusable."""
    if settings.state_dir is None:
        if settings.receipt_key is not None:
            logger().warning("receipts", detail="GATEWAY_RECEIPT_KEY has no effect: GATEWAY_STATE_DIR is not set")
        return
    from gateway.signing import KeyUnusable
    from gateway.state.receipts import prepare

    try:
        prepare(settings.state_dir)
        read_receipt_settings(settings.state_dir, settings.receipt_key)
    except KeyUnusable as error:
        raise CommandError(f"GATEWAY_RECEIPT_KEY: {error}") from None
    except StateError as error:
        raise CommandError(str(error)) from None


class ReceiptService:
    """Stores a receipt for each record, and returns receipts on request. Raises StateError.

    `stored` is the store of this process.
    """

    def __init__(self, settings: ReceiptSettings, current: Callable[[], ConfigVersion]) -> None:
        from gateway.state.receipts import Receipts

        self._signer = next(iter(settings.signers), None)
        signing_keys = [signer.derived_key(b"seals of receipts 1") for signer in settings.signers]
        self.stored = Receipts(
            settings.directory, current, lambda it: logger().error("receipts", detail=it), signing_keys=signing_keys
        )
        self.take: Callable[[Record], None] = self.stored.take

    async def find(self, request_id: str, client: str | None) -> dict[str, object] | None:
        """Return a receipt with its signature, or None. Raises StateError, ReceiptDamaged.

        A receipt that no version of the key has sealed when it was stored is not signed. The newer version signs.
        """
        found = await asyncio.to_thread(self.stored.find, request_id, client)
        if found is None:
            return None
        receipt, may_sign = found
        if self._signer is None or not may_sign:
            return {"receipt": receipt, "jws": None, "key": None}
        from gateway.signing import RECEIPT_KIND

        return {"receipt": receipt, "jws": self._signer.sign(RECEIPT_KIND, receipt), "key": self._signer.public.text}

    async def aclose(self) -> None:
        """Write the receipts that are waiting."""
        await asyncio.to_thread(self.stored.close)
