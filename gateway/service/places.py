"""Where in a request a provider found a mistake, counted as its writer counts: our own message before it is none."""

from __future__ import annotations

import re
from dataclasses import replace

from providers.failures import Failure

# OpenAI's way to write it. Who writes it otherwise, as Anthropic does, has our message apart from the others.
_MESSAGE = re.compile(r"\bmessages\[(?:0\][\w.\[\]]*|([1-9]\d{0,8})\])")


def as_written(failure: Failure) -> Failure:
    """The failure of a request that had a message of ours as its first, told of the request as it was written."""
    param = failure.param and _MESSAGE.sub(_before, failure.param)
    return replace(failure, param=param, detail=_MESSAGE.sub(_before, failure.detail))


def _before(found: re.Match[str]) -> str:
    return f"messages[{int(found[1]) - 1}]" if found[1] else "messages"
