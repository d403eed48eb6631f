"""Read recorded fixtures: `DIR/<adapter>/<case>.{request.json,response.json,stream.txt,expect.json}`.

`request.json` holds the client's `request` (in OpenAI's format), the `model`, the `base_path`, and the request that the
adapter must build from them, `sent`: `path`, `query` (an object, absent if empty), `headers` (those to compare, absent
if empty) and `body`.

`response.json` (a whole answer) and `stream.txt` (a stream) are the provider's bytes, unchanged. `expect.json` holds
the result of reading them: `answer` for both, or `stream` if a stream has another result. A result is a completion in
the form that `completion_to_json` writes, or `{"failure": {…}, "before": "the text before the failure"}`. The file also
holds the `model`, and the response's `status` (default 200) and `headers` (default {}).

`request.json` and `expect.json` also have `about`, `source` and `date`. `based_on` names a file with members that
several cases share, relative to the folder of the case: the case is then a JSON merge patch (RFC 7396) to that file.
`taken_from` is `documentation` or `call`: the bytes come from the vendor's documentation or from a real call, and
`source` names the page or the account. Without it, a source with an address counts as such a recording too.

The folder may contain prose (`*.md`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from providers.adapter import Adapter, Target, known_models
from providers.catalogue.models import model_facts
from providers.chat import ChatCompletion, Choice, text_of
from providers.conformance.subject import Subject
from providers.failures import Failure
from providers.json_values import JsonError, loads
from providers.value import Value
from providers.wire import WireResponse

_KINDS = ("request.json", "response.json", "stream.txt", "expect.json")
_ORIGINS = ("documentation", "call")
_ADDRESS = re.compile(r"https?://|[a-z0-9-]+\.[a-z]{2,}/|[\w.-]+/[\w.-]+, (issue|pull request) \d+")
"""A page, or a thread of a repository."""
_REQUIRED = ("about", "source", "date", "model")
_OWN = ("about", "source", "taken_from", "date")
"""A case states its origin itself: it takes none of these from the file that it is based on."""


class WireError(ValueError):
    """A fixture cannot be used. The message names the file and the reason."""


class WireCase(Value, frozen=True):
    """The fixture files of one case. Not all of them need to exist."""

    adapter: Adapter
    folder: Path
    name: str

    def __str__(self) -> str:
        return f"{self.adapter.name}-{self.name}"

    def path(self, kind: str) -> Path:
        """Return the path of the case's file of this kind, such as `stream.txt`."""
        return self.folder / f"{self.name}.{kind}"

    def document(self, kind: str) -> Mapping[str, Any]:
        """Parse `request.json` or `expect.json`, with the file that it is based on. Raises WireError."""
        own = _object_in(self.path(kind))
        document = patched(self._base_of(own), own)
        missing = [name for name in _REQUIRED if not document.get(name)]
        if missing:
            raise WireError(f"{self.path(kind)}: lacks {', '.join(missing)}")
        return document

    def write(self, kind: str, document: Mapping[str, Any]) -> None:
        """Write `request.json` or `expect.json`, without what it has from the file that it is based on."""
        own = patch_between(self._base_of(document), document)
        self.path(kind).write_text(json.dumps(own, ensure_ascii=False, indent=1) + "\n", "utf-8")

    def _base_of(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        name = document.get("based_on")
        shared = {} if name is None else _object_in(self.folder / name)
        return {member: value for member, value in shared.items() if member not in _OWN}

    def target(self, document: Mapping[str, Any]) -> Target:
        """Return the target of the case's request or answer."""
        model = document["model"]
        return Target(model, document.get("base_path", "/v1"), model_facts(known_models(self.adapter), model))

    @property
    def is_from_vendor(self) -> bool:
        """Whether its answer is taken from the vendor's documentation or from a real call."""
        if not self.path("expect.json").exists():
            return False
        document = self.document("expect.json")
        return document.get("taken_from") in _ORIGINS or bool(_ADDRESS.search(str(document["source"])))

    @property
    def response(self) -> WireResponse:
        """The recorded answer, with 0 as its time of receipt."""
        document = self.document("expect.json")
        headers = {"content-type": "application/json", **document.get("headers", {})}
        return WireResponse(document.get("status", 200), headers, self.path("response.json").read_bytes(), 0)


class RecordedVendor(Value, frozen=True):
    """A vendor whose simulator reads the facts of its adapter, with its recordings."""

    subject: Subject
    cases: tuple[WireCase, ...]

    def __str__(self) -> str:
        return self.subject.adapter.name


def find_wire_cases(folder: Path, subjects: Sequence[Subject]) -> list[WireCase]:
    """Return the cases in the folder for the adapters of these subjects.

    Raises WireError if a file does not belong to a case, or if a case is incomplete.
    """
    cases: dict[tuple[str, str], WireCase] = {}
    for name, adapter in sorted({subject.adapter.name: subject.adapter for subject in subjects}.items()):
        for file in sorted((folder / name).glob("*")):
            case, _, kind = file.name.partition(".")
            if kind == "md":
                continue
            if kind not in _KINDS:
                raise WireError(
                    f"{file}: unknown kind of fixture. Name it CASE.{', CASE.'.join(_KINDS)}, or *.md for prose"
                )
            cases[name, case] = WireCase(adapter, folder / name, case)
    for one in cases.values():
        answered = one.path("response.json").exists() or one.path("stream.txt").exists()
        if answered != one.path("expect.json").exists():
            place = one.folder / one.name
            raise WireError(f"{place}: an answer (response.json or stream.txt) needs an expect.json, and the reverse")
        for kind in ("request.json", "expect.json"):
            if one.path(kind).exists():
                one.document(kind)
    return list(cases.values())


def _object_in(path: Path) -> dict[str, Any]:
    try:
        value = loads(path.read_bytes())
    except (OSError, JsonError) as error:
        raise WireError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise WireError(f"{path}: is not a JSON object")
    return value


def patched(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Apply a JSON merge patch (RFC 7396). The members that it names come first, in its order."""
    changed = {name: _patched_member(base.get(name), value) for name, value in patch.items() if value is not None}
    return changed | {name: value for name, value in base.items() if name not in patch}


def _patched_member(old: object, new: object) -> object:
    if not isinstance(new, dict):
        return new
    return patched(old if isinstance(old, dict) else {}, new)


def patch_between(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that makes the wanted object of the base. A member of null counts as absent."""
    patch: dict[str, Any] = {}
    for name, new in wanted.items():
        old = base.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if inner := patch_between(old, new):
                patch[name] = inner
        elif old != new:
            patch[name] = new
    return patch | {name: None for name in base if name not in wanted}


def completion_to_json(completion: ChatCompletion) -> dict[str, object]:
    """Return a completion as JSON, without absent members."""
    choices = [_choice_to_json(choice) for choice in completion.choices]
    members = {**_members(completion, "id model created"), "choices": choices}
    if completion.usage is None:
        return members
    counts = _members(completion.usage, "prompt_tokens completion_tokens cached_tokens reasoning_tokens")
    return members | {"usage": {name: count for name, count in counts.items() if count}}


def _members(value: object, names: str) -> dict[str, object]:
    """Return the attributes of these names that are not None."""
    return {name: found for name in names.split() if (found := getattr(value, name)) is not None}


def _choice_to_json(choice: Choice) -> dict[str, object]:
    message = choice.message
    calls = [_members(call, "id name arguments signature") for call in message.tool_calls]
    content = {} if message.content is None else {"content": text_of(message.content)}
    said = {**content, **_members(message, "reasoning refusal"), **({"tool_calls": calls} if calls else {})}
    return {"index": choice.index, **said, **_members(choice, "finish_reason raw_finish_reason logprobs")}


def failure_to_json(failure: Failure) -> dict[str, object]:
    """Return a failure as JSON, without its texts and absent members."""
    return _members(failure, "kind status code param retry_after_s request_id")
