"""The tokens of sign-ins in a process that serves requests. They come from the one process that makes exchanges.

Each is kept by the `id` of its sign-in: after a reload, the token of a sign-in that was changed is not found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from gateway.execution.deadline import Clock
from gateway.model.held_token import NO_NOTE, TokenNote, TokenSource
from providers.auth import Secret

_WAIT_S = 10.0


class HeldTokens:
    """The token of each sign-in, and the wait for another one after a provider has refused it.

    `refused` gets the id of a sign-in and the token that a provider has refused, and `renewed` that with another token.
    """

    def __init__(self, monotonic: Clock = time.monotonic, unix: Clock = time.time) -> None:
        """Take the clocks of relative and of absolute ends."""
        self.refused: Callable[[str, Secret], None] = lambda sign_in, secret: None
        self.renewed: Callable[[str], None] = lambda sign_in: None
        self._monotonic, self._unix = monotonic, unix
        self._notes: dict[str, TokenNote] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def take(self, sign_in: str, note: TokenNote) -> None:
        """Keep the result of the last exchange of a sign-in, and wake those that wait for it."""
        before = self._notes.get(sign_in, NO_NOTE)
        self._notes[sign_in] = note
        if note.token is not None and before.token != note.token:
            self.renewed(sign_in)
        if (waiting := self._waiting.pop(sign_in, None)) is not None and not waiting.done():
            waiting.set_result(None)

    def keep(self, sign_ins: Mapping[str, TokenSource]) -> None:
        """Forget the sign-ins that a config version does not have."""
        ids = {it.id for it in sign_ins.values()}
        self._notes = {sign_in: note for sign_in, note in self._notes.items() if sign_in in ids}

    def current(self, sign_in: str) -> Secret | None:
        """Return the token that requests carry now, or None if there is none that is valid long enough."""
        token = self._notes.get(sign_in, NO_NOTE).usable(self._monotonic(), self._unix())
        return token.secret if token is not None else None

    def error(self, sign_in: str) -> str:
        """Return why the last exchange of a sign-in has failed, or an empty text."""
        return self._notes.get(sign_in, NO_NOTE).error

    def why(self, sign_in: TokenSource) -> str:
        """Return why a sign-in has no token, in words."""
        error = self.error(sign_in.id)
        return f"no credential: the sign-in {sign_in.name} has no token" + (f" ({error})" if error else "")

    async def other(self, sign_in: str, sent: Secret, limit_s: float) -> Secret | None:
        """Return another token than the one that a provider has refused, or None if there is none within the limit.

        If the present one is already another, no exchange is asked for.
        """
        present = self.current(sign_in)
        if present is None or present == sent:
            waiting = self._waiting.get(sign_in)
            if waiting is None:
                waiting = self._waiting[sign_in] = asyncio.get_running_loop().create_future()
                self.refused(sign_in, sent)
            await asyncio.wait((waiting,), timeout=min(limit_s, _WAIT_S))
            present = self.current(sign_in)
        return present if present != sent else None
