"""Answer a chat with the text of a help in place of a model."""

from __future__ import annotations

import time

from gateway.execution.exchange import AnswerStyle, Exchange
from gateway.execution.structured_output import WholeAnswer
from gateway.execution.upstream_client import OwnAnswer
from gateway.model.help import Help, HelpUnanswerable
from gateway.model.record import Decided
from gateway.policy.labels import labelling_of
from gateway.public_names import DUTIES, names_in
from providers.chat import AllowedTools, AssistantMessage, ChatCompletion, ChatRequest, Choice, NamedTool, Usage

_REFUSED = frozenset(names_in(DUTIES, "is_refusal"))
"""The kinds of requests that a rule of a feature refuses."""


def help_answer(exchange: Exchange, help: Help, *, is_counted: bool) -> OwnAnswer:
    """Return the answer that is the text of a help alone, and set how it is shown. No provider gets the prompt.

    It counts in the time of its user, unless the request would have been refused. Raises HelpUnanswerable if the
    request requires content for programs.
    """
    request, record, assistant = exchange.request, exchange.record, exchange.assistant
    if not isinstance(request, ChatRequest):
        raise TypeError("only a chat has a text of help")
    record.note(help.as_answer())
    location, intent, reveal = record.decided.location, record.decided.intent, assistant.reveal_model
    record.decided = Decided(location, assistant.name, intent, reveal_model=reveal)
    if not is_counted:
        if exchange.chat_time is not None:
            exchange.chat_time.leave_no_trace()
        record.duties -= _REFUSED
    if (param := _program_param(request)) is not None:
        raise HelpUnanswerable(param)
    record.note_duty(help.duty)
    notice = exchange.chat_time.notice if exchange.chat_time is not None else None
    labelling = labelling_of(exchange.locale, request, notice) if exchange.locale is not None else None
    if labelling is not None:
        record.shown.labels = labelling.names
    keep_alive_s, choices = exchange.config.resilience.keep_alive_s, request.n or 1
    exchange.style = AnswerStyle(request.include_usage, choices, labelling, assistant.name, keep_alive_s)
    message = AssistantMessage(help.sentence.text)
    completion = ChatCompletion(
        "", assistant.name, int(time.time()), tuple(Choice(message, "stop", at) for at in range(choices)), Usage()
    )
    return OwnAnswer(stream=WholeAnswer(completion)) if request.stream else OwnAnswer(completion)


def _program_param(request: ChatRequest) -> str | None:
    """Return the field by which a request requires content for programs, or None."""
    if request.response_format is not None:
        return "response_format"
    choice = request.tool_choice
    is_forced = choice == "required" or isinstance(choice, NamedTool)
    return "tool_choice" if is_forced or (isinstance(choice, AllowedTools) and choice.mode == "required") else None
