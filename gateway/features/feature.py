"""The face of a feature in a process: what it keeps, and what of it runs.

As in `policy/feature_view.py`, no field has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.execution.concurrency_limiter import ConcurrencyLimiters
from gateway.execution.health import Health
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import Answer
from gateway.model.config_version import ConfigVersion
from gateway.model.kept_metadata import StoredRequest
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.telemetry.metrics import Metrics
from gateway.usage.accounting import Accounting
from providers.chat import ChatRequest
from providers.value import Value


class WatchedChat(Protocol):
    """One answered chat, whose answer a feature reads and on which it acts when the client has it."""

    def captured(self, answer: Answer) -> Answer:
        """Return the answer to send, whose stream the feature may read."""

    def ended(self, request: ChatRequest, body_bytes: int) -> None:
        """Act on the chat, because the client has its answer.

        Args:
            request: The request as the deployment got it.
            body_bytes: The length of its body.
        """


class Watcher(Protocol):
    """Watches the chats of assistants whose compiled value has `is_watched`."""

    def begin(self, config: ConfigVersion, location: Location, record: Record, answer: Answer) -> WatchedChat | None:
        """Decide whether this chat is watched, before its answer is sent."""

    async def aclose(self) -> None:
        """End all that runs."""


class Process(Value, frozen=True):
    """The parts of a process that a feature may use.

    Attributes:
        current: Returns the active config version.
        state_dir: The state directory, or None.
        accounting: Records the cost of calls. None without a state directory.
    """

    current: Callable[[], ConfigVersion]
    transport: Transport
    health: Health
    limiters: ConcurrencyLimiters
    metrics: Metrics
    state_dir: Path | None
    accounting: Accounting | None


@dataclass(frozen=True, slots=True)
class KeptData:
    """The data that a feature keeps of requests in a store of its own in the state directory.

    The functions raise StateError.

    Attributes:
        member: Its name in exports and erasures of an end user.
        noun: Its name in texts.
        export: Returns the data of these requests.
        erase: Removes it. Returns the number of records.
        forget: Removes all of these regions, whose data may not be kept any more.
        elsewhere: The places that an erasure does not reach, with the reason.
    """

    member: str
    noun: str
    export: Callable[[Path, Sequence[StoredRequest]], list[object]]
    erase: Callable[[Path, Sequence[StoredRequest]], int]
    forget: Callable[[Path, frozenset[str]], None]
    elsewhere: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class KeptOfUsers:
    """The data that a feature keeps of end users by their pseudonyms. The functions raise StateError.

    They get the pseudonyms of a person, the client at which the person is asserted (None: everywhere), and the clients
    of the person's usage rows, which the configuration may have no more.

    Attributes:
        member: Its name in exports and erasures of an end user.
        export: Returns the data.
        erase: Removes it. Returns the number of records.
    """

    member: str
    export: Callable[[ConfigVersion, Path, Sequence[str], str | None, frozenset[str]], list[object]]
    erase: Callable[[ConfigVersion, Path, Sequence[str], str | None, frozenset[str]], int]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature in a process.

    Attributes:
        name: The name of its folder.
        kept: The data that it keeps of requests, or None.
        of_users: The data that it keeps of end users, or None.
        watcher: Returns its watcher in a process, or None if it has nothing to do there.
    """

    name: str
    kept: KeptData | None
    of_users: KeptOfUsers | None
    watcher: Callable[[Process], Watcher | None] | None
