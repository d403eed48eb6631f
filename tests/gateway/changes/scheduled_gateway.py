"""A config with a schedule, and the counts of a gateway that serves it."""

from typing import Any

from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from gateway.model.schedule import ScheduleProgress
from gateway.telemetry.metrics import Metrics
from providers.failures import FailureKind
from tests.kit.configs import BASE, table_of
from tests.kit.request_records import attempt, failed_attempt, record_with


def scheduled(
    steps: str = "5% for 10s, 25% for 10s, 100%",
    *,
    route: str = "{gemini: 90, chatgpt-us: 10}, qwen-intl",
    model: str = "gpt-6-luna",
    **more: object,
) -> ConfigVersion:
    """Return a version with a schedule of one candidate, `chatgpt-us`."""
    schedule = {"candidate": "chatgpt-us", "steps": steps, "stop_on": {"min_requests": 50}}
    return table_of(
        BASE.merge(
            f"assistants: {{assistant: {{routes: {{default: [{route}]}}}}}}",
            {"assistants": {"assistant": {"schedules": {"default": schedule}}}},
            {"deployments": {"chatgpt-us": {"model": model}}},
            more,
        )
    )


class ScheduledGateway:
    """A gateway with schedules: its active version, and its counts.

    Attributes:
        unconfirmed: The workers that do not confirm a change.
    """

    scheduler: Any
    unconfirmed: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.metrics = Metrics()

    def change(self, config: ConfigVersion, *, is_pinned: bool = False) -> None:
        self.written, self.is_pinned = config, is_pinned
        self.config = self.scheduler.stage(config, is_pinned=is_pinned)

    async def restage(self) -> tuple[int, ...]:
        self.change(self.written, is_pinned=self.is_pinned)
        return self.unconfirmed

    async def counts(self) -> list[bytes]:
        return [self.metrics.snapshot()]

    def serve(self, ok: int = 0, failed: int = 0, side: str = "chatgpt-us") -> None:
        location = Location(self.written.regions["default"], "JP", "edge_header", ())
        for number in range(ok + failed):
            attempts = [attempt(side)] if number < ok else [failed_attempt(FailureKind.UNAVAILABLE, side)]
            record = record_with("r", 0, "t", location=location, assistant="assistant", attempts=attempts, variant=side)
            self.metrics.observe(record)

    @property
    def share(self) -> float:
        first: Any = self.config.assistants["assistant"].routes["default"][0]
        return round(first.shares["chatgpt-us"], 6)

    @property
    def progress(self) -> ScheduleProgress:
        [status] = self.scheduler.status()
        return status.progress
