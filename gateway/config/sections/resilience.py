"""Attempts, times and breakers: the shape of `resilience`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from gateway.config.scalars import Duration, DurationOrZero
from gateway.config.sections.base import Section
from gateway.config.shares import Share, ShareOrOff

__all__ = ["AttemptsSection", "BreakerSection", "ResilienceSection"]


class AttemptsSection(Section):
    """How often a request may be tried."""

    per_deployment: int = Field(2, ge=1, le=10, description="Attempts on one deployment.")
    total: int = Field(4, ge=1, le=50, description="Attempts of one request over all deployments.")


class BreakerSection(Section):
    """When a deployment that keeps failing is left alone for a while."""

    failures: int = Field(5, ge=1, le=1000, description="Failures in a row that open it.")
    rate: Share = Field("50%", description="The share of failed calls in the window that opens it.")
    window: Duration = Field("30s", description="How far back calls count for the rate.")
    samples: int = Field(20, ge=1, le=100_000, description="The calls that the window must have for a rate.")
    open: Duration = Field(
        "10s", description="For how long it is open at first; twice as long each time a probe fails, up to 16 times."
    )


def _off_is_none(value: object) -> object:
    """`off`, as no section at all."""
    if value == "off":
        return None
    if isinstance(value, dict | BreakerSection):
        return value
    message = {"message": "must be a mapping of its keys, or the word off", "hint": "write `off`, or {failures: 5}"}
    raise PydanticCustomError("config", "{message}", message)


_BreakerOrOff = Annotated[
    BreakerSection | None, BeforeValidator(_off_is_none, json_schema_input_type=BreakerSection | Literal["off"])
]


class ResilienceSection(Section):
    """Bounds of one request's journey."""

    attempts: AttemptsSection = Field(AttemptsSection(), description="How often a request may be tried.")
    connect: Duration = Field("5s", description="To open a connection.")
    first_token: Duration = Field("10s", description="To the first real event of an attempt, where a next step exists.")
    commit: Duration = Field("55s", description="To the first real event, over all attempts.")
    idle: Duration = Field("30s", description="Between two events of a stream.")
    total: Duration = Field("600s", description="The whole request.")
    failover_after: DurationOrZero = Field(
        "2s", description="The longest wait that a provider may ask for before the next step is taken instead."
    )
    keep_alive: DurationOrZero = Field(
        "15s",
        description="The longest silence of a stream that has begun, before the client gets a comment line, so that "
        "nothing between the two closes the connection. 0s sends none.",
    )
    breaker: _BreakerOrOff = Field(
        BreakerSection(), description="When a deployment that keeps failing is left alone for a while; `off` for never."
    )
    retry_budget: ShareOrOff = Field(
        "20%",
        description="The share of recent requests that may be retried on the deployment that failed, and ten in ten "
        "seconds besides; `off` for no limit. Going to the next step is always allowed.",
    )
