"""Ask the service as its endpoint does: another version of the config decides about each further attempt."""

from collections.abc import Callable
from typing import Any

from gateway.execution.deadline import Deadline
from gateway.execution.exchange import Exchange
from gateway.execution.failure_observations import EVERYBODY
from gateway.execution.upstream_client import Answer, ConfigChanged
from gateway.inputs.answers import answer_call
from gateway.inputs.calls import InputCalls
from gateway.model.caller import Caller
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.consent import NO_STATEMENT
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.served import ServedRequest
from gateway.service.assistants import find_assistant
from gateway.service.chat_service import ChatService
from providers.chat import ChatRequest


def exchange_of(
    config: ConfigVersion,
    location: Location,
    request: ServedRequest,
    deadline: Deadline,
    record: Record | None = None,
    client: Client | None = None,
    **known: Any,
) -> Exchange:
    """Return a request that is prepared for its decision."""
    exchange = Exchange(record or Record("r", 0, config.version))
    assistant = find_assistant(config, client, request.model or "assistant").for_use(
        "chat" if isinstance(request, ChatRequest) else request.use
    )
    usual = {"claim": None, "user": None, "consent": NO_STATEMENT, "prefer": None, "asker": EVERYBODY}
    given = {"config": config, "location": location, "request": request, "deadline": deadline, "assistant": assistant}
    caller = Caller(client, "", (), 0, None, (), {})
    for name, value in {**usual, **given, "caller": caller, **known}.items():
        setattr(exchange, name, value)
    return exchange


async def answer_once(service: ChatService, exchange: Exchange) -> Answer:
    """Return the answer of the version that is active now."""
    if isinstance(exchange.request, ChatRequest):
        return await service.answer(exchange)
    return await answer_call(service, InputCalls((exchange.request,)), exchange)


async def answer_of(service: ChatService, prepared: Callable[[], Exchange]) -> Answer:
    """Return the answer. `prepared` returns the request, as the active version sees it."""
    within = record = None
    while True:
        exchange = prepared()
        exchange.within, exchange.record = within, record or exchange.record
        try:
            return await answer_once(service, exchange)
        except ConfigChanged:
            record = exchange.record
            within = record.decide_again(within)
