"""The shadow of a route, and the outcome of a request that was also sent to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.model.assistant import RoutePart, RoutePath
from gateway.model.deployment import Deployment
from gateway.model.record import AttemptRecord, FeatureNote
from providers.chat import Usage
from providers.value import Value, replace


class Shadow(RoutePart, Value, frozen=True):
    """A deployment that gets copies of a share (0 to 1) of a route's requests after they are answered.

    Its answers go to no client. With `keep_text`, the prompt, its answer and the client's answer are stored too.
    """

    deployment: Deployment
    share: float
    keep_text: bool = False

    def recipients(self, path: RoutePath) -> Iterator[tuple[RoutePath, Deployment]]:
        assistant, region = path
        yield ("assistants", assistant, "shadow", region, "deployment"), self.deployment

    def route_lines(self) -> Iterator[str | Deployment]:
        kept = "; prompts, its answers and the answers to the clients are kept" if self.keep_text else ""
        yield f"shadow of {self.share * 100:.3g}% of the requests{kept}"
        yield self.deployment

    def plan_words(self) -> str:
        return f"shadow {self.deployment.name}: {self.share * 100:.6g}%{', texts kept' if self.keep_text else ''}"

    def off_without_state(self) -> tuple[str, str]:
        return "shadows_off", "shadows need GATEWAY_STATE_DIR: no request is sent to one"


class ShadowNote(FeatureNote, Value, frozen=True):
    """The attempt on the route's shadow, which begins after the request ends. Its outcome is not known yet."""

    attempt: AttemptRecord

    def log_fields(self) -> Mapping[str, object]:
        return {"shadow": self.attempt.deployment}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        return {"shadow": recipient(self.attempt)}


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """One request to a shadow, with the client's own answer for comparison. Times are seconds."""

    at_s: float
    """Unix time."""
    config_version: str
    request_id: str
    assistant: str
    region: str
    deployment: str
    model: str
    stream: bool
    outcome: str
    """`ok`, or the failure kind."""
    first_s: float
    """The time until the answer began, or until a whole JSON answer arrived."""
    total_s: float
    usage: Usage | None = None
    finish_reason: str | None = None
    answer_characters: int = 0
    tool_calls: int = 0
    beside: str | None = None
    beside_first_s: float | None = None
    """The same time for the deployment that answered the client, which `beside` names. The other `beside_*` fields
    belong to its answer too."""
    beside_total_s: float | None = None
    beside_usage: Usage | None = None
    prompt: str | None = field(default=None, repr=False)
    """Stored only if the config keeps text. The same holds for `answer`, `refusal` and `calls`."""
    answer: str | None = field(default=None, repr=False)
    refusal: str | None = field(default=None, repr=False)
    """The provider's own text for a refusal."""
    calls: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The names and arguments of tool calls."""
    beside_answer: str | None = field(default=None, repr=False)
    """The client's answer, if the config keeps text and the answer is complete plain text."""

    def without_text(self) -> ShadowRecord:
        """Return the record without prompt and answers."""
        return replace(self, prompt=None, answer=None, refusal=None, calls=(), beside_answer=None)
