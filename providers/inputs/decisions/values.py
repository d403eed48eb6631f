"""The canonical request for decisions, its answers, and their comparison with the questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias
from unicodedata import category

from providers.chat import AssistantMessage, ImagePart, Message, TextPart, Usage, UserMessage
from providers.json_values import as_list, as_map
from providers.matching.requirements import moving_fields
from providers.reading.errors import malformed
from providers.served import CostBound, InputAnswer, InputRequest, SizedNeeds
from providers.value import Value

MOST_QUESTIONS = 400
"""The most questions of a client's request, as at OpenAI."""
Kind: TypeAlias = Literal["predicate", "choice", "score"]
_TOLERANCE, _TOLERANCE_OF_AN_OPTION = 0.01 + 1e-9, 0.005
"""How far a sum of probabilities may be from 1: vendors round each to two decimals. The sum of floats is not exact."""
_TOLERANCE_OF_A_SCORE = 0.001


class JsonPart(TextPart, frozen=True):
    """A part of a message that is a value of JSON, as compact text. Most vendors get it as a text."""


class Option(Value, frozen=True):
    """An option of a choice, or a level of a score.

    Attributes:
        value: The text or the boolean, or the label of a level. `True` and `"true"` are two options.
        description: Its meaning, or None.
    """

    value: str | bool
    description: str | None = None

    @property
    def text(self) -> str:
        """The value for formats without booleans."""
        return self.value if isinstance(self.value, str) else str(self.value).lower()


class DecisionQuestion(Value, frozen=True):
    """A question with closed answers: whether something is true, one of some options, or a level of a scale.

    Attributes:
        kind: The kind of its answers.
        instructions: The question.
        options: The options or, in their order, the levels. A predicate has none.
        name: The client's name for it, which no provider gets, or None.
    """

    kind: Kind
    instructions: str
    options: tuple[Option, ...] = ()
    name: str | None = None

    def texts(self) -> Iterator[str]:
        """Yield every text of it that a provider gets."""
        yield self.instructions
        for option in self.options:
            yield option.text
            if option.description is not None:
                yield option.description


class DecisionRequest(InputRequest, frozen=True):
    """A request for a decision about each question.

    Attributes:
        model: The model that the client asked for. The provider's model is in the `Target`.
        input: The text or the messages that the questions are about. A message may have a `JsonPart`.
        questions: The questions, in the order of the answers.
        extra: Top-level fields that some providers take, such as `safety_identifier`, as parsed JSON.
        unread: Names of fields that are not sent.
        before: The questions of the calls before this one, if it is a part of a longer request. They are not sent.
        after: Those of the calls after it. Each call goes only where all can go.
    """

    use: ClassVar[str] = "decisions"
    is_whole: ClassVar[bool] = True
    shown_as: ClassVar[tuple[tuple[str, ...], tuple[str, ...]] | None] = ((), ("messages",))

    model: str
    input: str | tuple[Message, ...]
    questions: tuple[DecisionQuestion, ...]
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()
    before: tuple[DecisionQuestion, ...] = ()
    after: tuple[DecisionQuestion, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The input as messages: a text is that of the user."""
        return (UserMessage(self.input),) if isinstance(self.input, str) else self.input

    @property
    def images(self) -> list[ImagePart]:
        """The images of the input, in their order."""
        contents = [message.content for message in self.messages if isinstance(message.content, tuple)]
        return [part for content in contents for part in content if isinstance(part, ImagePart)]

    def texts(self) -> Iterator[str]:
        yield from self.texts_of_input()
        for question in self.questions:
            yield from question.texts()

    def texts_of_input(self) -> Iterator[str]:
        """Yield every text of the input that a provider gets."""
        for message in self.messages:
            if isinstance(message.content, str):
                yield message.content
            else:
                yield from (part.text for part in message.content or () if isinstance(part, TextPart))
            if isinstance(message, AssistantMessage):
                yield from [message.refusal] if message.refusal is not None else ()
                yield from (text for call in message.tool_calls for text in (call.name, call.arguments))

    def needs(self) -> SizedNeeds:
        urls, limits = [part.url for part in self.images], _limits_of((*self.before, *self.questions, *self.after))
        has = {"vision": bool(urls), "image_url": any(url[:5].lower() != "data:" for url in urls)}
        features = frozenset([*(name for name, is_needed in has.items() if is_needed), *(name for name, _ in limits)])
        parameters, moving = frozenset(self.extra), moving_fields(self.extra)
        return SizedNeeds(features, parameters, moving, use=self.use, unread=self.unread, limits=limits)

    def bound(self) -> CostBound:
        """See `InputRequest`. Some servers read the input once a question, and count a token for each answer."""
        images = [(image,) for image in self.images]
        again: list[str | tuple[ImagePart, ...]] = [*self.texts_of_input(), *images]
        return CostBound([*self.texts(), *images], questions=len(self.questions), again=again)

    def checked(self, answer: SentDecisions, facts: object) -> DecisionResult:
        """See `InputRequest`. The answers are compared with the questions; then their options have positions."""
        asked = {f"{number}": question for number, question in enumerate(self.questions, 1)}
        if answer.answers.keys() - asked.keys():
            raise malformed(f"{len(answer.answers)} answers for {len(asked)} questions")
        decisions = tuple(_decided(question, answer, number) for number, question in asked.items())
        return DecisionResult(decisions, answer.usage, answer.model)


def _limits_of(questions: Sequence[DecisionQuestion]) -> tuple[tuple[str, int], ...]:
    """Return what the questions need that not every provider has: the path in the request, a word, and how many."""
    found: dict[str, tuple[str, int]] = {}
    for place, question in enumerate(questions):
        word = "levels" if question.kind == "score" else "choices"
        path, texts = f"questions[{place}].{word}", [option.text for option in question.options]
        if len(texts) > found.get(word, ("", 0))[1]:
            found[word] = path, len(texts)
        if question.kind == "choice":
            if len({*texts}) < len(texts):
                found.setdefault("types", (path, 1))
            # A plain text has neither white space at an end nor control characters, and is not empty.
            plain = (bool(it) and it == it.strip() and all(category(sign) != "Cc" for sign in it) for it in texts)
            if (wrong := next((at for at, is_plain in enumerate(plain) if not is_plain), None)) is not None:
                found.setdefault("characters", (f"{path}[{wrong}].value", 1))
    return tuple((f"{path}.{word}", size) for word, (path, size) in found.items())


class SentDecisions(InputAnswer, frozen=True):
    """The answers of a provider before they are compared with the questions.

    Attributes:
        answers: The answers as OpenAI writes them, by the number of their question, from `"1"`.
        usage: Token counts, or None if the provider reported none.
        model: The model that answered, or empty.
        by_text: Booleans and numbers of levels are texts in `probabilities`, because they were keys of a map.
        is_blocked: The provider has refused to answer the questions that have no answer.
    """

    answers: Mapping[str, Mapping[str, object]]
    usage: Usage | None = None
    model: str = ""
    by_text: bool = False
    is_blocked: bool = False


class DecisionAnswer(Value, frozen=True):
    """The answer to one question, with what its kind has: a predicate has a probability, a refusal nothing.

    The options are known by their positions: `probabilities` are in their order, `chosen` is that of a choice, and
    `score` is the expected level, counted from 0. The greatest of them is the `confidence` if the vendor states none.
    """

    kind: Kind | Literal["refusal"]
    probability: float | None = None
    probabilities: tuple[float, ...] = ()
    chosen: int | None = None
    score: float | None = None
    confidence: float | None = None


class DecisionResult(InputAnswer, frozen=True):
    """The decisions of one request, in the order of its questions. `model` is the one that answered, or empty."""

    decisions: tuple[DecisionAnswer, ...]
    usage: Usage | None = None
    model: str = ""


def _decided(question: DecisionQuestion, answer: SentDecisions, number: str) -> DecisionAnswer:
    """Return the decision about a question. Raises ProviderFailed if its answer is missing, or is not whole."""
    sent = answer.answers.get(number, {"type": "refusal"} if answer.is_blocked else {})
    if sent.get("type") == "refusal":
        return DecisionAnswer("refusal")
    if sent.get("type") != question.kind:
        raise malformed("a question has no answer, or one of another kind")
    stated = sent.get("confidence")
    confidence = None if stated is None else _number(stated)
    if question.kind == "predicate":
        return DecisionAnswer("predicate", _number(sent.get("probability")))
    is_score, values = question.kind == "score", [option.value for option in question.options]
    keys: Sequence[object] = range(len(values)) if is_score else values
    if answer.by_text:
        keys = [f"{key}" for key in keys] if is_score else [option.text for option in question.options]
    places = {_typed(key): place for place, key in enumerate(keys)}
    given = [as_map(one) for one in as_list(sent.get("probabilities"))]
    shares = {places.get(_typed(one.get("value"))): _number(one.get("probability")) for one in given}
    if len(given) != len(keys) or shares.keys() != {*range(len(keys))}:
        raise malformed("an option has no probability, or several")
    ordered = tuple(shares[place] for place in range(len(keys)))
    if abs(math.fsum(ordered) - 1) > _TOLERANCE + _TOLERANCE_OF_AN_OPTION * len(keys):
        raise malformed("the probabilities of the options do not add up to 1")
    confidence = max(ordered) if confidence is None else confidence
    if is_score:
        last = len(keys) - 1
        level = _number(sent.get("score"), last, _TOLERANCE_OF_A_SCORE)
        return DecisionAnswer("score", None, ordered, None, min(max(level, 0), last), confidence)
    if (chosen := places.get(_typed(sent.get("choice")))) is None:
        raise malformed("an answer is not one of the options")
    return DecisionAnswer("choice", None, ordered, chosen, None, confidence)


def _typed(value: object) -> tuple[str, object]:
    """Return a key that distinguishes a boolean from a number: `True == 1`. Any other value equals no key."""
    return (type(value).__name__, value) if isinstance(value, str | int) else ("", None)


def _number(value: object, most: float = 1, tolerance: float = 0) -> float:
    """Return a number from 0 to `most`. Raises ProviderFailed for anything else, also for what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -tolerance <= value <= most + tolerance:
        raise malformed("a number of an answer is missing, or out of its range")
    return value
