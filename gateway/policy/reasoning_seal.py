"""Seal a model's opaque reasoning state, so that only the deployment's vendor, site and model get it back.

Clients keep the state (thoughts and signatures) between turns and return it with a tool call. The seal is a MAC over
vendor, site, model and state, with a key of the cell. While that key is replaced, seals of the former one are valid.
State whose seal does not fit the deployment that is asked is left out and named in `x-gateway-dropped`: it is foreign,
of another model, or of a site that is not asked. It is never an error.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from typing import Any

import msgspec

from gateway.model.deployment import Deployment
from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, StreamEvent, Texts, ToolCall, ToolCallDelta
from providers.value import replace

REASONING_STATE = "reasoning_state"
"""The name of state that was left out, in `x-gateway-dropped`."""
_SEPARATOR = "."
_MAC_BYTES = 16


class ReasoningSeal(msgspec.Struct, frozen=True):
    """Seals and unseals the state of one deployment's vendor, site and model.

    Attributes:
        keys: The valid keys, the newer one first. It seals; each of them unseals.
    """

    keys: tuple[bytes, ...]

    def seal(self, state: str) -> str:
        """Return the state with its seal."""
        return f"{_mac(self.keys[0], state)}{_SEPARATOR}{state}"

    def unseal(self, sealed: str) -> str | None:
        """Return the state, or None if the seal does not fit."""
        mac, _, state = sealed.partition(_SEPARATOR)
        fits = [hmac.compare_digest(mac.encode(), _mac(key, state).encode()) for key in self.keys]
        return state if any(fits) else None

    def seal_completion(self, completion: ChatCompletion) -> ChatCompletion:
        """Return a whole answer with sealed state."""
        if not any(call.signature for choice in completion.choices for call in choice.message.tool_calls):
            return completion
        choices = tuple(
            replace(choice, message=replace(choice.message, tool_calls=tuple(map(self._sealed, calls))))
            if (calls := choice.message.tool_calls)
            else choice
            for choice in completion.choices
        )
        return replace(completion, choices=choices)

    def seal_events(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """Return a batch of events with sealed state."""
        if not any(type(event) is ToolCallDelta and event.signature for event in events):
            return events
        return tuple(
            replace(event, signature=self.seal(event.signature))
            if isinstance(event, ToolCallDelta) and event.signature
            else event
            for event in events
        )

    def unseal_request(self, request: ChatRequest) -> ChatRequest:
        """Return the request with the state that this deployment may get, and without all other state."""
        messages = tuple(
            replace(message, tool_calls=tuple(map(self._unsealed, message.tool_calls)))
            if isinstance(message, AssistantMessage) and message.tool_calls
            else message
            for message in request.messages
        )
        return replace(request, messages=messages)

    def unseals_all(self, request: ChatRequest) -> bool:
        """Return whether this deployment may get all state of the request."""
        return all(self.unseal(state) is not None for state in _states_of(request))

    def _sealed(self, call: ToolCall) -> ToolCall:
        return replace(call, signature=self.seal(call.signature)) if call.signature else call

    def _unsealed(self, call: ToolCall) -> ToolCall:
        return replace(call, signature=self.unseal(call.signature)) if call.signature is not None else call


def _mac(key: bytes, state: str) -> str:
    mac = hmac.digest(key, state.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(mac[:_MAC_BYTES]).rstrip(b"=").decode()


def seal_of(cell_keys: tuple[bytes, ...], deployment: Deployment) -> ReasoningSeal:
    """Return the seal of a deployment. `cell_keys`: the valid secrets of this cell, the newer one first."""
    bound: tuple[Any, ...] = ("reasoning 1", deployment.provider, deployment.site, deployment.origin, deployment.model)
    data = msgspec.json.encode(bound)
    return ReasoningSeal(tuple(hmac.digest(key, data, "sha256") for key in cell_keys))


def has_state(request: ChatRequest) -> bool:
    """Return whether the request returns any reasoning state."""
    return type(request.messages) is not Texts and bool(_states_of(request))


def _states_of(request: ChatRequest) -> list[str]:
    calls = (
        call for message in request.messages if isinstance(message, AssistantMessage) for call in message.tool_calls
    )
    return [call.signature for call in calls if call.signature is not None]
