"""One request of a client as values: who asks, what is asked, what is decided step by step, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from gateway.execution.deadline import Deadline
from gateway.execution.failure_observations import Asker
from gateway.execution.judging import Verdicts
from gateway.model.assistant import Assistant
from gateway.model.caller import Caller
from gateway.model.config_version import ConfigVersion
from gateway.model.consent import ConsentStatement
from gateway.model.location import ClaimReport, Location
from gateway.model.record import Destinations, Record
from gateway.model.region_text import Locale
from gateway.model.served import ServedRequest
from gateway.model.wrapper import Wrapper
from gateway.policy.labels import Labelling, Notice
from gateway.policy.reasoning_seal import ReasoningSeal
from gateway.usage.accounting import RequestUsage
from providers.chat import Message

Said = tuple[type[Message], str]
"""A text with the role of its message."""


class Judged(msgspec.Struct):
    """The verdicts on what a client sent so far, by texts. See `Judging.verdicts`.

    Categories of a text of a role are `excepted` from moderation because help is or was given for it.
    """

    verdicts: Verdicts = msgspec.field(default_factory=dict)
    excepted: dict[Said, frozenset[str]] = msgspec.field(default_factory=dict)


class AnswerStyle(msgspec.Struct, frozen=True):
    """How an answer is shown to its client. It outlives the request, which a long stream must not hold."""

    include_usage: bool = False
    choices: int = 1
    """How many choices were asked for."""
    labelling: Labelling | None = None
    """The labels that the region requires; None if there are none."""
    shown_model: str | None = None
    """The name to show in place of the model's; None to show the model's."""
    keep_alive_s: float = 0.0
    """The longest silence in a stream before a comment is sent; 0 for no comments."""
    seal: ReasoningSeal | None = None
    """Seals the reasoning state of a stream's tool calls; None if there can be no calls, or they are sealed."""


class TimedChat(Protocol):
    """The time of a chat whose region counts the time of its users.

    `notice` is how the label with `repeat` is due, apart from the first answer of a conversation.
    """

    notice: Notice | None
    is_noticed: bool

    def leave_no_trace(self) -> None:
        """Note that it is answered in place of a refusal: its time does not count."""

    async def begin(self) -> None:
        """Note that its answer has begun."""

    def show_notice(self, record: Record, *, is_repeated: bool) -> None:
        """Note that the answer shows the label with `repeat`."""

    def extend_soon(self) -> None:
        """Extend the time of its user to now, without waiting."""

    def end_now(self) -> bool:
        """Note that its answer is complete, if that needs no wait. Return whether it is noted."""

    async def end(self) -> None:
        """Note that its answer is complete, before the last byte is sent."""

    def broke_off(self) -> None:
        """Note that its answer ends now, without waiting. An answer that has not begun leaves no trace."""


class ClientChanged(Exception):
    """The key of a running request belongs to another client since a reload."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Exchange:
    """One request, filled in from top to bottom by the endpoint and `ChatService`, in the order of these attributes."""

    record: Record
    """The facts of the request for logs, metrics and receipts."""
    config: ConfigVersion = field(init=False)
    caller: Caller = field(init=False)
    """The sender, as this version reads the headers."""
    location: Location = field(init=False)
    """Where the caller is. `claim`: its signed claim, if there is one."""
    claim: ClaimReport | None = field(init=False)
    deadline: Deadline = field(init=False)
    request: ServedRequest = field(init=False)
    """The request as it was sent. None before it is decoded, and when nothing needs it any more."""
    assistant: Assistant = field(init=False)
    """The requested assistant, as the use and the intent of the request see it."""
    reveal_model: bool = field(default=True, init=False)
    """It reveals its models. If it does not, no error quotes a provider's words, which usually name one."""
    locale: Locale | None = field(default=None, init=False)
    """The region's labels, profile and refusals in the caller's language; None if the region has none."""
    user: str | None = field(init=False)
    """The end user that the headers name."""
    consent: ConsentStatement = field(init=False)
    """The consent that the headers state."""
    prefer: str | None = field(init=False)
    decided_s: float = field(init=False)
    """When the plan was decided, in Unix time. The prices of that time apply."""
    asker: Asker = field(init=False)
    """For whom a failure of the request shows something."""
    within: Destinations | None = field(default=None, init=False)
    """Where the request may go by a former version under which it was sent, or None if it was not sent."""
    wrapped_before: Mapping[str, Wrapper] = field(default_factory=dict, init=False)
    """The wrapper by deployment under which a former version sent it, or may have."""
    style: AnswerStyle = field(init=False)
    judged: Judged | None = field(default=None, init=False)
    """The verdicts for a crisis, or None if no text was judged for one."""
    account: RequestUsage | None = field(default=None, init=False)
    """The account of the calls so far, or None before the first."""
    turn: Any = field(default=None, init=False)
    """The chat that waits for a provider, for `ChatService.foresee`. None while none does."""
    is_wide: bool = field(default=False, init=False)
    """The request is so large that it is read, measured and written in the thread for large work."""
    chat_time: TimedChat | None = field(default=None, init=False)
    """The time of its user, if the region counts it."""

    async def read_caller(self, config: ConfigVersion) -> Caller:
        """Return the caller as a config version reads it that has become active since the request began.

        Raises the error of the API.
        """
        raise NotImplementedError
