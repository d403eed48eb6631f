"""Seal a model's opaque reasoning state, so that only the deployment's vendor, site and model get it back.

Clients keep the state (thoughts and signatures) between turns and return it with a tool call. The seal is a MAC over
vendor, site, model and state, with a key of the cell. While that key is replaced, seals of the former one are valid.
State whose seal does not fit the deployment that is asked is left out and named in `x-gateway-dropped`: it is foreign,
of another model, or of a site that is not asked. It is never an error.

Thoughts that were written with placeholders have them inside the state. Their seal also covers the values of that
request, in order. The state is returned only with a request that begins with the same values, so a placeholder in it
never means another value.
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
_COUNTED = "~"
_COUNTED_PARTS = 2
_MOST_DIGITS = 7
_MAC_BYTES = 16


class ReasoningSeal(msgspec.Struct, frozen=True):
    """Seals and unseals the state of one deployment's vendor, site and model. The newer key, which comes first, seals.

    `values` are those of the request that are replaced, in order, or None if nothing is redacted for the deployment.
    """

    keys: tuple[bytes, ...]
    values: tuple[str, ...] | None = None

    def seal(self, state: str) -> str:
        """Return the state with its seal."""
        if self.values is None:
            return f"{_mac(self.keys[0], state)}{_SEPARATOR}{state}"
        covered = f"{len(self.values)}{_COUNTED}{self._mac_of_values(self.keys[0], len(self.values))}"
        return f"{_mac(self.keys[0], covered + _SEPARATOR + state)}{_COUNTED}{covered}{_SEPARATOR}{state}"

    def unseal(self, sealed: str) -> str | None:
        """Return the state, or None if the seal does not fit."""
        head, _, state = sealed.partition(_SEPARATOR)
        mac, *counted = head.split(_COUNTED)
        if self.values is None or len(counted) != _COUNTED_PARTS:
            if self.values is not None or counted:
                return None
            fits = [hmac.compare_digest(mac.encode(), _mac(key, state).encode()) for key in self.keys]
            return state if any(fits) else None
        number, of_values = counted
        count = (
            int(number)
            if number.isascii() and number.isdigit() and len(number) < _MOST_DIGITS
            else len(self.values) + 1
        )
        if count > len(self.values):
            return None
        covered = f"{number}{_COUNTED}{of_values}{_SEPARATOR}{state}"
        for key in self.keys:
            is_same = hmac.compare_digest(of_values.encode(), self._mac_of_values(key, count).encode())
            if hmac.compare_digest(mac.encode(), _mac(key, covered).encode()) and is_same:
                return state
        return None

    def _mac_of_values(self, key: bytes, count: int) -> str:
        return _mac(key, msgspec.json.encode(["values", *(self.values or ())[:count]]).decode())

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


def seal_of(
    cell_keys: tuple[bytes, ...], deployment: Deployment, values: tuple[str, ...] | None = None
) -> ReasoningSeal:
    """Return the seal of a deployment by the valid secrets of this cell, the newer one first."""
    bound: tuple[Any, ...] = ("reasoning 1", deployment.provider, deployment.site, deployment.origin, deployment.model)
    data = msgspec.json.encode(bound)
    return ReasoningSeal(tuple(hmac.digest(key, data, "sha256") for key in cell_keys), values)


def has_state(request: ChatRequest) -> bool:
    """Return whether the request returns any reasoning state."""
    return type(request.messages) is not Texts and bool(_states_of(request))


def _states_of(request: ChatRequest) -> list[str]:
    calls = (
        call for message in request.messages if isinstance(message, AssistantMessage) for call in message.tool_calls
    )
    return [call.signature for call in calls if call.signature is not None]
