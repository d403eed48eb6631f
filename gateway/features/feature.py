"""The face of a feature in a process: what it keeps, and what of it runs.

No field has a default, so that a feature states what it has not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gateway.execution.concurrency_limiter import ConcurrencyLimiters
from gateway.execution.exchange import Exchange
from gateway.execution.health import Health
from gateway.execution.judging import PassedTexts
from gateway.execution.run import PlanExecutor
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import Answer
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.kept_metadata import StoredRequest
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.policy.doors import PublicPath
from gateway.telemetry.metrics import Metrics
from gateway.usage.gate import UsageGate
from providers.chat import ChatRequest
from providers.value import Value


class WatchedChat(Protocol):
    """One answered chat, whose answer a feature reads and on which it acts when the client has it."""

    def captured(self, answer: Answer) -> Answer:
        """Return the answer to send, whose stream the feature may read."""

    def ended(self, request: ChatRequest, body_bytes: int) -> None:
        """Act on the chat, as the deployment got it, because the client has its answer."""


class Watcher(Protocol):
    """Watches the chats of routes that have parts."""

    def begin(self, config: ConfigVersion, location: Location, record: Record, answer: Answer) -> WatchedChat | None:
        """Decide whether this chat is watched, before its answer is sent."""

    async def aclose(self) -> None:
        """End all that runs."""


class RegionGate(Protocol):
    """Judges, before the decision, what a part of a region asks of a request, and may wait for it."""

    @property
    def part(self) -> type:
        """The type of the part."""

    def start(self) -> None:
        """Begin what runs in the background."""

    async def before_decision(self, exchange: Exchange, region: Region) -> None:
        """Judge a request. Raises Refused or CallRefused if it is not answered, or not yet.

        Under another version of the configuration, the request passes the gate again.
        """

    def move_clock(self, ahead_s: int) -> None:
        """Count as if it were so many seconds later, in a demo."""

    async def aclose(self) -> None:
        """End all that runs."""


class Process(Value, frozen=True):
    """The parts of a process that a feature may use."""

    current: Callable[[], ConfigVersion]
    """Returns the active config version."""
    transport: Transport
    health: Health
    limiters: ConcurrencyLimiters
    metrics: Metrics
    state_dir: Path | None
    executor: PlanExecutor
    """Executes plans, with the accounting of calls if there is a state directory."""
    passed: PassedTexts
    gate: UsageGate | None
    """The gate of budgets, which also keeps digests of texts; None without a state directory."""
    user_key: bytes
    """Makes the pseudonyms of users, if the configuration has no key for them."""


class KeptData(Value, frozen=True):
    """The data that a feature keeps of requests in a store of its own in the state directory.

    The functions raise StateError.
    """

    member: str
    """Its name in exports and erasures of an end user."""
    noun: str
    export: Callable[[Path, Sequence[StoredRequest]], list[object]]
    erase: Callable[[Path, Sequence[StoredRequest]], int]
    """Removes it. Returns the number of records."""
    forget: Callable[[Path, frozenset[str]], None]
    """Removes all of these regions, whose data may not be kept any more."""
    elsewhere: tuple[tuple[str, str], ...]
    """The places that an erasure does not reach, with the reason."""


class KeptOfUsers(Value, frozen=True):
    """The data that a feature keeps of end users by their pseudonyms. The functions raise StateError.

    They get the pseudonyms of a person, the client at which the person is asserted (None: everywhere), and the clients
    of the person's usage rows, which the configuration may have no more. The member is its name in exports and
    erasures; an erasure returns the number of records.
    """

    member: str
    export: Callable[[ConfigVersion, Path, Sequence[str], str | None, frozenset[str]], list[object]]
    erase: Callable[[ConfigVersion, Path, Sequence[str], str | None, frozenset[str]], int]


class Feature(Value, frozen=True):
    """One feature in a process: the data that it keeps of end users, and what returns its gate and its watcher.

    Each is None if it has none. `paths` are those that it adds to the public listener.
    """

    name: str
    kept: KeptData | None
    of_users: KeptOfUsers | None
    gate: Callable[[Process], RegionGate] | None
    watcher: Callable[[Process], Watcher | None] | None
    paths: tuple[PublicPath, ...]
