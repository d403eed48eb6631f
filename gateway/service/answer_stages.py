"""The stages of the answer to a chat: who answers is noted, its state is sealed, and how it is shown is decided."""

from __future__ import annotations

import msgspec

from gateway.execution.exchange import AnswerStyle, Exchange
from gateway.execution.judging import Judge
from gateway.execution.run import RunContext
from gateway.execution.structured_output import EMULATED, StructuredOutput
from gateway.execution.upstream_client import Answer
from gateway.model.config_version import ConfigVersion, remember
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.record import AnsweredBy
from gateway.model.region_text import Locale
from gateway.policy.labels import TextSigner, labelling_of, with_help
from gateway.policy.reasoning_seal import REASONING_STATE, ReasoningSeal, seal_of
from gateway.service.decider import Decider
from gateway.usage.worst_cost import charged_by
from providers.chat import ChatRequest
from providers.matching.capability_matching import without_parameters
from providers.reading.json_object import emulated_fields
from providers.value import replace as change


class Turn(msgspec.Struct):
    """One chat under one decision."""

    exchange: Exchange
    own: ChatRequest
    """The request as the client sent it."""
    chat: ChatRequest
    """The request as providers get it, with the text of the region."""
    plan: Plan
    context: RunContext
    """Its limits, checks and record, which all its runs share."""
    has_profile: bool
    """The text of the region is its first message."""
    returns_state: bool = False
    """It brings reasoning state back."""
    judge: Judge | None = None
    """The judges of its region, if there are any."""
    emulated: StructuredOutput | None = None
    """The emulation of its schema, if a step needs it."""
    is_held: bool = False
    """Its stream begins before the answer is known."""
    seal: ReasoningSeal | None = None
    """Seals the reasoning state of a stream."""
    is_judged: bool = False
    """Its input has passed the judges already."""
    tool: str | None = None
    """The name of the tool by which the private model can ask for a hand-off, or None if it may not ask."""


class AnswerStages:
    """The steps that follow an answer. `decider` has the clock, and the keys of seals."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    def note_answer(self, exchange: Exchange, answer: Answer, chat: ChatRequest | None = None) -> None:
        """Record who answers, and at which price."""
        record, deployment = exchange.record, answer.step.deployment
        price, tools = deployment.price, None
        if price is not None and (price.valid_from is not None or price.tool_calls):
            extra = without_parameters(chat, answer.step.dropped).extra if chat is not None and chat.extra else {}
            price, tools = charged_by(deployment, extra, exchange.decided_s)
        names = deployment.name, deployment.provider, deployment.model
        record.answered_by = AnsweredBy(*names, deployment.places, price, tools, deployment.residency.processes)
        record.shown.dropped = answer.step.dropped
        record.shown.redacted = answer.wrapped.counts if answer.wrapped is not None else {}

    def noted(self, turn: Turn, answer: Answer) -> Answer:
        """Record who answers a chat, and what the answer lacks of the request."""
        exchange, chat, step, emulated = turn.exchange, turn.chat, answer.step, turn.emulated
        self.note_answer(exchange, answer, chat)
        shown = exchange.record.shown
        values = answer.wrapped.values if answer.wrapped is not None else None
        if turn.returns_state and not self.seal_of(exchange.config, step.deployment, values).unseals_all(chat):
            shown.dropped |= {REASONING_STATE}
        shown.dropped |= answer.changed
        if chat.response_format is not None:
            shown.emulated = EMULATED if step.emulates else emulated_fields(step.deployment.adapter, chat)
            if emulated is not None and step.emulates:
                shown.dropped |= emulated.unchecked
        return answer

    def sealed(self, turn: Turn, answer: Answer) -> Answer:
        """Seal the reasoning state of tool calls: of a whole answer now, of a stream while it is written."""
        values = answer.wrapped.values if answer.wrapped is not None else None
        seal = self.seal_of(turn.exchange.config, answer.step.deployment, values)
        if answer.completion is not None:
            return change(answer, completion=seal.seal_completion(answer.completion))
        turn.seal = seal
        return answer

    def styled(self, turn: Turn, answer: Answer) -> Answer:
        """Decide how the answer is shown, with its labels, which are recorded."""
        exchange, own, assistant = turn.exchange, turn.own, turn.exchange.assistant
        locale, labelling = exchange.locale, None
        if locale is not None:
            signer = self.signer_of(exchange.config, locale) if locale.proof is not None else None
            notice = exchange.chat_time.notice if exchange.chat_time is not None else None
            labelling = labelling_of(locale, own, notice, signer)
        if (found := exchange.record.help) is not None:
            labelling = with_help(labelling, found, own)
            exchange.record.note_duty(found.duty)
        if labelling is not None:
            exchange.record.shown.labels = labelling.names
        shown_model = None if assistant.reveal_model else assistant.name
        choices, keep_alive_s = own.n or 1, exchange.config.resilience.keep_alive_s
        exchange.style = AnswerStyle(own.include_usage, choices, labelling, shown_model, keep_alive_s, turn.seal)
        return answer

    def signer_of(self, config: ConfigVersion, locale: Locale) -> TextSigner | None:
        """Return what signs the texts of a locale, or None."""
        if (proof := locale.proof) is None:
            return None
        signer: TextSigner | None = remember(
            config, ("text_signer",), lambda: proof.signer(config, self._decider.clock)
        )
        return signer

    def unsealed(self, config: ConfigVersion, step: Step, chat: ChatRequest) -> ChatRequest:
        """Return a chat with the reasoning state that the step may get, which a step that redacts decides later."""
        if step.permit.wrapper is not None:
            return chat
        return self.seal_of(config, step.deployment).unseal_request(chat)

    def seal_of(
        self, config: ConfigVersion, deployment: Deployment, values: tuple[str, ...] | None = None
    ) -> ReasoningSeal:
        """Return the seal for the reasoning state of a deployment's answers."""
        return seal_of(self._decider.keys_of(config), deployment, values)
