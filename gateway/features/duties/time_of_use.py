"""Count the time of the users of this process, and judge their chats by it.

Theory of operation. `TimeOfUse` belongs to a process, `ChatTime` to a chat:

    admit     the user's record is read, and the limits of the band are judged: a chat with a `refusal` is refused
    (wait)    a chat that is refused or fails leaves no trace
    begin     the answer has begun: the record is extended from the arrival of the chat to now
    (stream)  one task for all chats extends the records of those that run, once a minute
    end       the record is extended to the last byte, before this byte is sent
    (later)   the store writes what it has only in memory, and a chat that it could not keep is kept when it answers

A record is extended by what a chat adds to the present record, which other chats may have changed meanwhile. So chats
at the same time, of several processes and instances, make one session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.execution.exchange import Exchange
from gateway.features.duties import policy
from gateway.features.duties.model import KEPT_MS, UseKey, UseNote, UseRecord, UseRules
from gateway.model.age import AgeBand
from gateway.model.caller import Caller
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.decision import Refused
from gateway.model.location import ClaimReport, Location
from gateway.model.record import Record
from gateway.model.refusal_reason import RefusalReason
from gateway.operator_errors import StateError
from gateway.policy.client_users import OF_ISSUER, former_names
from gateway.policy.labels import Notice
from gateway.telemetry.log import logger
from gateway.usage.accounting import end_user_pseudonym
from gateway.usage.refusals import CallRefused
from providers.chat import ChatRequest
from providers.value import replace

if TYPE_CHECKING:
    # SQLite is imported where there is a file.
    from gateway.features.duties.state import UseStore

EXTENDED_EACH_S = 50.0
"""A killed process loses less than a minute of a chat."""

WRITTEN_EACH_S = 0.5
MOST_UNKEPT = 10_000
"""The most chats of a process that are kept again when the store answers."""

_SILENT_MS = 3_600_000
"""Records of users who are silent for so long leave the memory."""

_UPLOAD_S = 1.0
_NOTED_KINDS = {"session": "use_session", "day": "use_day", "user_unknown": "use_unknown"}


class UseUnavailable(Exception):
    """The time of users cannot be read or kept now."""


class UseTimes(Protocol):
    """Where the time of users is kept. Methods raise UseUnavailable."""

    @property
    def has_records_here(self) -> bool:
        """Whether records are on this machine. `tidy` deletes them when their time is over."""

    async def open(self) -> None:
        """Make it ready, which `arrive` does too."""

    async def arrive(self, key: UseKey, rules: UseRules, elapsed_s: float) -> policy.Arrival:
        """Return the time of a user whose chat has arrived so long ago."""

    async def extend(
        self, key: UseKey, now: policy.Arrival, rules: UseRules, *, is_noticed: bool, ago_s: float = 0.0
    ) -> UseRecord | None:
        """Extend the time of a user from the arrival of a chat to a moment so long ago. Return the record, if known."""

    def extend_now(self, key: UseKey, now: policy.Arrival, rules: UseRules, *, is_noticed: bool) -> UseRecord | None:
        """Do the same without waiting. Return None, with nothing done, if the store needs a wait."""

    async def write(self) -> None:
        """Write what is only in memory, if no request has to wait for it."""

    async def tidy(self) -> None:
        """Delete records whose time is over."""


class MemoryStore:
    """The `UseStore` of one process without a state directory, such as a demo. Its records end with it."""

    is_open = True

    def __init__(self) -> None:
        self._records: dict[UseKey, UseRecord] = {}

    @property
    def exists(self) -> bool:
        return bool(self._records)

    def read(self, key: UseKey) -> UseRecord | None:
        return self._records.get(key)

    def change(self, key: UseKey, before: UseRecord | None, after: UseRecord) -> bool:
        if self._records.get(key) != before:
            return False
        self._records[key] = after
        return True

    def open(self) -> None:
        """See `UseStore`."""

    def look(self) -> bool:
        return False

    def write(self) -> None:
        """See `UseStore`."""

    def forget(self, before_ms: int) -> None:
        """See `UseStore`: there is no file."""

    def tidy(self, before_ms: int) -> None:
        for key, record in list(self._records.items()):
            if record.seen_ms < before_ms:
                self._records.pop(key, None)

    def close(self) -> None:
        """See `UseStore`."""


class LocalTimes:
    """The `UseTimes` of a state directory, which all workers of a machine share. The store may raise StateError."""

    def __init__(self, store: UseStore | MemoryStore, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.store = store

    @property
    def has_records_here(self) -> bool:
        return self.store.exists

    async def open(self) -> None:
        """See `UseTimes`. The store may have to wait for another process."""
        with _of_store():
            await asyncio.to_thread(self.store.open)

    async def arrive(self, key: UseKey, rules: UseRules, elapsed_s: float) -> policy.Arrival:
        """See `UseTimes`. An operation takes some microseconds, which is less than a thread would."""
        if not self.store.is_open:
            await self.open()
        try:
            return policy.arrival(self.store.read(key), round((self.clock() - elapsed_s) * 1000), rules)
        except StateError as error:
            raise UseUnavailable(str(error)) from error

    async def extend(
        self, key: UseKey, now: policy.Arrival, rules: UseRules, *, is_noticed: bool, ago_s: float = 0.0
    ) -> UseRecord | None:
        if not self.store.is_open:
            await self.open()
        return self.extend_now(key, now, rules, is_noticed=is_noticed, ago_s=ago_s)

    def extend_now(
        self, key: UseKey, now: policy.Arrival, rules: UseRules, *, is_noticed: bool, ago_s: float = 0.0
    ) -> UseRecord | None:
        """See `UseTimes`. The record of the arrival is most often still the present one."""
        if not self.store.is_open:
            return None
        before: UseRecord | None = now.record
        try:
            while True:
                until_ms = round((self.clock() - ago_s) * 1000)
                after = policy.extended(before, now.at_ms, until_ms, rules, is_noticed=is_noticed)
                if self.store.change(key, before, after):
                    return after
                before = self.store.read(key)
        except StateError as error:
            raise UseUnavailable(str(error)) from error

    async def write(self) -> None:
        with _of_store():
            if self.store.look():
                await asyncio.to_thread(self.store.write)

    async def tidy(self) -> None:
        now_ms = round(self.clock() * 1000)
        self.store.forget(now_ms - _SILENT_MS)
        with _of_store():
            await asyncio.to_thread(self.store.tidy, now_ms - KEPT_MS)


@contextmanager
def _of_store() -> Iterator[None]:
    """Raise UseUnavailable if the store fails in the block."""
    try:
        yield
    except StateError as error:
        raise UseUnavailable(str(error)) from error


class ChatTime(msgspec.Struct, eq=False):
    """The time of one chat."""

    use: TimeOfUse
    """Counts the time of its process."""
    rules: UseRules
    note: UseNote
    """Its part of the log line and the receipt."""
    key: UseKey | None = None
    """Its user, or None: no time is counted."""
    now: policy.Arrival | None = None
    notice: Notice | None = None
    """How the label with `repeat` is due, apart from the first answer of a conversation."""
    is_noticed: bool = False
    """Its answer has shown this label."""
    is_notice_kept: bool = False
    """The record has the time at which it did."""
    has_begun: bool = False
    """Its answer has begun, and has not ended."""
    refusal: Refused | CallRefused | None = None

    def leave_no_trace(self) -> None:
        """Note that it is answered in place of a refusal: its time does not count."""
        self.key, self.note.use_limit = None, None

    async def begin(self) -> None:
        if not self.has_begun and self.key is not None:
            self.has_begun = True
            self.use.running.add(self)
            await self.extend()

    def show_notice(self, record: Record, *, is_repeated: bool) -> None:
        """Note that the answer shows the label with `repeat`."""
        self.is_noticed = True
        record.shown.repeated |= is_repeated
        record.note_duty("notice")
        if self.has_begun:
            self.extend_soon()

    async def extend(self) -> None:
        """Extend the time of its user to now. A failure is logged once."""
        await self.use.extend(self)

    def end_now(self) -> bool:
        """Note that its answer is complete, if that needs no wait. Return whether it is noted."""
        if self.use.extend_now(self):
            self.use.running.discard(self)
            self.has_begun = False
            return True
        return False

    async def end(self) -> None:
        """Note that its answer is complete, before the last byte is sent."""
        self.use.running.discard(self)
        self.has_begun = False
        await self.extend()

    def broke_off(self) -> None:
        """Note that its answer ends now, without waiting. An answer that has not begun leaves no trace."""
        if self.has_begun:
            self.use.later(self.end())

    def extend_soon(self) -> None:
        """Extend the time of its user to now, without waiting."""
        self.use.later(self.extend())


class TimeOfUse:
    """Counts the time of the users of this process. Use it from one event loop.

    The user key makes the pseudonyms, if the configuration has no key for them. `running` are the chats whose answers
    are being sent.
    """

    part = UseRules

    def __init__(self, times: UseTimes, user_key: bytes) -> None:
        self.times = times
        self.running: set[ChatTime] = set()
        self._user_key = user_key
        self._later: set[asyncio.Task[None]] = set()
        self._unkept: dict[ChatTime, float] = {}
        """The chats that the store could not keep, and until when each counts, by the monotonic clock."""
        self._watching: asyncio.Task[None] | None = None
        self._is_lost = False

    async def before_decision(self, exchange: Exchange, region: Region) -> None:
        """See `RegionGate`. Raises Refused, or CallRefused if the time of the user cannot be read."""
        if not isinstance(exchange.request, ChatRequest):
            return
        chat = exchange.chat_time = await self._admit(exchange)
        if chat is not None and chat.refusal is not None:
            raise chat.refusal

    async def _admit(self, exchange: Exchange) -> ChatTime | None:
        """Read the time of a chat's user, and decide by it. Return the time, or None: the region counts none.

        Its `refusal` is set if the user has reached a limit, or has limits and is not known or cannot be read.
        """
        config, location, record, user = exchange.config, exchange.location, exchange.record, exchange.user
        # Its time as another version has judged it.
        known = exchange.chat_time if isinstance(exchange.chat_time, ChatTime) else None
        if record.notes and (former := record.noted(UseNote)) is not None:
            former.use = None
        rules = location.region.parts.of(UseRules) if location.region is not None else None
        if rules is None:
            return None
        self.watch()
        chat = ChatTime(self, rules, known.note if known is not None else UseNote())
        if known is None:
            record.notes += (chat.note,)
        unread: CallRefused | None = None
        key = self._key_of(config, location, exchange.caller, exchange.claim, user) if user is not None else None
        if user is not None and key is not None:
            try:
                chat.key, chat.now = key, await self._arrival(key, rules, record, known)
                if user[0] == OF_ISSUER and (known is None or known.now is None):
                    chat.now = await self._with_former_names(chat.now, config, user, rules, record)
            except UseUnavailable as error:
                # No budget is the cause, so the sentence names none.
                message = f"the time of this user can't be read at the moment, and it is limited here: {error}"
                sentences = config.messages.get(RefusalReason.OUTAGE)
                unread = CallRefused("gate_unavailable", message, 1.0, sentences=sentences)
        _decide(chat, location.age, record, unread)
        return chat

    async def _with_former_names(
        self, now: policy.Arrival, config: ConfigVersion, user: str, rules: UseRules, record: Record
    ) -> policy.Arrival:
        """Return the time of a user, with that which was kept under former names and has not been deleted yet."""
        for name in former_names(config, user):
            former = await self._arrival(UseKey(end_user_pseudonym(config, self._user_key, name)), rules, record, None)
            if former.record is not None:
                kept = former.record if now.record is None else policy.merged(now.record, former.record, rules.gap_ms)
                now = policy.arrival(kept, now.at_ms, rules)
        return now

    async def _arrival(self, key: UseKey, rules: UseRules, record: Record, known: ChatTime | None) -> policy.Arrival:
        if known is not None and known.key == key and known.now is not None:
            return policy.arrival(known.now.record, known.now.at_ms, rules)
        elapsed_s = time.monotonic() - record.started_at
        # Limits are whole seconds. Only an upload takes so long.
        return await self.times.arrive(key, rules, elapsed_s if elapsed_s >= _UPLOAD_S else 0.0)

    def _key_of(
        self, config: ConfigVersion, location: Location, caller: Caller, claim: ClaimReport | None, user: str
    ) -> UseKey | None:
        """Return the key of a user, or None if the user may not be kept here. An asserted user is one of its client."""
        if not location.may_be_kept:
            return None
        client = caller.client
        is_named = claim is not None and bool(claim.subject)
        if client is None or is_named or (client.token is not None and client.token.user is not None):
            asserted_by = ""
        else:
            asserted_by = client.name
        return UseKey(end_user_pseudonym(config, self._user_key, user), asserted_by)

    async def extend(self, chat: ChatTime, until_s: float | None = None) -> None:
        """Extend the time of a chat's user to now, or to an earlier moment of the monotonic clock.

        A failure is logged once, and repaired by `_keep_again`.
        """
        if chat.key is None or chat.now is None:
            self._unkept.pop(chat, None)
            return
        is_new, now_s = chat.is_noticed and not chat.is_notice_kept, time.monotonic()
        until_s = now_s if until_s is None else until_s
        try:
            ago_s = now_s - until_s
            record = await self.times.extend(chat.key, chat.now, chat.rules, is_noticed=is_new, ago_s=ago_s)
        except UseUnavailable as error:
            self._note_unkept(chat, until_s, error)
        else:
            if self._unkept.get(chat, until_s) <= until_s:
                self._unkept.pop(chat, None)
            self._is_lost = False
            # The label counts from the moment when it was shown, so a long answer does not put off the next one.
            chat.is_notice_kept |= is_new
            if record is not None:
                chat.now = replace(chat.now, record=record)

    def extend_now(self, chat: ChatTime) -> bool:
        """Do the same without waiting, for the last time. Return whether it is done: not if the store needs a wait."""
        if chat.key is None or chat.now is None:
            return True
        is_new = chat.is_noticed and not chat.is_notice_kept
        try:
            record = self.times.extend_now(chat.key, chat.now, chat.rules, is_noticed=is_new)
        except UseUnavailable as error:
            self._note_unkept(chat, time.monotonic(), error)
            return True
        if record is None:
            return False
        self._is_lost = False
        chat.is_notice_kept |= is_new
        return True

    async def _keep_again(self) -> None:
        """Extend the time of the chats that the store could not keep, up to the first that it cannot keep now."""
        for chat, until_s in tuple(self._unkept.items()):
            await self.extend(chat, until_s)
            if chat in self._unkept:
                return

    def _note_unkept(self, chat: ChatTime, until_s: float, error: UseUnavailable) -> None:
        if chat in self._unkept or len(self._unkept) < MOST_UNKEPT:
            self._unkept[chat] = max(until_s, self._unkept.get(chat, until_s))
        self._note_loss(error)

    def _note_loss(self, error: Exception) -> None:
        if not self._is_lost:
            logger().error("use_not_kept", detail=f"the time of users can't be kept: {error}")
        self._is_lost = True

    def move_clock(self, ahead_s: int) -> None:
        """Count as if it were so much later. A demo shows with it what happens after hours."""
        if isinstance(self.times, LocalTimes):
            self.times.clock = lambda: time.time() + ahead_s

    async def extend_running(self) -> None:
        """Extend the time of the users whose chats run."""
        for chat in tuple(self.running):
            await chat.extend()

    def watch(self) -> None:
        """Begin the work in the background, if it has not begun: once a minute."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        times = self.times
        while True:
            await self.extend_running()
            with suppress(UseUnavailable):
                await times.open()
                await times.tidy()
            for _ in range(round(EXTENDED_EACH_S / WRITTEN_EACH_S)):
                await asyncio.sleep(WRITTEN_EACH_S)
                try:
                    await times.write()
                except UseUnavailable as error:
                    self._note_loss(error)
                await self._keep_again()

    def start(self) -> None:
        """Begin the work in the background if there are records, which have an end also if nothing counts any more."""
        if self.times.has_records_here:
            self.watch()

    def later(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step in the background."""
        task = asyncio.get_running_loop().create_task(step)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def aclose(self) -> None:
        """End the work in the background, and keep the time of the chats that still run."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self.extend_running()
        if self._later:
            await asyncio.gather(*self._later)
        await self._keep_again()
        if isinstance(self.times, LocalTimes):
            try:
                self.times.store.close()
            except StateError as error:
                self._note_loss(error)


def _decide(chat: ChatTime, age: AgeBand | None, record: Record, unread: CallRefused | None) -> None:
    """Decide by the time that was read whether a chat is refused, and how its notice is due."""
    now, rules, note = chat.now, chat.rules, chat.note
    note.use_limit = None
    if rules.repeat_s is not None:
        repeat_s = age.repeat_s if age is not None and age.repeat_s is not None else rules.repeat_s
        chat.notice = policy.notice_due(now, repeat_s) if now is not None else "text"
    if age is None or age.use is None:
        return
    if now is not None:
        note.use, hit = policy.shown_use(now, age.use), policy.limit_reached(now, age.use)
        if hit is not None:
            note.use_limit = hit.rule
            chat.refusal = Refused(policy.refuse_use(age, hit, now, rules))
    elif unread is None:
        note.use_limit = "user_unknown"
        chat.refusal = Refused(policy.refuse_unknown())
    else:
        chat.refusal = unread
    if note.use_limit is not None:
        record.note_duty(_NOTED_KINDS[note.use_limit])
