"""The text of a request in the log, for a region whose `log_prompts` says so: the only line that has any of it."""

from __future__ import annotations

from gateway.model.record import Record
from gateway.telemetry.log import logger

__all__ = ["log_prompt"]


def log_prompt(record: Record, text: str) -> None:
    """A line of its own; the request's line, which has the same id, tells what became of it."""
    region = record.location.region if record.location is not None else None
    logger().info(
        "prompt", request_id=record.request_id, region=region.name if region is not None else None, prompt=text
    )
