"""`gateway doctor --ask`: one real request per capability of a deployment, compared with the configuration.

Only a server with the capability can give the answer that a request asks for: a call of a tool, JSON with a member that
only the schema names, the colour of an image.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from providers.chat import ChatCompletion, ChatRequest, text_of
from providers.failures import About, Failure, FailureKind, ProviderFailed
from providers.json_values import as_map
from providers.matching.requirements import FEATURES
from providers.openai_json import decode_request
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.execution.upstream_client import UpstreamClient
    from gateway.model.config_version import ConfigVersion
    from gateway.model.deployment import Deployment
    from gateway.model.permit import Permit
    from gateway.usage.accounting import Accounting

MOST_TOKENS = 512
"""The longest answer to a question."""
NOT_ASKED = frozenset({"image_url", "audio", "file"})
"""They need an address that the provider can fetch, a sound or a document."""
Result = Literal["can", "cannot", "not asked"]


class CapabilityQuestion(Value, frozen=True):
    """A request, what its answer has if the capability is there, and the words for an answer without it."""

    request: ChatRequest
    has: Callable[[ChatCompletion], object]
    lack: str


class AskedCapability(Value, frozen=True):
    """The answer of a deployment. `detail` is the fault, or why it was not asked."""

    name: str
    result: Result
    is_stated: bool
    detail: str = ""
    ends: bool = False


def _text(completion: ChatCompletion) -> str:
    return text_of(completion.choices[0].message.content)


def _words(completion: ChatCompletion) -> str | None:
    return _text(completion) or completion.choices[0].message.reasoning


def _called(completion: ChatCompletion) -> list[str]:
    return [call.name for call in completion.choices[0].message.tool_calls]


def _json(completion: ChatCompletion) -> object:
    try:
        return json.loads(_text(completion))
    except ValueError:
        return None


_HAS: Mapping[str, Callable[[ChatCompletion], object]] = {
    "text": _words,
    "stream": lambda it: _words(it) and it.usage is not None,
    "tools": lambda it: "get_weather" in _called(it),
    "tool_choice_required": _called,
    "tool_choice_named": lambda it: "get_time" in _called(it),
    "json_object": lambda it: isinstance(_json(it), dict),
    "json_schema": lambda it: type(as_map(_json(it)).get("parrot")) is int,
    "n": lambda it: len(it.choices) == 2,
    "logprobs": lambda it: it.choices[0].logprobs is not None,
    "prefill": lambda it: _text(it) and "1, 2" not in _text(it),
    "vision": lambda it: "red" in _text(it).lower(),
    "reasoning": lambda it: it.choices[0].message.reasoning,
}


_ASKED = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


def _question(name: str, lack: str, *, takes_tools: bool = False, **body: Any) -> CapabilityQuestion:
    tools = {"tools": _ASKED["tools"]} if takes_tools else {}
    request = decode_request({"model": "check", "max_tokens": MOST_TOKENS, **tools, **body})
    return CapabilityQuestion(replace(request, folded=request.stream), _HAS[name], lack)


QUESTIONS: Mapping[str, CapabilityQuestion] = {name: _question(name, **it) for name, it in _ASKED["questions"].items()}
"""The question for each capability, and for each of the two forms of an answer."""


def questions_for(deployment: Deployment) -> list[str]:
    """Return what is asked: the two forms of an answer, and every feature of the adapter that can be asked for."""
    features = deployment.adapter.capabilities.features & FEATURES
    return [name for name in QUESTIONS if name in ("text", "stream") or name in features]


async def ask_capabilities(
    config: ConfigVersion, deployment: Deployment, state_dir: Path | None, found: Callable[[AskedCapability], None]
) -> None:
    """Send one request per capability, and report each result when it is there.

    Raises CommandError if the deployment may not be asked.
    """
    from gateway.assembly.usage import command_accounting
    from gateway.cli.providers import permit_of
    from gateway.execution.transport import PoolTransport
    from gateway.execution.upstream_client import UpstreamClient
    from gateway.identity.token_refresher import tokens_for_command
    from gateway.operator_errors import CommandError
    from gateway.usage.refusals import CallRefused

    permit = permit_of(config, deployment)
    if isinstance(permit, str):
        raise CommandError(f"{deployment.name} is not asked: {permit}")
    stated = deployment.capabilities.features | {"text", "stream"}
    emulated = deployment.emulated
    transport = PoolTransport()
    signs_in = deployment.sign_in is not None
    tokens = await tokens_for_command(config, transport, deployment=deployment) if signs_in else None
    try:
        async with command_accounting(state_dir, config) as accounting:
            asking = _Asking(config, deployment, permit, UpstreamClient(transport, tokens=tokens), accounting)
            for name in questions_for(deployment):
                if name in emulated:
                    found(AskedCapability(name, "not asked", True, "the gateway emulates it"))
                    continue
                failure, detail = await asking.failure_of(name)
                ends = name == "text" and failure is not None and failure.concerns is not About.REQUEST
                found(AskedCapability(name, "cannot" if detail else "can", name in stated, detail, ends))
                if ends:
                    return
    except CallRefused as error:
        raise CommandError(f"not sent: `usage.internal_project` pays for it: {error.message}") from None
    finally:
        await transport.aclose()
    for name in sorted(NOT_ASKED & deployment.capabilities.features):
        found(AskedCapability(name, "not asked", True, "it needs an address, a sound or a document"))


class _Asking(Value, frozen=True):
    """The values that each question needs."""

    config: ConfigVersion
    deployment: Deployment
    permit: Permit
    client: UpstreamClient
    accounting: Accounting | None

    async def failure_of(self, name: str) -> tuple[Failure | None, str]:
        """Return the failure of a question, and why the capability is not there or an empty text."""
        from gateway.execution.deadline import Deadline
        from gateway.execution.upstream_client import AttemptOptions
        from gateway.model.decision import Step
        from gateway.model.record import Record

        question, deployment, bounds = QUESTIONS[name], self.deployment, self.config.resilience
        dropped = {"max_tokens"} - deployment.capabilities.parameters
        # The configuration may not state the feature, and its fields are to be sent.
        facts = deployment.target.facts
        known = replace(deployment.capabilities, features=deployment.capabilities.features | {name, "tools"})
        target = replace(deployment.target, facts=replace(facts, features=facts.features | {name, "tools"}))
        step = Step(replace(deployment, capabilities=known, target=target), self.permit, frozenset(dropped))
        secret = deployment.credentials[0] if deployment.credentials else None
        failure: Failure | None = None
        for _ in range(2):  # once more, without a field that the server has refused
            deadline = Deadline.start(bounds.total_s, bounds.total_s)
            options = AttemptOptions(question.request, bounds.total_s, bounds.connect_s, bounds.idle_s)
            if self.accounting is not None:
                record = Record("check", time.monotonic(), self.config.version)
                options.usage = self.accounting.internal_request(self.config, record)
            try:
                answer = await self.client.send_alone(step, secret, options, deadline)
            except ProviderFailed as error:
                failure = error.failure
                if failure.kind is FailureKind.FIELD_REFUSED and failure.should_retry:
                    continue
                return failure, f"{failure.kind}: {failure.detail or failure.message}"
            is_there = answer.completion is not None and question.has(answer.completion)
            return None, "" if is_there else question.lack
        return failure, "it refuses a field that the gateway adds"
