"""What may a call cost at most? `worst_cost` answers it before the call is sent, and `largest_cap` the reverse. Pure.

The worst cost is the bound of the input, and for each choice the cap and what the model may think in addition, at the
dearest rates that this input can reach, with the fees of tools that the provider may run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.model.deployment import Deployment, format_of
from gateway.model.served import INPUTS, MeasuredInput
from gateway.usage.amounts import CallAmount, ExchangeRates
from gateway.usage.lost_call import RunningCost
from providers import chat
from providers.adapter import BudgetsThinking
from providers.catalogue.held_audio import HeldAudio
from providers.catalogue.prices import SEARCH, Price, Rates, tool_fees
from providers.chat.messages import Part
from providers.matching.requirements import moving_fields
from providers.served import InputRequest

LEAST_CAP = 256
"""A request whose budgets pay for fewer tokens than this is refused, instead of getting such a short answer."""

LEAST_CAP_SENT = 16
"""OpenAI's Responses API accepts no smaller cap, so a smaller one is raised."""

UNKNOWN_MAXIMUM = 16_384
"""The longest answer of a model whose maximum the catalogue does not know. It is sent as a cap under a budget."""

UNLIMITED = 2**63
"""The largest cap where the output costs nothing."""

_MOST_OUTPUT = 10**12
"""A client may state any cap, and the gate counts in 64 bits."""
_PER_REQUEST, _PER_MESSAGE = 64, 16
_PER_SEPARATOR = 2
"""Where a vendor takes only a string, an empty line is between the texts (`prompt_text`)."""
_PER_REQUEST_WITH_TOOLS = 1_024
"""Vendors add text of their own that explains tools to the model."""
_PER_IMAGE = 16_384
"""The most tokens that a vendor counts for one image (Qwen-VL with its largest setting)."""
_BASE64_PER_AUDIO_TOKEN = 16
"""A second of audio has at most 32 tokens (Gemini), and at least about 1,000 bytes."""
_THINKS_BY_DEFAULT = frozenset({"thinking_default", "thinking_only"})


class InputSize(NamedTuple):
    """The input of a request in tokens, measured at once: with many objects each look at it takes long."""

    bound: int
    """See `input_bound`."""
    tokens: int
    """See `count_tokens`."""
    usual: int
    """See `unlearned_input`."""
    most: int | None
    """See `most_input`."""


class CallFacts(msgspec.Struct, gc=False):
    """The facts that decide what a call may cost."""

    request: chat.ChatRequest
    deployment: Deployment
    conversion: ExchangeRates
    price: Price | None
    """The price that holds when the call is admitted, or None if it is unknown."""
    tools: Mapping[str, int] | None
    """How many calls of each tool with a fee are held and charged, or None."""
    bound: int
    """The most tokens of its input."""
    choices: int
    """How many choices were asked for."""
    thinking: int
    """The tokens of thinking that the cap of a choice does not limit."""
    audio: HeldAudio | None = None
    """The audio of a transcription or of speech, which bounds its tokens, or None for any other call."""
    size: InputSize | None = None
    output: int | None = None
    """The most tokens of its output where no cap decides it, or None."""

    def running(self, input_tokens: int, tokens_per_s: float) -> RunningCost:
        """Return what the call costs if it is lost."""
        price = self.price
        if price is None:
            return RunningCost(input_tokens, tokens_per_s)
        rates, tools = price.rates_for(input_tokens) if price.above else price.rates, self.tools
        fees = 0 if tools is None else tool_fees(price, tools)
        if self.audio is not None and price.audio is not None:
            fees += price.audio.fee(self.audio.own, rates)
        return RunningCost(input_tokens, tokens_per_s, rates.input, _dearest(rates)[1], fees)

    @property
    def takes_cap(self) -> bool:
        """Whether the deployment takes a cap of the output."""
        return self.audio is None and "max_tokens" in self.deployment.capabilities.parameters

    @property
    def is_priced(self) -> bool:
        """Whether the cost is known in the operator's currency."""
        return self.price is not None and self.conversion.knows(self.price.currency)


def facts_of(
    request: chat.ChatRequest,
    deployment: Deployment,
    conversion: ExchangeRates,
    now_s: float,
    size: InputSize | None = None,
) -> CallFacts:
    """Return the facts of a call that is admitted now. `size`: of its input, if it was measured."""
    searches = request.search_units if isinstance(request, MeasuredInput) else 0
    price, tools = charged_by(deployment, request.extra, now_s, searches)
    bound, audio, output = input_bound(request) if size is None else size.bound, None, None
    if isinstance(request, MeasuredInput) and request.audio is not None:
        audio = _held_audio(request.audio, deployment, price, bound)
        bound, output = (audio.input, audio.output) if audio is not None else (bound, None)
    elif isinstance(request, MeasuredInput) and deployment.price_use(request.use) == "decisions":
        price = price.for_use("decisions") if price is not None else None
        again, output = _read_again(request, deployment)
        bound += again
    return CallFacts(
        request, deployment, conversion, price, tools,
        bound, request.n or 1, _thinking_apart(request, deployment), audio, size, output,
    )  # fmt: skip


def _read_again(request: MeasuredInput, deployment: Deployment) -> tuple[int, int]:
    """Return the tokens that a server reads again for further questions, and those that it counts as output.

    Of a judge with thresholds its questions, which are not a part of the request, count too.
    """
    questions, own, again = request.questions, 0, chat.ChatRequest("", request.again)
    if deployment.verdicts is not None and not questions:
        asked = deployment.verdicts.thresholds
        questions, own, again = len(asked), sum(_PER_MESSAGE + _bytes(it.ask) for it in asked), request
    form = format_of(deployment, "decisions")
    if form is None or not INPUTS["decisions"].facts(form, deployment.model).rereads:
        return own, 0
    return own + (questions - 1) * input_bound(again), questions


def _held_audio(request: InputRequest, deployment: Deployment, price: Price | None, bound: int) -> HeldAudio | None:
    form = format_of(deployment, request.use)
    facts = INPUTS[request.use].facts(form, deployment.model) if form is not None else None
    return request.held(facts, price, bound)


def charged_by(
    deployment: Deployment, extra: Mapping[str, object], now_s: float, searches: int = 0
) -> tuple[Price | None, dict[str, int] | None]:
    """Return the price of a deployment at a time, and the calls with a fee: of tools that the provider may run.

    `extra` has the unknown fields of the request as it is sent, and `searches` the search units of a rerank.
    """
    price = deployment.price
    if price is not None and price.valid_from is not None:
        price = price.at(now_s)
    if price is None or not price.tool_calls or not (extra or searches):
        return price, None
    switched_on = {name.rpartition(".")[2] for name in moving_fields(extra)} if extra else frozenset[str]()
    calls = {tool: 1 for tool, _ in price.tool_calls if tool in switched_on}
    if searches and price.search is not None:
        calls[SEARCH] = searches
    return price, calls or None


def worst_cost(facts: CallFacts, cap: int) -> tuple[int, CallAmount | None]:
    """Return the most tokens of output of a call with a cap of each choice, and the most that it may cost.

    The amount is None if the price is unknown.
    """
    output, price = min((max(cap, LEAST_CAP_SENT) + facts.thinking) * facts.choices, _MOST_OUTPUT), facts.price
    if facts.output is not None:
        output = facts.output
    if price is None:
        return output, None
    pico = _most_pico(facts.bound, output, price)
    if facts.audio is not None:
        pico += facts.audio.most_fee()
    if facts.tools is not None:
        pico += tool_fees(price, facts.tools)
    return output, facts.conversion.amount_of(pico, price.currency)


def largest_cap(facts: CallFacts, *, tokens: int | None = None, nano: int = 0) -> int:
    """Return the largest cap of each choice with which the worst cost is within an amount. Negative: there is none.

    The amount is `nano` units of the operator's currency if `tokens` is None.
    """
    if tokens is not None:
        output = tokens - facts.bound
    else:
        price = facts.price
        if price is None or nano < 0:
            return -1
        pico = facts.conversion.pico_of(nano, price.currency)
        if facts.tools is not None:
            pico -= tool_fees(price, facts.tools)
        per_output = max(_dearest(rates)[1] for rates in _reached(price, facts.bound))
        rest = pico - _most_pico(facts.bound, 0, price)
        if not per_output:
            return UNLIMITED if rest >= 0 else -1
        output = rest // per_output
    return output // facts.choices - facts.thinking


def input_bound(request: chat.ChatRequest) -> int:
    """Return the most input tokens of a request: no tokenizer makes more tokens than a text has bytes in UTF-8."""
    messages = request.messages
    total = (_PER_REQUEST_WITH_TOOLS if request.tools else _PER_REQUEST) + _PER_MESSAGE * len(messages)
    if type(messages) is chat.Texts:
        total += _bytes("".join([entry["content"] for entry in messages.entries]))
        messages = ()
    for message in messages:
        content = message.content
        if isinstance(content, str):
            total += _bytes(content)
        elif content is not None:
            total += _parts_bound(content)
        if isinstance(message, chat.AssistantMessage):
            total += _bytes(message.reasoning or "") + _bytes(message.refusal or "")
            for call in message.tool_calls:
                total += _PER_MESSAGE + _bytes(call.name) + _bytes(call.arguments) + _bytes(call.id)
        if isinstance(message, chat.ToolMessage):
            total += _bytes(message.tool_call_id)
        elif message.name is not None:
            total += _bytes(message.name)
    for tool in request.tools or ():
        total += _PER_MESSAGE + _bytes(tool.name) + _bytes(tool.description or "") + _json_bytes(tool.parameters)
    if isinstance(request.response_format, chat.JsonSchemaFormat):
        total += _PER_MESSAGE + _bytes(request.response_format.name) + _json_bytes(request.response_format.schema)
        total += _bytes(request.response_format.description or "")
    if request.extra:
        total += _json_bytes(request.extra)
    return total


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _json_bytes(value: Mapping[str, object] | None) -> int:
    if value is None:
        return 0
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError):  # such as a lone surrogate
        return len(repr(value).encode("utf-8", "replace"))


def _parts_bound(parts: Sequence[Part]) -> int:
    total = _PER_SEPARATOR * max(sum(isinstance(part, chat.TextPart) for part in parts) - 1, 0)
    for part in parts:
        match part:
            case chat.TextPart(text):
                total += _bytes(text)
            case chat.ImagePart():
                total += _PER_IMAGE
            case chat.AudioPart(data):
                total += _PER_MESSAGE + -(-len(data) // _BASE64_PER_AUDIO_TOKEN)
            case chat.FilePart(data):
                total += max(_PER_IMAGE, len(data))
    return total


def longest_answer(deployment: Deployment) -> int:
    """Return the most output tokens that the deployment's model writes for one choice."""
    return deployment.target.facts.output_tokens or UNKNOWN_MAXIMUM


def _thinking_apart(request: chat.ChatRequest, deployment: Deployment) -> int:
    """Return the tokens of thinking that the cap of a choice does not limit."""
    if deployment.capabilities.limits_thinking or request.reasoning_effort == "none":
        return 0
    facts = deployment.target.facts
    thinks = _asks_to_think(request) or not facts.known or not facts.flags.isdisjoint(_THINKS_BY_DEFAULT)
    return longest_answer(deployment) if thinks else 0


def thinking_cap(request: chat.ChatRequest, deployment: Deployment) -> int:
    """Return the least cap with which the request asks for as much thinking as without one, or 0 if none changes it.

    Another number of tokens of thinking would be another prompt for the provider's cache.
    """
    adapter = deployment.adapter
    if request.reasoning_effort is None or not isinstance(adapter, BudgetsThinking):
        return 0
    tokens = adapter.thinking_tokens(request, deployment.target)
    return tokens + LEAST_CAP if tokens else 0


def thinks(request: chat.ChatRequest, deployment: Deployment) -> bool:
    """Return whether the model is known to think before it answers this request."""
    if request.reasoning_effort == "none":
        return False
    facts = deployment.target.facts
    return _asks_to_think(request) or "reasoning" in facts.features or not facts.flags.isdisjoint(_THINKS_BY_DEFAULT)


def _asks_to_think(request: chat.ChatRequest) -> bool:
    return request.reasoning_effort is not None or "enable_thinking" in request.extra


def _most_pico(bound: int, output: int, price: Price) -> int:
    """Return the most that these tokens cost, in 1e-12 units of the price's currency ("pico")."""
    per_input, per_output = _dearest(price.rates)
    if price.above:
        per_input, per_output = map(max, zip(*map(_dearest, _reached(price, bound)), strict=True))
    return bound * per_input + output * per_output


def _reached(price: Price, bound: int) -> list[Rates]:
    """Return the rates of the tiers that an input can reach."""
    return [price.rates, *(dearer for more_than, dearer in price.above if bound > more_than)]


@lru_cache(maxsize=10_000)
def _dearest(rates: Rates) -> tuple[int, int]:
    """Return the highest price of a token of the input and of the output."""
    per_input = max(rates.input, rates.cache_write or 0, rates.cache_write_1h or 0, rates.cached_input or 0)
    return per_input, max(rates.output, rates.reasoning or 0)
