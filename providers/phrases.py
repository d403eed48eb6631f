"""Sentences by which a provider tells of a fault that it has no code for: a model that it doesn't know, a prompt that
is too long, an account without credit.

A sentence counts as a whole or not at all. So a prompt that an error repeats says nothing here, whatever stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from providers.failures import FailureKind

__all__ = ["Phrases"]

_GAP = re.compile(r"\{[a-z]+\}")
_A_WORD = r"[!-~]{1,256}"
"""What may stand for a model or a number: one word of visible ASCII. Nobody's text is that."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Sentence -> kind. A name in braces, such as `{model}`, is any one word; blanks around a sentence don't count.

    instead_of: the kind that is looked at.
    """

    kinds: Mapping[str, FailureKind] = field(default_factory=dict)
    instead_of: FailureKind = FailureKind.INVALID_REQUEST

    def kind_of(self, kind: FailureKind, message: str) -> FailureKind:
        """The kind of an error that its code and status call `kind`, by what it says.

        Only what would else be the client's own mistake is looked at, if no other kind is stated: whatever says more
        than that is believed.
        """
        if kind is not self.instead_of:
            return kind
        message = message.strip()
        return next((told for said, told in self.kinds.items() if _pattern(said).fullmatch(message)), kind)


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    return re.compile(_A_WORD.join(map(re.escape, _GAP.split(sentence))))
