"""Whether a candidate's answers bear the region's labels as the law wants them, and can be read back without them.

The gateway puts the labels, not the candidate: what can go wrong is an answer that begins with the words of a label
itself. So every stored answer is labelled by the functions of traffic, whole and as a stream, and read back.
"""

from __future__ import annotations

from gateway.evaluate.compliance import AXIS
from gateway.evaluate.statistics import Estimate, share
from gateway.evaluate.store import RunStore
from gateway.model.table import Region
from gateway.policy.labels import Prefixer, integrity_of, label_completion, labelling_of, marks, strip
from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, Choice, UserMessage, text_of
from providers.folding import fold, unfold

__all__ = ["labelled"]


def labelled(store: RunStore, candidate: str, region: Region) -> Estimate | None:
    """The share of its answers that do; None where the region has no labels, or nothing was answered."""
    speech = region.speech
    if speech is None or not speech.voice.labels:
        return None
    answers = (row.answer for row in store.rows(candidate, AXIS))
    sound = [_is_sound(answer.text, region) for answer in answers if answer is not None and answer.text]
    return share(sum(sound), len(sound))


def _is_sound(text: str, region: Region) -> bool:
    speech = region.speech
    labelling = labelling_of(speech.voice, ChatRequest("", (UserMessage("?"),))) if speech is not None else None
    if speech is None or labelling is None:
        return False
    plain = ChatCompletion("id", "m", 0, (Choice(AssistantMessage(text), "stop"),))
    whole = label_completion(plain, labelling)
    streamed = fold(Prefixer(labelling.prefix).add(unfold(plain)))
    shown = text_of(whole.choices[0].message.content)
    signed = integrity_of(whole) if labelling.has_integrity else ""
    made = marks(labelling, plain.id, signed, in_content=bool(labelling.prefix))
    objects = [mark["AIGC"] for mark in made if "AIGC" in mark]
    return (
        shown == labelling.prefix + text
        and text_of(streamed.choices[0].message.content) == shown
        and strip(shown, speech.first, speech.known) == text
        and {mark["name"] for mark in made} == set(labelling.names)
        and all(isinstance(one, dict) and one["ReservedCode1"] == integrity_of(whole) for one in objects)
    )
