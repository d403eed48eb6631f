"""Consent: what a deployment asks of the person before it gets a prompt, and what one request has shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class ConsentKind(StrEnum):
    """What a consent rests on."""

    CLAIM = "standing:claim"  # a signed claim about the person names the recipient
    ASSERTION = "standing:assertion"  # a backend that may speak for the person says so
    TOKEN = "token"  # noqa: S105  # the person has said yes to this very request


@dataclass(frozen=True, slots=True)
class ConsentRule:
    """What a deployment asks for. recipient: whom the person says yes to, by the name that the person is shown.

    per_request: a yes to this very request; standing: that, or one that was given once for all. on_missing: `refuse`
    the request where this step would be the first, or `skip` to the next one.
    """

    recipient: str
    mode: Literal["per_request", "standing"] = "per_request"
    on_missing: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True, slots=True)
class ConsentStatement:
    """What a request says of consent, as far as its headers tell.

    caller: what tells one client key from another, and one person where one is named. standing: the recipients that a
    believed claim names. asserted: whether a backend that may say so says that the person agrees. token: what came to
    be checked. note: why something that was sent is not believed, or will not be.
    """

    caller: str = ""
    standing: frozenset[str] = frozenset()
    asserted: bool = False
    token: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Consents:
    """What of it holds under one table. confirmed: the deployments, by name, that the request's token is good for."""

    standing: frozenset[str] = frozenset()
    asserted: bool = False
    confirmed: frozenset[str] = frozenset()

    def given(self, deployment: str, rule: ConsentRule) -> ConsentKind | None:
        """What lets this deployment get the prompt; None if nothing does."""
        if deployment in self.confirmed:
            return ConsentKind.TOKEN
        if rule.mode == "per_request":
            return None
        if rule.recipient in self.standing:
            return ConsentKind.CLAIM
        return ConsentKind.ASSERTION if self.asserted else None


NO_CONSENT = Consents()
NO_STATEMENT = ConsentStatement()


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """What a person is to be asked: to whom, where, and what would be sent; and the token that brings the yes back.

    expires_at: Unix time. note: why what was sent this time is no consent, if anything was.
    """

    recipient: str
    stores: str
    processes: str
    would_send: tuple[str, ...]
    token: str
    expires_at: int
    note: str = ""
