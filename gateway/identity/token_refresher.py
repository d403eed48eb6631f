"""Get and renew the tokens of sign-ins: one task for each, never on the path of a request.

With lifetime L a renewal starts at a moment that is drawn once between L − min(L/2, 900 s) and L − min(L/4, 300 s).
After a failure it is tried again after 1, 2, 4 … 60 s. An issuer that refuses is asked again after a minute, or as soon
as its subject changes: the file, or the token of the sign-in that is its source.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from gateway.execution.deadline import Clock
from gateway.execution.held_tokens import HeldTokens
from gateway.execution.service_client import ServiceAnswerTooLarge, ServiceClient, ServiceFailed, ServiceResponse
from gateway.execution.transport import Transport
from gateway.execution.upstream_request import FenceBreach
from gateway.files import open_file
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.held_token import NO_NOTE, HeldToken, TokenNote, TokenState, TokenStatus
from gateway.model.sign_in import SignIn, remedy_for
from gateway.telemetry.log import logger
from providers.auth import Secret
from providers.sign_in.exchange import ExchangeCall, ExchangeFailed, ExchangeResult, Issued
from providers.sign_in.exchanges import ExchangeInput, exchange_for
from providers.wire import WireResponse

FIRST_S = 5.0
"""The longest time for which a start waits for the first tokens."""
_LIMIT_S, _METADATA_S = 5.0, 1.0
_METADATA_TRIES = 2
_MOST_BYTES = 64 * 1024
_MOST_SUBJECT_BYTES = 16 * 1024
_EARLIEST_S, _LATEST_S = 900.0, 300.0
_LONGEST_WAIT_S = 60.0
_SPREAD = 0.2
_FORCED_EACH_S = 60.0
_LOOK_S, _CLOCK_S = 1.0, 30.0
_LEAST_WAIT_S = 0.5
_SOURCE_S = 10.0


@dataclass(slots=True, eq=False)
class _Kept:
    """A sign-in whose token is kept.

    `has_tried` is set when its first exchange has ended, and `hurry` to end a wait. Times are monotonic seconds.
    """

    sign_in: SignIn
    note: TokenNote = NO_NOTE
    has_tried: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    forced_at: float = float("-inf")
    is_busy: bool = False
    task: asyncio.Task[None] | None = None


class TokenRefresher:
    """Keeps the tokens of the sign-ins of the active config version. Clocks and chance are parameters, for tests.

    `publish` gets the result of each exchange by the id of its sign-in. `exchanges` counts them by sign-in and result.
    """

    def __init__(
        self,
        services: ServiceClient,
        publish: Callable[[str, TokenNote], None],
        *,
        monotonic: Clock = time.monotonic,
        unix: Clock = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.exchanges = Counter[tuple[str, ...]]()
        self._services, self._publish = services, publish
        self._monotonic, self._unix, self._draw = monotonic, unix, draw
        self._kept: dict[str, _Kept] = {}
        self._used: Mapping[str, tuple[str, ...]] = {}
        self._ended: set[asyncio.Task[None]] = set()

    def apply(self, config: ConfigVersion) -> None:
        """Keep the tokens of this version: the token of an unchanged sign-in stays, and others are asked for."""
        self._used = config.deployments_by_sign_in
        for name, kept in [*self._kept.items()]:
            if name not in self._used or config.sign_ins[name].id != kept.sign_in.id:
                self._end(name)
                self._publish(kept.sign_in.id, kept.note)  # wakes those who wait for another token
        for name in self._used:
            sign_in = config.sign_ins[name]
            if (known := self._kept.get(name)) is not None:
                known.sign_in = sign_in
            elif not sign_in.missing:
                kept = self._kept[name] = _Kept(sign_in)
                kept.task = asyncio.get_running_loop().create_task(self._keep(kept))

    async def first(self, limit_s: float = FIRST_S) -> None:
        """Wait until each sign-in has been tried once, for a limited time."""
        if self._kept:
            tried = [asyncio.ensure_future(kept.has_tried.wait()) for kept in self._kept.values()]
            await asyncio.wait(tried, timeout=limit_s)
            for each in tried:
                each.cancel()

    def force(self, sign_in: str, sent: Secret) -> None:
        """Make an exchange now, because a provider has refused a token: at most one in 60 s. A note is published."""
        kept = next((it for it in self._kept.values() if it.sign_in.id == sign_in), None)
        now = self._monotonic()
        if kept is not None and (kept.is_busy or kept.hurry.is_set()):
            return
        is_present = kept is not None and kept.note.token is not None and kept.note.token.secret == sent
        if kept is None or not is_present or now - kept.forced_at < _FORCED_EACH_S:
            self._publish(sign_in, kept.note if kept is not None else NO_NOTE)
            return
        kept.forced_at = now
        kept.hurry.set()

    def notes(self) -> dict[str, TokenNote]:
        """Return the last result of each sign-in by its id."""
        return {kept.sign_in.id: kept.note for kept in self._kept.values()}

    def statuses(self) -> tuple[TokenStatus, ...]:
        """Return the state of each sign-in that is used."""
        return tuple(self._status(name, deployments) for name, deployments in sorted(self._used.items()))

    def _status(self, name: str, deployments: tuple[str, ...]) -> TokenStatus:
        kept = self._kept.get(name)
        if kept is None:
            unset = "a value of it is not set: gateway check names it"
            return TokenStatus(name, "none", None, unset, remedy_for(unset), deployments)
        token, error, now = kept.note.token, kept.note.error, (self._monotonic(), self._unix())
        left_s = token.left_s(*now) if token is not None else 0.0
        state: TokenState = "none" if kept.note.usable(*now) is None else "failing" if error else "ok"
        seconds = int(left_s) if left_s > 0 else None
        return TokenStatus(name, state, seconds, error, remedy_for(error), deployments)

    def seconds_left(self) -> dict[tuple[str, ...], int]:
        """Return how many seconds the token of each sign-in is valid: 0 without one."""
        return {(it.name,): it.seconds_left or 0 for it in self.statuses()}

    async def aclose(self) -> None:
        """End all tasks."""
        for name in [*self._kept]:
            self._end(name)
        if self._ended:
            await asyncio.wait(self._ended)

    def _end(self, name: str) -> None:
        task = self._kept.pop(name).task
        if task is not None:
            self._ended.add(task)
            task.add_done_callback(self._ended.discard)
            task.cancel()

    # --- one sign-in ------------------------------------------------------------------------------

    async def _keep(self, kept: _Kept) -> None:
        while True:
            if (source := self._kept.get(kept.sign_in.source or "")) is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SOURCE_S):
                        await source.has_tried.wait()
            kept.is_busy = True
            try:
                subject = await self._subject_state(kept)
                wait_s, watched = await self._renew(kept)
            finally:
                kept.is_busy = False
                kept.hurry.clear()
            self._publish(kept.sign_in.id, kept.note)
            kept.has_tried.set()
            await self._pause(kept, wait_s, subject if watched else None)

    async def _pause(self, kept: _Kept, wait_s: float, subject: object) -> None:
        """Wait until the time has passed by either clock, an exchange is forced, or the subject has changed.

        The monotonic clock may stand still while a machine is suspended, and the wall clock may be set: by it, tokens
        with an absolute end end.
        """
        due_s, due_unix_s = self._monotonic() + wait_s, self._unix() + wait_s
        while (left_s := min(due_s - self._monotonic(), due_unix_s - self._unix())) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S if subject is not None else _CLOCK_S)):
                    await kept.hurry.wait()
                return
            if subject is not None and await self._subject_state(kept) != subject:
                return

    async def _subject_state(self, kept: _Kept) -> object:
        """Return what changes when the subject of a sign-in does."""
        path, source = kept.sign_in.token_file, self._kept.get(kept.sign_in.source or "")
        file = await asyncio.to_thread(_state_of, path) if path else None
        return file, source.note.token if source is not None else None

    async def _renew(self, kept: _Kept) -> tuple[float, bool]:
        """Make one exchange. Return when the next one is due, and whether a changed subject comes before that."""
        sign_in, name = kept.sign_in, kept.sign_in.name
        try:
            source = self._kept.get(sign_in.source or "")
            of_source = source.note.usable(self._monotonic(), self._unix()) if source is not None else None
            subject = of_source.secret if of_source is not None else None
            token = await exchange(self._services, sign_in, subject, monotonic=self._monotonic, unix=self._unix)
        except Exception as raised:  # a fault in one exchange must not end the renewal of this sign-in for ever
            words = f"the exchange has a fault ({type(raised).__name__})"
            error = raised if isinstance(raised, ExchangeFailed) else ExchangeFailed(ExchangeResult.MALFORMED, words)
            kept.failures += 1
            self.exchanges[name, str(error.result)] += 1
            kept.note = TokenNote(kept.note.token, f"{error.result}: {error}")
            if kept.failures == 1:
                self._log_failure(kept)
            has_new_chance = error.result is ExchangeResult.REFUSED or sign_in.source is not None
            return self._wait_after(error, kept.failures), has_new_chance
        self.exchanges[name, str(ExchangeResult.OK)] += 1
        if kept.failures:
            logger().info("sign_in_recovered", sign_in=name, deployments=[*self._used.get(name, ())])
        before, kept.failures, kept.note = kept.note.token, 0, TokenNote(token)
        left_s = token.left_s(self._monotonic(), self._unix())
        if before is not None and before.ends_with(token):
            # A metadata server keeps its token until its last minutes.
            return max(1.0, min(60.0, left_s / 4)), False
        earliest_s, latest_s = left_s - min(left_s / 2, _EARLIEST_S), left_s - min(left_s / 4, _LATEST_S)
        return max(_LEAST_WAIT_S, earliest_s + (latest_s - earliest_s) * self._draw()), False

    def _wait_after(self, error: ExchangeFailed, failures: int) -> float:
        if error.result is ExchangeResult.REFUSED:
            return _LONGEST_WAIT_S
        if error.retry_after_s is not None:
            return min(max(error.retry_after_s, 1.0), _LONGEST_WAIT_S)  # 0 s would flood the issuer
        wait_s = min(2.0 ** min(failures - 1, 10), _LONGEST_WAIT_S)
        return wait_s * (1 + _SPREAD * (2 * self._draw() - 1))

    def _log_failure(self, kept: _Kept) -> None:
        name, has_token = kept.sign_in.name, kept.note.usable(self._monotonic(), self._unix()) is not None
        effect = "the token before is used until it ends" if has_token else "its deployments are skipped"
        detail = f"{effect}: {remedy_for(kept.note.error)}; gateway doctor --network makes one exchange"
        deployments = [*self._used.get(name, ())]
        logger().warning("sign_in_failed", sign_in=name, deployments=deployments, error=kept.note.error, detail=detail)


async def tokens_for_command(
    config: ConfigVersion,
    transport: Transport,
    seen: Callable[[str, ServiceResponse], None] = lambda name, answer: None,
    deployment: Deployment | None = None,
) -> HeldTokens:
    """Return the tokens of a command, which makes one exchange for each sign-in, or for its only deployment.

    One that fails has no token. `seen` gets each answer with the name of the sign-in.
    """
    tokens, services = HeldTokens(), ServiceClient(transport)
    of_one = deployment.sign_in.needed if deployment is not None and deployment.sign_in is not None else ()
    for name in of_one if deployment is not None else config.deployments_by_sign_in:
        sign_in = config.sign_ins[name]
        if sign_in.missing:
            continue
        source = tokens.current(config.sign_ins[sign_in.source].id) if sign_in.source is not None else None
        try:
            token = await exchange(services, sign_in, source, seen=partial(seen, name))
        except ExchangeFailed as error:
            tokens.take(sign_in.id, TokenNote(None, f"{error.result}: {error}"))
        else:
            tokens.take(sign_in.id, TokenNote(token))
    return tokens


# --- one exchange ---------------------------------------------------------------------------------


async def exchange(
    services: ServiceClient,
    sign_in: SignIn,
    source: Secret | None = None,
    *,
    monotonic: Clock = time.monotonic,
    unix: Clock = time.time,
    seen: Callable[[ServiceResponse], None] = lambda answer: None,
) -> HeldToken:
    """Make one exchange of a sign-in, with the token or credentials of its source, if it has one.

    Raises ExchangeFailed.
    """
    if sign_in.source is not None and source is None:
        raise ExchangeFailed(ExchangeResult.UNREACHABLE, f"its source, the sign-in {sign_in.source}, has no token")
    content, authorization = [
        await asyncio.to_thread(_read, path) if path is not None else ""
        for path in (sign_in.token_file, sign_in.authorization_file)
    ]
    subject = source.reveal() if source is not None else content
    steps = exchange_for(sign_in.terms, ExchangeInput(unix(), subject, authorization))
    call = next(steps)
    while True:
        sent_at = monotonic()
        answer = await _answer_to(services, sign_in, call, seen)
        try:
            call = steps.send(answer)
        except StopIteration as end:
            return _held(end.value, sent_at, unix())


def _held(issued: Issued, sent_at: float, now_s: float) -> HeldToken:
    secret = Secret(issued.text)
    if issued.expires_at_s is not None:
        token = HeldToken(secret, issued.expires_at_s, True, max(0.0, issued.expires_at_s - now_s))
    else:
        lifetime_s = issued.expires_in_s or 0.0
        token = HeldToken(secret, sent_at + lifetime_s, False, lifetime_s)
    if token.lifetime_s <= 0:
        message = "the token has already ended: compare the clock of this machine with that of the issuer"
        raise ExchangeFailed(ExchangeResult.MALFORMED, message)
    return token


async def _answer_to(
    services: ServiceClient, sign_in: SignIn, call: ExchangeCall, seen: Callable[[ServiceResponse], None]
) -> WireResponse:
    """Return the answer to one call. A metadata server is asked twice. Raises ExchangeFailed."""
    is_metadata = sign_in.is_metadata and call.host == "token"
    limit_s = _METADATA_S if is_metadata else _LIMIT_S
    permit, link = sign_in.permits[call.host], sign_in.links.get(call.host)
    reason = ""
    for _ in range(_METADATA_TRIES if is_metadata else 1):
        try:
            answer = await services.call(permit, call.wire, limit_s=limit_s, most_bytes=_MOST_BYTES, link=link)
        except ServiceAnswerTooLarge as error:
            raise ExchangeFailed(ExchangeResult.MALFORMED, str(error)) from None
        except ServiceFailed as error:
            reason = str(error)
        except FenceBreach as error:
            raise ExchangeFailed(ExchangeResult.MALFORMED, f"no request can be made of the values: {error}") from None
        else:
            seen(answer)
            return WireResponse(answer.status, answer.headers, answer.body, 0)
    raise ExchangeFailed(ExchangeResult.UNREACHABLE, f"{reason}: {call.silent}" if call.silent else reason)


def _read(path: str) -> str:
    """Return the text of a small file. Raises ExchangeFailed."""
    try:
        with open_file(path) as file:
            data = file.read(_MOST_SUBJECT_BYTES + 1)
    except OSError as error:
        raise ExchangeFailed(ExchangeResult.REFUSED, f"{path} can't be read ({error.strerror})") from None
    text = data.decode("latin-1").strip()
    if len(data) > _MOST_SUBJECT_BYTES or not text or not text.isprintable() or not text.isascii():
        raise ExchangeFailed(ExchangeResult.REFUSED, f"{path} is not a token: it must be one line of at most 16 KB")
    return text


def _state_of(path: str) -> object:
    """Return what changes when a file is replaced. Links are followed: a kubelet changes a link."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
