"""Recorded fixtures: `DIR/<adapter>/<case>.{request.json,response.json,stream.txt,expect.json}`.

`request.json` says what a client asks (`request`, in OpenAI's shape), of which `model` at which `base_path`, and what
must be `sent`: `path`, `query` (an object, absent for none), `headers` (those that matter, absent for none), `body`.

`response.json` (a whole answer) and `stream.txt` (a stream) are the provider's bytes, untouched. `expect.json` says
what must come of them: `answer`, of both, or `stream` where a stream means something else. Either is a completion as
`plain` writes it, or `{"failure": {…}, "before": "the text that came first"}`. It also holds the `model`, and of the
response the `status` (200) and `headers` ({}).

The files that are ours have `about`, `source` and `date`. Prose (`*.md`) may lie beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.adapter import Adapter, Target, known_models
from providers.catalogue.models import model_facts
from providers.chat import ChatCompletion, Choice, text_of
from providers.conformance.subject import Subject
from providers.failures import Failure
from providers.json_values import JsonError, loads
from providers.wire import WireResponse

_KINDS = ("request.json", "response.json", "stream.txt", "expect.json")
_NEEDED = ("about", "source", "date", "model")


class WireError(ValueError):
    """A fixture that can't be used; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class WireCase:
    """The fixtures of one case, as far as they exist."""

    adapter: Adapter
    folder: Path
    name: str

    def __str__(self) -> str:
        return f"{self.adapter.name}-{self.name}"

    def path(self, kind: str) -> Path:
        """The file of this kind (`stream.txt`)."""
        return self.folder / f"{self.name}.{kind}"

    def document(self, kind: str) -> Mapping[str, Any]:
        """The parsed file, one of ours. Raises WireError."""
        try:
            value = loads(self.path(kind).read_bytes())
        except JsonError as error:
            raise WireError(f"{self.path(kind)}: {error}") from error
        missing = [name for name in _NEEDED if not isinstance(value, dict) or not value.get(name)]
        if missing or not isinstance(value, dict):
            raise WireError(f"{self.path(kind)}: lacks {', '.join(missing)}")
        return value

    def target(self, document: Mapping[str, Any]) -> Target:
        """Where the case's request is built for, or its answer came from."""
        model = document["model"]
        return Target(model, document.get("base_path", "/v1"), model_facts(known_models(self.adapter), model))

    @property
    def response(self) -> WireResponse:
        """The recorded answer, received at second 0."""
        document = self.document("expect.json")
        headers = {"content-type": "application/json", **document.get("headers", {})}
        return WireResponse(document.get("status", 200), headers, self.path("response.json").read_bytes(), 0)


def find_wire_cases(folder: Path, subjects: Sequence[Subject]) -> list[WireCase]:
    """The cases of these adapters in the folder; raises WireError for a file that belongs to no case."""
    cases: dict[tuple[str, str], WireCase] = {}
    for name, adapter in sorted({subject.adapter.name: subject.adapter for subject in subjects}.items()):
        for file in sorted((folder / name).glob("*")):
            case, _, kind = file.name.partition(".")
            if kind == "md":
                continue
            if kind not in _KINDS:
                raise WireError(f"{file}: is no fixture; expected CASE.{', CASE.'.join(_KINDS)}, or prose in .md")
            cases[name, case] = WireCase(adapter, folder / name, case)
    for one in cases.values():
        _check_complete(one)
    return list(cases.values())


def _check_complete(case: WireCase) -> None:
    answered = case.path("response.json").exists() or case.path("stream.txt").exists()
    if answered != case.path("expect.json").exists():
        raise WireError(f"{case.folder / case.name}: an answer and its expect.json come together, or neither")
    for kind in ("request.json", "expect.json"):
        if case.path(kind).exists():
            case.document(kind)


def plain(completion: ChatCompletion) -> dict[str, object]:
    """A completion as JSON, without what is absent."""
    usage = completion.usage
    counted = usage is not None and {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    said = {
        "id": completion.id,
        "model": completion.model,
        "created": completion.created,
        "choices": [_plain_choice(choice) for choice in completion.choices],
        "usage": {name: count for name, count in counted.items() if count} if counted else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _plain_choice(choice: Choice) -> dict[str, object]:
    message = choice.message
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        | ({"signature": call.signature} if call.signature else {})
        for call in message.tool_calls
    ]
    said = {
        "content": None if message.content is None else text_of(message.content),
        "reasoning": message.reasoning,
        "refusal": message.refusal,
        "tool_calls": calls or None,
        "finish_reason": choice.finish_reason,
        "raw_finish_reason": choice.raw_finish_reason,
        "logprobs": choice.logprobs,
    }
    return {"index": choice.index} | {name: value for name, value in said.items() if value is not None}


def plain_failure(failure: Failure) -> dict[str, object]:
    """What matters of a failure, as JSON: not its words."""
    said = {
        "kind": failure.kind.value,
        "status": failure.status,
        "code": failure.code,
        "param": failure.param,
        "retry_after_s": failure.retry_after_s,
        "request_id": failure.request_id,
    }
    return {name: value for name, value in said.items() if value is not None}
