"""Requests that are not chats, for all who need not know their kind: the base of a request, of an answer, and of a use.

A kind is a class of requests, one of answers, and an `InputUse`, in a folder of `providers/inputs`. The table of all
uses is `providers/inputs/uses.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

from providers.adapter import Adapter, Capabilities, Target
from providers.catalogue.held_audio import HeldAudio
from providers.catalogue.prices import Price
from providers.chat import ImagePart, Usage
from providers.failures import Failure
from providers.matching.requirements import Requirements
from providers.reading.event_stream import StreamShortcuts
from providers.value import Value, replace
from providers.wire import WireResponse


class CostBound(NamedTuple):
    """The bounds of the cost of a request.

    Attributes:
        texts: The texts with its tokens, and its images.
        output: The most tokens of output.
        search_units: The most search units.
        questions: The number of its questions: their answers have no output. 0 for a use without questions.
        again: The texts that some servers read once more for each further question.
    """

    texts: Sequence[str | tuple[ImagePart, ...]]
    output: int = 1
    search_units: int = 0
    questions: int = 0
    again: Sequence[str | tuple[ImagePart, ...]] = ()


class InputAnswer(Value, frozen=True):
    """The base of the whole answer to a request that is not a chat. Its `usage` is None if the provider states none."""

    @property
    def usage(self) -> Usage | None:
        raise NotImplementedError

    @property
    def search_units(self) -> int | None:
        """The searches that the provider charges, or None if it counts tokens."""
        return None

    @property
    def is_large(self) -> bool:
        """Whether it is written in a thread, so that no other request waits."""
        return False


class InputRequest(Value, frozen=True):
    """The base of a request that is not a chat. A kind has what differs from what stands here."""

    use: ClassVar[str] = ""
    """The name of the use."""
    folded: ClassVar[bool] = False
    """Always false: a stream is asked for only where the client gets one."""
    is_judged: ClassVar[bool] = False
    """Its texts are judged, and logged only when they have passed."""
    is_audio: ClassVar[bool] = False
    """Its cost has amounts next to tokens: see `held`."""
    has_file: ClassVar[bool] = False
    """A provider may refuse its file, which another one takes."""
    is_whole: ClassVar[bool] = False
    """All results of a request come from one deployment, also those of several calls, whose values are numbered
    together."""
    shown_as: ClassVar[tuple[tuple[str, ...], tuple[str, ...]] | None] = None
    """The names of its parts as a user is shown them whose consent is needed: of itself, and of its texts. None:
    `input`, and its further fields."""

    @property
    def model(self) -> str:
        raise NotImplementedError

    @property
    def extra(self) -> Mapping[str, object]:
        raise NotImplementedError

    @property
    def stream(self) -> bool:
        """Whether the answer is a stream. Otherwise it is one JSON body."""
        return False

    @property
    def user(self) -> str | None:
        """The identifier of the user in the request."""
        return None

    @property
    def unread(self) -> frozenset[str]:
        """The names of fields that are not sent."""
        return frozenset()

    @property
    def heard_s(self) -> float:
        """The seconds of audio that a provider reads before it can begin to answer."""
        return 0.0

    def texts(self) -> Iterator[str]:
        """Yield every text of the request's input. Tokens are not text."""
        raise NotImplementedError

    def needs(self) -> Requirements:
        """Return what the request requires of a deployment."""
        raise NotImplementedError

    def bound(self) -> CostBound:
        """Return what bounds the cost of the request."""
        return CostBound([*self.texts()])

    def held(self, facts: Any, price: Price | None, text_bound: int) -> HeldAudio | None:
        """Return the audio of a call to a model with these facts, whose texts have at most `text_bound` tokens."""
        return None

    def fitted(self, dropped: Set[str], voices: Mapping[str, str], boundary: str) -> Self:
        """Return the request as a deployment gets it: without the dropped fields, and with the vendor's voice.

        `boundary` is the line between the parts of a form, which a client can't know.
        """
        if dropped.isdisjoint(self.extra):
            return self
        changes: Any = {"extra": {name: value for name, value in self.extra.items() if name not in dropped}}
        return replace(self, **changes)

    def digested(self) -> Self:
        """Return the request with all that distinguishes it from others, for a digest."""
        return self

    def checked(self, answer: Any, facts: Any) -> InputAnswer:
        """Return the answer of a model with these facts if it has a usable result for each input.

        Raises ProviderFailed.
        """
        raise NotImplementedError


class SizedNeeds(Requirements, frozen=True):
    """The requirements of a request with numbers that each deployment bounds: its size, and the name of its voice.

    `limits` has further numbers by feature, such as 300 for `questions[2].choices.choices`: the path of what needs it
    in the request, and a word.
    """

    size: int = 0
    voice: str = ""
    limits: tuple[tuple[str, int], ...] = ()


class ServingDeployment(Protocol):
    """A deployment, as a use sees it. `judges_as`: how its model is asked as a judge, if the operator has stated it."""

    @property
    def adapter(self) -> Adapter: ...
    @property
    def model(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def judges_as(self) -> Any: ...
    @property
    def voices(self) -> Mapping[str, str]: ...
    @property
    def audio_bytes(self) -> int | None: ...


class InputUse(Value, frozen=True):
    """One use."""

    is_offered: ClassVar[bool] = False
    """`/v1/capabilities` states what it offers."""

    name: str
    """Its name, which is also that of the adapter's member."""
    paths: tuple[str, ...]
    """The paths of the gateway's own API."""
    output: str = ""
    """The kind of its answers in OpenRouter's list of models, or empty if that has none."""
    number: str = ""
    """The word for one of its results, if those of two models cannot be compared."""
    methods: tuple[str, ...] = ()
    """The methods of Gemini's API that work for it."""
    media: frozenset[str] = frozenset()
    """The features that each of its requests needs because of what it contains."""

    def format_of(self, adapter: Adapter, model: str = "", guard: Any = None) -> Any:
        """Return the wire format of this use for a model of an adapter, or None if its provider has none."""
        return getattr(adapter, self.name, None)  # an isinstance costs ten times more

    def facts(self, form: Any, model: str) -> Any:
        """Return the facts of a model in a wire format, or None if the use has none."""
        return form.facts(model)

    def facts_at(self, able: Iterable[ServingDeployment]) -> list[Any]:
        """Return the facts of the deployments that have the use."""
        forms = [(self.format_of(it.adapter, it.model), it.model) for it in able]
        return [self.facts(form, model) for form, model in forms if form is not None]

    def capabilities(self, form: Any, model: str) -> Capabilities:
        """Return what a model can do, in the form in which routing compares it with a request."""
        found: Capabilities = form.facts(model).capabilities
        return found

    def listed(self, provider: str) -> Mapping[str, object]:
        """Return the models of a provider whose facts are known, by name or glob pattern."""
        return {}

    def doubt(self, form: Any, asked: ServingDeployment) -> tuple[str, str] | None:
        """Return what no source confirms about the use at the deployment's origin, and what to do; None if nothing."""
        return None

    def judged(self, failed: Failure, asked: ServingDeployment) -> Failure:
        """Return the failure of a call of this use, as `classify_error` of the deployment's adapter has judged it."""
        return failed

    def reader(self, request: Any, form: Any, head: WireResponse, target: Target) -> StreamShortcuts:
        """Return a parser of the response in a wire format, as events of a stream."""
        raise TypeError(f"a {type(request).__name__} is not streamed")

    def fitting(self, asked: ServingDeployment, needs: SizedNeeds) -> frozenset[str]:
        """Return the features of a deployment that depend on the size of a request, and on its voice."""
        return frozenset()

    def refusal(self, missing: Set[str], every: Sequence[ServingDeployment]) -> tuple[str, str]:
        """Return the feature to name of those that no deployment has for a request with `SizedNeeds`, and why."""
        raise NotImplementedError

    def offer(self, able: Sequence[ServingDeployment]) -> Mapping[str, object] | None:
        """Return what these deployments offer an app together, or None if there is nothing."""
        return None

    def limits(self, route: Sequence[ServingDeployment], most: str) -> tuple[int, int | None]:
        """Return the most inputs and tokens of a call that every deployment of the route takes.

        `most` is the name of the fact with the most inputs.
        """
        known = self.facts_at(route)
        tokens = [one.most_tokens for one in known if one.most_tokens is not None]
        return min((getattr(one, most) for one in known), default=1), min(tokens, default=None)

    def calls_of(self, request: Any, route: Sequence[ServingDeployment]) -> tuple[Any, ...]:
        """Return the calls of a request. Each is small enough for every deployment of the route."""
        return (request,)

    def joined(self, answers: Sequence[Any]) -> InputAnswer:
        """Return one answer with the results of all calls in order."""
        (answer,) = answers
        found: InputAnswer = answer
        return found


_Input = TypeVar("_Input")
_BYTES_PER_TOKEN = 2
"""Texts have more bytes than this for each token, in any script, so that an estimate is too high and not too low."""


def tokens_in(*texts: str) -> int:
    """Return an estimate of the tokens of all texts together."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts) // _BYTES_PER_TOKEN


def parts_of(
    inputs: Sequence[_Input], size_of: Callable[[_Input], int], most_inputs: int, most_tokens: int | None
) -> Iterator[slice]:
    """Yield the part of the inputs that each call has, in order.

    An input that is too long by itself is a call of its own, which the provider refuses. Without `most_tokens`, inputs
    have no size.
    """
    start = tokens = 0
    for place, one in enumerate(inputs):
        size = 0 if most_tokens is None else size_of(one)
        is_over = most_tokens is not None and tokens + size > most_tokens
        if place > start and (place - start >= most_inputs or is_over):
            yield slice(start, place)
            start, tokens = place, 0
        tokens += size
    yield slice(start, len(inputs))
