"""Estimate the usage of calls that no provider counted, from what was seen of them and what other calls have used."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from heapq import nsmallest
from itertools import islice
from math import ceil, log
from pathlib import Path

import msgspec

from gateway.usage.token_count import count_tokens
from gateway.usage.usage_row import MOST_TOKENS
from gateway.usage.worst_cost import LEAST_CAP_SENT, InputSize, input_bound
from providers import chat
from providers.chat.messages import Part
from providers.matching.requirements import moving_fields

_UNLEARNED_TOKENS_PER_S = 50.0
_UNLEARNED_ANSWER = 4_096
_UNLEARNED_THINKING = 16_384
_CAPPED_FACTOR = 2
"""How many times longer an answer may have been that ended at a cap of ours."""
_CAP_FACTOR = 4
_BYTES_PER_TOKEN = 3
"""A low number, so that the estimate is high. A Chinese character has three bytes and is usually one token."""
_TOKENS_OF_AN_IMAGE = 1_290
"""An image that Gemini generates, up to 1024 x 1024 pixels: ai.google.dev/gemini-api/docs/pricing, read 2026-11-26."""
_SAMPLES = 100
_FEWEST_RATIOS = 20
_MARGIN = 1.3
_NEAREST = 20
_MOST_KNOWN = 4_096
_MOST_KEPT = 512
"""How many clients and deployments are kept for the next start, those that were met last."""
_WEIGHT = 0.1
_INSTANT_S = 0.05
_ADDED_BY_VENDORS = 4_096


class SeenOutput(msgspec.Struct, eq=False):
    """The part of an answer that was seen: the pieces of text, reasoning and arguments, and their bytes."""

    deltas: int = 0
    size: int = 0

    def add(self, events: tuple[chat.StreamEvent, ...]) -> None:
        """Count the pieces of a batch of events."""
        for event in events:
            match event:
                case chat.TextRun(pieces):
                    self.deltas += len(pieces)
                    self.size += sum(map(len, pieces))
                case chat.TextDelta(text) | chat.ReasoningDelta(text) | chat.RefusalDelta(text):
                    self.add_text(text)
                case chat.ImageDelta():
                    self.add_image()
                case chat.ToolCallDelta():
                    self.add_text(event.arguments)
                    if event.name is not None:
                        self.add_text(event.name)

    def add_text(self, text: str) -> None:
        """Count a piece of text."""
        if text:
            self.deltas += 1
            self.size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))

    def add_image(self) -> None:
        """Count an image as about as many tokens as vendors do."""
        self.deltas += 1
        self.size += _TOKENS_OF_AN_IMAGE * _BYTES_PER_TOKEN

    @property
    def tokens(self) -> int:
        """About how many tokens it has, rather too many than too few."""
        return max(self.deltas, -(-self.size // _BYTES_PER_TOKEN))


def input_size(request: chat.ChatRequest) -> InputSize:
    """Measure the input of a call."""
    bound = input_bound(request)
    return InputSize(bound, count_tokens(request), unlearned_input(request, bound), most_input(request, bound))


def most_input(request: chat.ChatRequest, bound: int) -> int | None:
    """Return the highest input that a provider's count may state, or None if the provider adds an unknown part.

    A vendor may add a text of its own to the bound of the input.
    """
    if request.extra and moving_fields(request.extra):
        return None
    if type(request.messages) is not chat.Texts and any(_has_url(message.content) for message in request.messages):
        return None
    return 2 * bound + _ADDED_BY_VENDORS


def _has_url(content: str | tuple[Part, ...] | None) -> bool:
    """Return whether the provider reads a URL for a message."""
    if content is None or isinstance(content, str):
        return False
    return any(isinstance(part, chat.ImagePart) and part.url[:5].lower() != "data:" for part in content)


def is_plausible(usage: chat.Usage | None, most_input: int | None = None, most_output: int | None = None) -> bool:
    """Return whether a provider's count can be true. If not, it counts as absent. None stands for an unknown bound."""
    if usage is None:
        return False
    prompt, completion, reasoning = usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    if not type(prompt) is type(completion) is type(reasoning) is type(cached) is type(written) is int:
        return False
    if completion < 0 or reasoning < 0 or cached < 0 or written < 0:
        return False
    if prompt > MOST_TOKENS or completion > MOST_TOKENS or written > MOST_TOKENS:
        return False
    if (most_input is not None and prompt > most_input) or (most_output is not None and completion > most_output):
        return False
    return 0 < prompt >= cached and reasoning <= completion


def unlearned_input(request: chat.ChatRequest, bound: int) -> int:
    """Return the usual tokens of an input at a deployment of which nothing is known: a third of the bytes.

    Half of them where most of the text is not ASCII, of which a token has fewer bytes.
    """
    texts = (
        [entry["content"] for entry in request.messages.entries]
        if type(request.messages) is chat.Texts
        else [chat.text_of(message.content) for message in request.messages]
    )
    foreign = sum(len(text) - len(text.encode("ascii", "ignore")) for text in texts if not text.isascii())
    return -(-bound // (2 if 2 * foreign > sum(map(len, texts)) else 3))


class KeptUsage(msgspec.Struct):
    """The usage that was learned, as it is kept for the next start.

    It has the lengths of answers by client and model, and by deployment the tokens in a second and the ratios, counts
    and factors of inputs.
    """

    answers: list[tuple[tuple[str, str], list[float]]] = []
    speeds: dict[str, float] = {}
    inputs: dict[str, tuple[list[float], list[tuple[int, int]], list[float]]] = {}

    @classmethod
    def read(cls, file: Path) -> KeptUsage:
        """Return what the file has; nothing if it can't be read."""
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError):
            return cls()

    def write(self, file: Path) -> None:
        """Write the file, if anything is known. Of several processes the last one writes: they see similar calls."""
        if not self.inputs:
            return
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        with suppress(OSError):
            draft.touch(mode=0o600)
            draft.write_bytes(msgspec.json.encode(self))
            draft.replace(file)


class _Latest:
    """The latest samples, at most `_SAMPLES`, their count, and the largest of them, which is read for every request."""

    __slots__ = ("count", "largest", "values")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values: deque[float] = deque(values, maxlen=_SAMPLES)
        self.count = len(self.values)
        self.largest = max(self.values, default=0.0)

    def add(self, value: float) -> None:
        """Add a number, and forget the oldest if there are too many."""
        values, leaving = self.values, None
        if self.count == _SAMPLES:
            leaving = values[0]
        else:
            self.count += 1
        values.append(value)
        if value >= self.largest:
            self.largest = value
        elif leaving == self.largest:
            self.largest = max(values)


class LearnedUsage:
    """The usage of earlier calls of this process, and of those before its start: lengths and speeds of answers, inputs.

    `kept` is what `to_keep` returned before the start.
    """

    def __init__(self, kept: KeptUsage | None = None) -> None:
        kept = kept or KeptUsage()
        self._answers = OrderedDict((owner, _Latest(lengths)) for owner, lengths in kept.answers)
        self._speeds = kept.speeds
        # Of each deployment: the provider's count by our bound, both counts, and the provider's by our own count.
        self._inputs: dict[str, tuple[_Latest, deque[tuple[int, int]], _Latest]] = {
            name: (_Latest(ratios), deque(counts, maxlen=_SAMPLES), _Latest(factors))
            for name, (ratios, counts, factors) in kept.inputs.items()
        }

    def to_keep(self) -> KeptUsage:
        """Return what the next start needs."""
        answers = [(owner, list(one.values)) for owner, one in islice(reversed(self._answers.items()), _MOST_KEPT)]
        inputs = {
            name: (list(ratios.values), list(counts), list(factors.values))
            for name, (ratios, counts, factors) in islice(reversed(self._inputs.items()), _MOST_KEPT)
        }
        return KeptUsage(answers[::-1], dict(islice(reversed(self._speeds.items()), _MOST_KEPT)), inputs)

    def learn(
        self,
        owner: tuple[str, str],
        deployment: str,
        usage: chat.Usage,
        choices: int,
        duration_s: float,
        *,
        at_cap: bool = False,
    ) -> None:
        """Learn from a call that its provider counted.

        An answer that ended at a cap of the gateway would have been longer.
        """
        answers = self._answers.get(owner)
        if answers is None:
            if len(self._answers) >= _MOST_KNOWN:
                self._answers.popitem(last=False)
            answers = self._answers[owner] = _Latest()
        length = -(-usage.completion_tokens // max(choices, 1))
        answers.add(length * _CAPPED_FACTOR if at_cap else length)
        if duration_s > _INSTANT_S and usage.completion_tokens:
            speed = usage.completion_tokens / duration_s
            known = self._speeds.get(deployment, speed)
            self._speeds[deployment] = known + _WEIGHT * (speed - known)

    def learn_input(self, deployment: str, tokens: int, bound: int, own_count: int | None) -> None:
        """Learn from the input of a call that its provider counted.

        The own count is None if the provider may have read more than was sent.
        """
        inputs = self._inputs.get(deployment)
        if inputs is None:
            if len(self._inputs) >= _MOST_KNOWN:
                self._inputs.clear()
                self._speeds.clear()
            inputs = self._inputs[deployment] = _Latest(), deque(maxlen=_SAMPLES), _Latest()
        ratios, counts, factors = inputs
        ratios.add(tokens / max(bound, 1))
        if own_count is not None:
            counts.append((own_count, tokens))
            factors.add(tokens / max(own_count, 1))

    def usual_most(self, owner: tuple[str, str]) -> int:
        """Return the 99th percentile of the tokens of an answer to a client by a model."""
        answers = self._answers.get(owner)
        # Of a hundred samples, the largest is the 99th percentile or above it.
        return (int(answers.largest) if answers and answers.count == _SAMPLES else 0) or _UNLEARNED_ANSWER

    def usual_cap(self, owner: tuple[str, str], *, thinks: bool) -> int:
        """Return a cap that ends next to no answer to a client by a model."""
        answers = self._answers.get(owner)
        if answers is None or answers.count < _SAMPLES:
            return _UNLEARNED_THINKING if thinks else _UNLEARNED_ANSWER
        return max(_CAP_FACTOR * int(answers.largest), LEAST_CAP_SENT)

    def input_tokens(self, deployment: str, bound: int) -> int | None:
        """Return an estimate of the input, which is not below the real number, or None if too little is learned."""
        inputs = self._inputs.get(deployment)
        if inputs is None or inputs[0].count < _FEWEST_RATIOS:
            return None
        found = int(bound * inputs[0].largest * _MARGIN + 0.5) or 1
        return found if found < bound else bound

    def uncounted_input(self, deployment: str, own_count: int) -> int:
        """Return an estimate of an input that its provider has not counted, from the gateway's own count.

        The provider's tokenizer and what it adds to a prompt show in calls of about the same size. The largest ratio of
        the nearest ones counts, so that the estimate is at least the input.
        """
        counts = self._inputs[deployment][1] if deployment in self._inputs else ()
        nearest = nsmallest(_NEAREST, counts, key=lambda count: abs(log(count[0] / own_count)))
        return max([own_count, *(-(-own_count * tokens // counted) for counted, tokens in nearest)])

    def quick_input(self, deployment: str, own_count: int) -> int:
        """Return such an estimate in less time, before the call is sent. It may be higher."""
        inputs = self._inputs.get(deployment)
        return own_count if inputs is None else max(own_count, ceil(own_count * inputs[2].largest))

    def unseen_output(self, deployment: str, duration_s: float) -> int:
        """Return about how many tokens a provider has generated in a time."""
        return int(self.tokens_per_s(deployment) * duration_s) + 1

    def tokens_per_s(self, deployment: str) -> float:
        """Return about how many tokens a provider generates in a second."""
        return self._speeds.get(deployment, _UNLEARNED_TOKENS_PER_S)
