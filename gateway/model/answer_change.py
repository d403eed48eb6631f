"""A change of who answers first, for the territories in which it is the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias
from unicodedata import normalize

from gateway.model.decision import Considered
from gateway.model.served import Use
from gateway.model.units import first_names
from providers.territories import territory_name
from providers.value import Value

AnswerChangeKind: TypeAlias = Literal["lost", "gained", "changed"]
"""Whether users have no answer any more, have one now, or are answered first by another deployment."""

_WORDS: Mapping[AnswerChangeKind, str] = {
    "lost": "lose their answer",
    "gained": "gain an answer",
    "changed": "have another first answer",
}
_MOST_CODES = 20


class FirstAnswer(Value, frozen=True):
    """The deployment that is asked first, or the code of the refusal if there is none."""

    deployment: str = ""
    refusal: str | None = None

    def __str__(self) -> str:
        return self.deployment or f"refused ({self.refusal})"


class AnswerChange(Value, frozen=True):
    """Territories (ISO 3166) whose users lose, gain or change their first answer from one assistant.

    The region is that before the change if they lose their answer, else after it. `why` states why there is no answer
    in the first of them, and names the skipped deployments. No territory stands for callers whose territory is unknown.
    """

    assistant: str
    use: Use
    kind: AnswerChangeKind
    region: str | None
    before: FirstAnswer
    after: FirstAnswer
    why: str = ""
    territories: tuple[str, ...] = ()
    skipped: tuple[Considered, ...] = ()

    @property
    def route(self) -> str:
        """The route as `assistant/region`, with the use if it is not chat."""
        use = f" ({self.use})" if self.use != "chat" else ""
        return f"{self.assistant}/{self.region or 'no region'}{use}"

    @property
    def words(self) -> str:
        """The change for these users."""
        return f"{_WORDS[self.kind]}: {self.before} -> {self.after}"

    @property
    def summary(self) -> str:
        """The change in one line. Only the first of many territories are listed."""
        codes = first_names(self.territories, _MOST_CODES) or "callers without a known territory"
        return f"{self.route}: {codes} {self.words}"

    def who(self, most: int) -> str:
        """Return the territories with their names. If there are more than `most`, the rest is a number."""
        return territory_list(self.territories, most) if self.territories else "callers without a known territory"

    def data(self) -> dict[str, object]:
        """Return the change as JSON data."""
        return {
            "assistant": self.assistant,
            "use": self.use,
            "kind": self.kind,
            "region": self.region,
            "before": str(self.before),
            "before_refusal": self.before.refusal,
            "after": str(self.after),
            "after_refusal": self.after.refusal,
            "why": self.why or None,
            "skipped": [
                {"deployment": one.deployment, "reason": one.reason, "detail": one.detail} for one in self.skipped
            ],
            "count": len(self.territories),
            "territories": list(self.territories),
        }


def territory_list(codes: Collection[str], most: int) -> str:
    """Return codes with the names of the territories. If there are more than `most`, the rest is a number."""
    # A part has only the name of its country, so its code alone is shown.
    shown = [f"{code} ({_in_ascii(territory_name(code))})" if len(code) == 2 else code for code in codes]
    return first_names(shown, most)


def _in_ascii(name: str) -> str:
    """Return a name without accents, which not every terminal can show."""
    return normalize("NFKD", name).encode("ascii", "ignore").decode()
