"""What outlives a request: the shape of `receipts`."""

from __future__ import annotations

from pydantic import Field

from gateway.config.scalars import Age
from gateway.config.sections.base import Section

__all__ = ["ReceiptsSection"]


class ReceiptsSection(Section):
    """The receipts of requests, which are kept where there is a GATEWAY_STATE_DIR."""

    keep: Age = Field("30d", description="For how long each is kept, in hours or days.")
