"""Decide whether the barrier of a route opens, and what is then sent. Pure.

A barrier opens for a cause that it lists. The outcome of each private step decides: why routing skipped it, or how it
failed. `_OF_SKIP` and `_OF_FAILURE` name the cause of each, or None: a reason that keeps the barrier closed, whatever
the other steps show. These are the operator's decisions and omissions, and everything that another provider would not
change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from gateway.model.decision import Exclusion, FailureKinds, SkipReason
from gateway.model.hand_off import BarrierRule, HandOff, HandOffCause
from providers.chat import ChatRequest, Part, TextPart, UserMessage, text_of
from providers.failures import FailureKind, InvalidRequest

Outcome: TypeAlias = SkipReason | FailureKind | None
"""Why a private step gave no answer, or None if that is unknown."""

_OF_SKIP: Mapping[SkipReason, HandOffCause | None] = {
    # For `health`, the failures that caused it count in its place, see `outcomes_of_skip`.
    **dict.fromkeys(SkipReason),
    **dict.fromkeys((SkipReason.CAPABILITY, SkipReason.PARAMETER, SkipReason.EXCEPTED), HandOffCause.CAPABILITY),
}
_OF_FAILURE: Mapping[FailureKind, HandOffCause | None] = {
    **dict.fromkeys(FailureKind),
    FailureKind.UNSUPPORTED: HandOffCause.CAPABILITY,
    FailureKind.FIELD_REFUSED: HandOffCause.CAPABILITY,
    FailureKind.CONTEXT_LENGTH: HandOffCause.CONTEXT,
    FailureKind.CONNECT: HandOffCause.FAILURE,
    FailureKind.UNAVAILABLE: HandOffCause.FAILURE,
    FailureKind.RATE_LIMITED: HandOffCause.FAILURE,
    FailureKind.SILENT: HandOffCause.FAILURE,
    FailureKind.REFUSED_HERE: HandOffCause.FAILURE,
    FailureKind.MALFORMED: HandOffCause.FAILURE,
    FailureKind.NOT_JSON: HandOffCause.FAILURE,
    FailureKind.NOT_VALID: HandOffCause.FAILURE,
    FailureKind.INTERRUPTED: HandOffCause.FAILURE,
    FailureKind.TOO_LARGE: HandOffCause.FAILURE,
    FailureKind.OVERLOADED: HandOffCause.FAILURE,
}
_NEVER = "never"
# The fields of a reduced request: how the answer is written, and nothing that a client can write a text into.
_KEPT = tuple(
    "stream include_usage max_tokens temperature top_p presence_penalty frequency_penalty seed n logprobs top_logprobs "
    "reasoning_effort place".split()
)


def outcomes_of_skip(exclusion: Exclusion) -> tuple[Outcome, ...]:
    """Return why a step was skipped. A skip for health counts as the failures that caused it.

    A step that lacks what the request needs also has the reasons for which it answers no request now, if they keep the
    barrier closed: whether the operator's model could answer shows only once it is on.
    """
    if exclusion.reason is SkipReason.HEALTH:
        return outcomes_of_kinds(exclusion.kinds)
    standing = outcomes_of_skip(exclusion.standing) if exclusion.standing is not None else ()
    return (*(it for it in standing if it is not None and _cause_of(it) is None), exclusion.reason)


def outcomes_of_kinds(kinds: FailureKinds) -> tuple[Outcome, ...]:
    """Return failures as outcomes, those that keep a barrier closed first."""
    return tuple(sorted(kinds, key=lambda kind: (_cause_of(kind) is not None, str(kind)))) or (None,)


def _cause_of(outcome: Outcome) -> HandOffCause | None:
    if isinstance(outcome, FailureKind):
        return _OF_FAILURE[outcome]
    return _OF_SKIP[outcome] if outcome is not None else None


def hand_off_after(rule: BarrierRule, steps: Sequence[Sequence[Outcome]], *, may_fail_over: bool) -> HandOff | None:
    """Return the hand-off for which a barrier opens, or None: it stays closed.

    The outcomes of each private step are of the member that this user has. A request may fail over after the last
    failure, or there was none.
    """
    if not steps or any(not outcomes or None in map(_cause_of, outcomes) for outcomes in steps):
        return None
    causes = {_cause_of(outcomes[-1]) for outcomes in steps} - {None}
    if not causes <= {*rule.when}:
        return None
    cause = next(it for it in reversed(HandOffCause) if it in causes)
    if cause is HandOffCause.FAILURE and not may_fail_over:
        return None
    return HandOff(cause, rule.share)


def hand_off_asked(rule: BarrierRule) -> HandOff | None:
    """Return the hand-off for which the private model has asked, or None if the barrier does not open for that."""
    return HandOff(HandOffCause.ASKED, rule.share) if HandOffCause.ASKED in rule.when else None


def every_hand_off(rule: BarrierRule) -> list[HandOff]:
    """Return each hand-off that a consent token may show to have been open."""
    return [HandOff(cause, rule.share) for cause in rule.when]


def declines(values: tuple[str, ...]) -> bool:
    """Return whether a request declines every hand-off. Raises InvalidRequest for a value that has no meaning."""
    if any(value.lower() != _NEVER for value in values):
        raise InvalidRequest(f"`x-gateway-hand-off` of a request has one value, `{_NEVER}`")
    return bool(values)


def shared(request: ChatRequest, rule: BarrierRule) -> ChatRequest | None:
    """Return the client's request as it may go after the barrier, or None if it may not.

    With `last_turn` it is a new request with the last message of the user. There is none if something else ends the
    conversation, or if the answer must have a format.
    """
    if rule.share == "conversation":
        return request
    if request.response_format is not None:
        return None
    messages = request.messages
    if not messages or not isinstance(messages[-1], UserMessage):
        return None
    said = [it.content for it in messages if isinstance(it, UserMessage) and _has_content(it.content)]
    if not said:
        return None
    # The name of a participant identifies the user.
    return ChatRequest(request.model, (UserMessage(said[-1]),), **{name: getattr(request, name) for name in _KEPT})


def _has_content(content: str | tuple[Part, ...]) -> bool:
    """Return whether a message has text or media."""
    has_media = not isinstance(content, str) and any(not isinstance(part, TextPart) for part in content)
    return has_media or bool(text_of(content).strip())
