"""Consent: what a deployment requires of the user before it gets a prompt, and what a request has shown of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from gateway.model.hand_off import HandOffCause
from gateway.model.section import PlainSection, key, section
from gateway.model.units import Line
from providers.value import Value


class ConsentKind(StrEnum):
    """The basis of a consent."""

    CLAIM = "standing:claim"  # a signed claim about the user names the recipient
    ASSERTION = "standing:assertion"  # a backend that may assert consent states it
    TOKEN = "token"  # noqa: S105  # the user has agreed to this one request


@section
class ConsentRule(PlainSection):
    """The consent that the user must give before the deployment receives a prompt."""

    recipient: Line = key(
        "The recipient as it is shown to the user. Default: the name of the provider.", default="", written=None
    )
    mode: Literal["per_request", "standing"] = key(
        "per_request: consent to this request; standing: consent to this request, or standing consent.", kw_only=True
    )
    on_missing: Literal["refuse", "skip"] = key(
        "If consent is missing and this step would be the first: refuse the request with a consent token, or skip the "
        "step. A later step is skipped in both cases.",
        default="refuse",
    )


class ConsentStatement(Value, frozen=True):
    """The consent that the headers of a request state."""

    caller: str = ""
    """Identifies the client key, and the user if one is named."""
    standing: frozenset[str] = frozenset()
    """The recipients that a verified claim names."""
    asserted: bool = False
    """Whether a backend that may assert consent states that the user agrees."""
    token: str | None = None
    note: str = ""
    """Why a consent that was sent is not accepted."""
    has_session: bool = False
    """Whether they name a session, from which a key of a provider's cache may be made."""


class Consents(Value, frozen=True):
    """The consents of a request that are valid under one config version, with the deployments of its valid token."""

    standing: frozenset[str] = frozenset()
    asserted: bool = False
    confirmed: frozenset[str] = frozenset()

    def given(self, deployment: str, rule: ConsentRule) -> ConsentKind | None:
        """Return the basis on which this deployment may get the prompt, or None if there is none."""
        if deployment in self.confirmed:
            return ConsentKind.TOKEN
        if rule.mode == "per_request":
            return None
        if rule.recipient in self.standing:
            return ConsentKind.CLAIM
        return ConsentKind.ASSERTION if self.asserted else None


NO_CONSENT = Consents()
NO_STATEMENT = ConsentStatement()


class ConsentRequest(Value, frozen=True):
    """The question to the user: recipient, places and fields that would be sent, with the token that confirms it."""

    recipient: str
    stores: str
    processes: str
    would_send: tuple[str, ...]
    token: str
    expires_at: int
    """Unix time."""
    note: str = ""
    """Why the consent that was sent with this request is not valid, if one was sent."""
    hand_off: HandOffCause | None = None
    """Why the barrier before the deployment is open, if there is one."""
    redacted: tuple[str, ...] = ()
    """The kinds of values that the recipient would not get."""
