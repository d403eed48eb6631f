"""The rules of the attempts of one request: how many, their timeouts, breakers, and the retry budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gateway.model.section import OrOff, PlainSection, key
from gateway.model.units import Seconds, SecondsOrZero, Share, ShareOrOff

DEFAULT_MAX_OPEN = 2
"""The default of `max_open` in the section `breaker`, as a multiple of `open`."""


@dataclass(frozen=True, slots=True)
class Attempts(PlainSection):
    """Limits of the attempts of one request."""

    per_deployment: int = field(default=2, metadata=key("Attempts on one deployment.", ge=1, le=10))
    total: int = field(default=4, metadata=key("Attempts of one request over all deployments.", ge=1, le=50))


@dataclass(frozen=True, slots=True)
class BreakerRule(PlainSection):
    """When the breaker of a failing deployment opens, so that the deployment is skipped for some time."""

    failures: int = field(default=5, metadata=key("Consecutive failures that open the breaker.", ge=1, le=1000))
    rate: Share = field(
        default=0.5, metadata=key("The share of failed calls in the window that opens the breaker.", default="50%")
    )
    window_s: Seconds = field(
        default=30.0, metadata=key("The period whose calls count for the rate.", name="window", default="30s")
    )
    samples: int = field(
        default=20, metadata=key("Minimum number of calls in the window for the rate to count.", ge=1, le=100_000)
    )
    open_s: Seconds = field(
        default=10.0,
        metadata=key(
            "How long the breaker stays open first. Each failed probe doubles the time, up to `max_open`.",
            name="open",
            default="10s",
        ),
    )
    max_open_s: Seconds | None = field(
        default=None,
        metadata=key(
            "The longest time that the breaker stays open, also after many failed probes. A provider that works again "
            "is used after this time at the latest. Default: twice `open`.",
            name="max_open",
        ),
    )

    @property
    def longest_open_s(self) -> float:
        """The longest time that the breaker stays open."""
        return self.max_open_s if self.max_open_s is not None else DEFAULT_MAX_OPEN * self.open_s


@dataclass(frozen=True, slots=True)
class Resilience(PlainSection):
    """Attempts and timeouts of one request."""

    attempts: Attempts = field(default=Attempts(), metadata=key("Limits of the attempts of one request."))
    connect_s: Seconds = field(default=5.0, metadata=key("Timeout to open a connection.", name="connect", default="5s"))
    first_token_s: Seconds = field(
        default=10.0,
        metadata=key(
            "Timeout for the first token of an attempt if there is a next step.", name="first_token", default="10s"
        ),
    )
    commit_s: Seconds = field(
        default=55.0,
        metadata=key(
            "Timeout for the first token over all attempts. The last step, once asked, is waited for until `total`.",
            name="commit",
            default="55s",
        ),
    )
    idle_s: Seconds = field(
        default=120.0, metadata=key("Timeout between two events of a stream.", name="idle", default="2m")
    )
    total_s: Seconds = field(
        default=600.0, metadata=key("Timeout for the whole request.", name="total", default="600s")
    )
    failover_after_s: SecondsOrZero = field(
        default=2.0,
        metadata=key(
            "The longest `retry-after` of a provider to wait for. If it is longer, the next step is tried.",
            name="failover_after",
            default="2s",
        ),
    )
    keep_alive_s: SecondsOrZero = field(
        default=10.0,
        metadata=key(
            "After this silence of a stream, the client receives a comment line, so that no proxy closes the "
            "connection: from the first event on, or earlier if only one step can answer. 0s sends none.",
            name="keep_alive",
            default="10s",
        ),
    )
    breaker: Annotated[BreakerRule | None, OrOff()] = field(
        default=BreakerRule(),
        metadata=key("When a failing deployment is skipped for some time; `off` for never."),
    )
    retry_budget: ShareOrOff = field(
        default=0.2,
        metadata=key(
            "The share of recent requests that may be retried on the deployment that failed, in addition to ten "
            "retries in ten seconds; `off` for no limit. Failover to the next step is always allowed.",
            default="20%",
        ),
    )


DEFAULT_RESILIENCE = Resilience()
