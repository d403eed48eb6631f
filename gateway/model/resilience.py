"""The rules of the attempts of one request: how many, their timeouts, breakers, and the retry budget."""

from __future__ import annotations

from typing import Annotated

from gateway.model.section import OrOff, PlainSection, key, section
from gateway.model.units import Seconds, SecondsOrZero, Share, ShareOrOff

DEFAULT_MAX_OPEN = 2
"""The default of `max_open` in the section `breaker`, as a multiple of `open`."""


@section
class Attempts(PlainSection):
    """Limits of the attempts of one request."""

    per_deployment: int = key("Attempts on one deployment.", default=2, ge=1, le=10)
    total: int = key("Attempts of one request over all deployments.", default=4, ge=1, le=50)


@section
class BreakerRule(PlainSection):
    """When the breaker of a failing deployment opens, so that the deployment is skipped for some time."""

    failures: int = key("Consecutive failures that open the breaker.", default=5, ge=1, le=1000)
    rate: Share = key("The share of failed calls in the window that opens the breaker.", default=0.5, written="50%")
    window_s: Seconds = key("The period whose calls count for the rate.", default=30.0, name="window", written="30s")
    samples: int = key("Minimum number of calls in the window for the rate to count.", default=20, ge=1, le=100_000)
    open_s: Seconds = key(
        "How long the breaker stays open first. Each failed probe doubles the time, up to `max_open`.",
        default=10.0,
        name="open",
        written="10s",
    )
    max_open_s: Seconds | None = key(
        "The longest time that the breaker stays open, also after many failed probes. A provider that works again "
        "is used after this time at the latest. Default: twice `open`.",
        default=None,
        name="max_open",
    )

    @property
    def longest_open_s(self) -> float:
        """The longest time that the breaker stays open."""
        return self.max_open_s if self.max_open_s is not None else DEFAULT_MAX_OPEN * self.open_s


@section
class Resilience(PlainSection):
    """Attempts and timeouts of one request."""

    attempts: Attempts = key("Limits of the attempts of one request.", default=Attempts())
    connect_s: Seconds = key("Timeout to open a connection.", default=5.0, name="connect", written="5s")
    first_token_s: Seconds = key(
        "Timeout for the first token of an attempt if there is a next step.",
        default=10.0,
        name="first_token",
        written="10s",
    )
    commit_s: Seconds = key(
        "Timeout for the first token over all attempts. The last step, once asked, is waited for until `total`.",
        default=55.0,
        name="commit",
        written="55s",
    )
    idle_s: Seconds = key("Timeout between two events of a stream.", default=120.0, name="idle", written="2m")
    total_s: Seconds = key("Timeout for the whole request.", default=600.0, name="total", written="600s")
    failover_after_s: SecondsOrZero = key(
        "The longest `retry-after` of a provider to wait for. If it is longer, the next step is tried.",
        default=2.0,
        name="failover_after",
        written="2s",
    )
    keep_alive_s: SecondsOrZero = key(
        "After this silence of a stream, the client receives a comment line, so that no proxy closes the "
        "connection: from the first event on, or earlier if only one step can answer. 0s sends none.",
        default=10.0,
        name="keep_alive",
        written="10s",
    )
    breaker: Annotated[BreakerRule | None, OrOff()] = key(
        "When a failing deployment is skipped for some time; `off` for never.", default=BreakerRule()
    )
    retry_budget: ShareOrOff = key(
        "The share of recent requests that may be retried on the deployment that failed, in addition to ten "
        "retries in ten seconds; `off` for no limit. Failover to the next step is always allowed.",
        default=0.2,
        written="20%",
    )


DEFAULT_RESILIENCE = Resilience()
