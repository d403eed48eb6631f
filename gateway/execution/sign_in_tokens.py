"""The tokens of sign-ins in a process that serves requests. They come from the one process that makes exchanges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from gateway.execution.deadline import Clock
from gateway.model.deployment import Deployment
from gateway.model.sign_in import SignIn, SignInNote
from providers.auth import Secret

_WAIT_S = 10.0
NO_CREDENTIAL = "no credential"
"""Why a deployment whose sign-in has no token is not used, in words."""


class SignInTokens:
    """The token of each sign-in, and the wait for another one after a provider has refused it.

    Attributes:
        refused: Called with the name of a sign-in and the token that a provider has refused. A note follows.
        renewed: Called with a sign-in that has another token.
    """

    def __init__(self, monotonic: Clock = time.monotonic, unix: Clock = time.time) -> None:
        """Take the clocks of relative and of absolute ends."""
        self.refused: Callable[[str, Secret], None] = lambda name, secret: None
        self.renewed: Callable[[str], None] = lambda name: None
        self._monotonic, self._unix = monotonic, unix
        self._notes: dict[str, SignInNote] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def take(self, name: str, note: SignInNote) -> None:
        """Keep the result of the last exchange of a sign-in, and wake those that wait for it."""
        before = self._notes.get(name)
        self._notes[name] = note
        if note.token is not None and (before is None or before.token != note.token):
            self.renewed(name)
        if (waiting := self._waiting.pop(name, None)) is not None and not waiting.done():
            waiting.set_result(None)

    def keep(self, sign_ins: Mapping[str, SignIn]) -> None:
        """Forget the sign-ins that a config version does not have."""
        self._notes = {name: note for name, note in self._notes.items() if name in sign_ins}

    def current(self, name: str) -> Secret | None:
        """Return the token that requests carry now, or None if there is none that is valid long enough."""
        note = self._notes.get(name)
        token = note.token if note is not None else None
        if token is None or not token.is_usable(self._monotonic(), self._unix()):
            return None
        return token.secret

    def lacks(self, deployment: Deployment) -> bool:
        """Return whether a deployment cannot be called now, because its sign-in has no token."""
        return deployment.sign_in is not None and self.current(deployment.sign_in.name) is None

    def why(self, name: str) -> str:
        """Return why a sign-in has no token, in words."""
        note = self._notes.get(name)
        return f"{NO_CREDENTIAL}: the sign-in {name} has no token" + (f" ({note.error})" if note and note.error else "")

    async def other(self, name: str, sent: Secret, limit_s: float) -> Secret | None:
        """Return another token than the one that a provider has refused, or None if there is none.

        If the present one is already another, no exchange is asked for.

        Args:
            name: The sign-in.
            sent: The token that was refused.
            limit_s: How long to wait for an exchange.
        """
        present = self.current(name)
        if present is None or present == sent:
            waiting = self._waiting.get(name)
            if waiting is None:
                waiting = self._waiting[name] = asyncio.get_running_loop().create_future()
                self.refused(name, sent)
            await asyncio.wait((waiting,), timeout=min(limit_s, _WAIT_S))
            present = self.current(name)
        return present if present != sent else None
