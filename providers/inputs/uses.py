"""The table of the uses that are not chats, in the order of all lists of uses.

The verdicts of moderations stand in `providers/moderations`: judges of chats give them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from providers.adapter import Adapter, Capabilities
from providers.chat import summed
from providers.failures import Failure, FailureKind
from providers.inputs.audio.contract import Speech, Transcription
from providers.inputs.decisions.contract import Decisions
from providers.inputs.decisions.judge import DecisionJudge
from providers.inputs.embeddings.contract import Embeddings
from providers.inputs.rerank.contract import Rerank
from providers.moderations.contract import ModerationFormat, moderation_format
from providers.moderations.values import ModerationAnswer, ModerationRequest, Verdicts, as_refusal
from providers.served import InputUse, ServingDeployment
from providers.value import replace


class Moderations(InputUse, frozen=True):
    """Verdicts on content."""

    def format_of(self, adapter: Adapter, model: str = "", guard: Any = None) -> ModerationFormat | None:
        if isinstance(guard, Verdicts):
            form = INPUTS["decisions"].format_of(adapter, model)
            return DecisionJudge(form, guard) if form is not None else None
        return moderation_format(adapter, model, guard)

    def facts(self, form: ModerationFormat, model: str) -> None:
        """See `InputUse`. There are none."""

    def capabilities(self, form: ModerationFormat, model: str) -> Capabilities:
        return form.capabilities

    def judged(self, failed: Failure, asked: ServingDeployment) -> Failure:
        if not isinstance(asked.judges_as, Verdicts):
            return failed
        if failed.kind is FailureKind.CONTENT_FILTER:
            return as_refusal(failed)
        return INPUTS["decisions"].judged(failed, asked)

    def calls_of(self, request: ModerationRequest, route: Sequence[ServingDeployment]) -> tuple[ModerationRequest, ...]:
        """See `InputUse`. Texts and images that get one verdict together are a call of their own."""
        forms = [form for it in route if (form := self.format_of(it.adapter, it.model, it.judges_as)) is not None]
        inputs, size = request.inputs, min((form.most_inputs for form in forms), default=1)
        if not all(isinstance(content, str) for content in inputs):
            size = 1
        pieces = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        return (request,) if len(pieces) == 1 else tuple(replace(request, inputs=piece) for piece in pieces)

    def joined(self, answers: Sequence[ModerationAnswer]) -> ModerationAnswer:
        usage = summed([answer.usage for answer in answers])
        return ModerationAnswer(tuple(result for answer in answers for result in answer.results), usage)


_USES = (
    Embeddings("embeddings", ("/v1/embeddings",), "embeddings", "vector", ("embedContent", "batchEmbedContents")),
    Moderations("moderations", ("/v1/moderations",)),
    Rerank("rerank", ("/v1/rerank", "/v2/rerank"), "rerank", "score"),
    Decisions("decisions", ("/v1/decisions",)),
    Transcription(
        "transcription", ("/v1/audio/transcriptions", "/v1/audio/translations"), "text", media=frozenset({"audio"})
    ),
    Speech("speech", ("/v1/audio/speech",), "audio"),
)
INPUTS: Mapping[str, InputUse] = {use.name: use for use in _USES}
