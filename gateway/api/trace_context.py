"""`traceparent` and `tracestate` (W3C Trace Context, Recommendation of 2021-11-23, sections 3.2 and 3.3) -> a value.

What isn't sound is passed over, as section 3.2 asks: a broken header of a proxy must not cost anyone an answer.
"""

from __future__ import annotations

import random
import re

from gateway.api.door import Visitor
from gateway.model.trace import TraceContext

# Later versions may be longer; their beginning is read as today's (section 3.2.4).
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MOST_STATE, _MOST_MEMBERS = 512, 32
_SAMPLED = 1


def trace_of(visitor: Visitor) -> TraceContext | None:
    """The caller's trace, None if it has none that is sound."""
    if b"traceparent" not in visitor.headers or b"traceparent" in visitor.repeated:
        return None
    parent = _PARENT.fullmatch(visitor.one(b"traceparent") or "")
    if parent is None or (parent[1] == "00" and parent[5] is not None):
        return None
    sampled = bool(int(parent[4], 16) & _SAMPLED)
    return TraceContext(parent[2], parent[3], sampled, _state_of(visitor))


def begin_trace() -> TraceContext:
    """A trace that begins here. Its id has to be unlike others, not hard to guess."""
    return TraceContext(f"{random.getrandbits(128) or 1:032x}")


def _state_of(visitor: Visitor) -> str:
    """The caller's `tracestate`, empty if it isn't sound or longer than anyone must take."""
    text = ",".join(visitor.all(b"tracestate"))
    if not text or len(text) > _MOST_STATE:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    sound = len(keys) == len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if sound else ""
