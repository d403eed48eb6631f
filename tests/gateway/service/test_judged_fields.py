"""A mark in each field of each API: where an adapter writes it for its provider, a judge has it, or the page names it.

The road is that of traffic: a dialect decodes the body, `judge_input` collects what the judges get, and an adapter
writes the request.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.api.dialects.paths import dialect_at
from gateway.api.errors import ApiError
from gateway.execution.judging import Judge, PassedTexts, Verdict
from gateway.model.moderation import Moderation, ModerationRecord
from gateway.service.moderation import judge_input, other_texts
from providers.chat import ChatRequest, TextPart
from providers.conformance.subject import Subject, subjects_of
from providers.failures import InvalidRequest, ProviderError, UnsupportedFeature
from providers.matching.capability_matching import with_files_as_text
from providers.matching.requirements import PARAMETERS
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators
from providers.value import replace
from tests.kit.case_files import tables_of
from tests.kit.configs import table_of
from tests.kit.doc_pages import ROOT
from tests.kit.judged_chats import CONFIG

MARK = "Mark2fe91"
SCHEMA = {"type": "object", "title": "t", "properties": {"a": {"type": "string", "description": "d", "enum": ["b"]}}}
USER = {"role": "user", "content": "Hi."}
_TABLES = tables_of(__file__)
CHATS = _TABLES["chats"]
MESSAGES = _TABLES["messages"]
RESPONSES = _TABLES["responses"]
GEMINI = _TABLES["gemini"]
COMPLETIONS = {"plain": {"prompt": "p", "stop": ["s"], "user": "u"}}
APIS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHATS),
    "completions": ("/v1/completions", COMPLETIONS),
    "messages": ("/v1/messages", MESSAGES),
    "responses": ("/v1/responses", RESPONSES),
    "gemini": ("/v1beta/models/assistant:generateContent", GEMINI),
}
HEADS = {"gemini": {}, "messages": {"model": "assistant", "max_tokens": 99}}
FORMS: tuple[Any, ...] = (MARK, {MARK: True}, {"k": MARK}, {"k": {MARK: "v"}}, {"k": [MARK]}, [MARK], [{"k": MARK}])
"""The values that a field of a server or a vendor may have."""

MEDIA, IDENTIFIERS, WORDS, CHOICE = "media", "identifiers", "settings", "`tool_choice`"
UNJUDGED: dict[str, str] = {
    r"metadata.*|user|safety_identifier|prompt_cache_key|cache_salt|request_id|.*\.id|.*call_id|.*tool_use_id": IDENTIFIERS,
    r".*tool_choice.*|toolConfig.*": CHOICE,
    r".*(image_url\.url|image_url|source\.data|file_data|inlineData\.data|input_audio\.data)": MEDIA,
    r"service_tier|verbosity|reasoning_effort|thinking|prompt_mode|cache_control|text\.verbosity|.*\.detail|.*mimeType|.*media_type|.*format": WORDS,
}
"""The fields that no judge gets, by the path of the mark: what the page calls them."""
PAGE = (ROOT / "docs/operate/moderation.md").read_text()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each text, and of each object, which can have an unknown member."""
    if isinstance(value, dict):
        yield (*path, None)
    if isinstance(value, str):
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(item, (*path, key))


def marked(body: Any, path: tuple[Any, ...]) -> Any:
    """Return the body with the mark at the path: in place of a text, or as a further member and as its name."""
    copy = at = json.loads(json.dumps(body))
    for key in path[:-1]:
        at = at[key]
    if path[-1] is None:
        at[MARK] = MARK
    elif at[path[-1]].startswith("{"):
        at[path[-1]] = json.dumps({MARK: MARK})
    elif path[-1] in ("text", "content", "url", "image_url", "data", "file_data") and ":" in at[path[-1]]:
        at[path[-1]] += MARK
    else:
        at[path[-1]] = MARK
    return copy


def decoded(api: str, body: Mapping[str, Any]) -> ChatRequest | None:
    """Return the canonical request, or None if the API refuses it."""
    dialect = dialect_at(APIS[api][0])
    try:
        request = dialect.decode(json.dumps({**HEADS.get(api, {"model": "assistant"}), **body}).encode())
    except (InvalidRequest, UnsupportedFeature, ApiError):
        return None
    assert isinstance(request, ChatRequest)
    return request


JUDGING = table_of(CONFIG.merge({"regions": {"default": {"moderation": {"media": "pass"}}}}))


def judged(request: ChatRequest) -> str:
    """Return all that the judges of a region get that lets nothing pass without a verdict, but for media."""
    moderation: Moderation = JUDGING.moderation["default"]
    asked: list[str] = []

    async def verdict(judges: object, inputs: list[Any], **_: object) -> Verdict:
        asked.extend(
            "".join(it.text for it in one if isinstance(it, TextPart)) if isinstance(one, tuple) else one
            for one in inputs
        )
        return Verdict(None)

    judge = SimpleNamespace(
        moderation=moderation, result=ModerationRecord(), region=JUDGING.regions["default"], client=None, user=None,
        context=SimpleNamespace(asker=()), verdict=verdict, config=SimpleNamespace(deployments=DEPLOYMENTS),
    )  # fmt: skip
    asyncio.run(
        judge_input(
            cast("Judge", judge), request.messages, [*other_texts(cast("Judge", judge), request)], PassedTexts(), {}
        )
    )
    return "\n".join(asked)


def subjects() -> list[Subject]:
    """Return an adapter of each kind with all that it claims: the compatible vendors differ in fields of their own."""
    simulators, found = load_simulators().simulators, dict[object, Subject]()
    for name, adapter in sorted(load_registry().adapters.items(), key=lambda it: it[0] != "openai-compatible"):
        subject = subjects_of(adapter, simulators[name])[-1]
        own = frozenset(adapter.capabilities.parameters - PARAMETERS)
        found.setdefault((type(adapter), own), subject)
    return [*found.values()]


SUBJECTS = subjects()
DEPLOYMENTS = {
    str(it): SimpleNamespace(capabilities=it.adapter.capabilities, target=SimpleNamespace(passthrough=frozenset()))
    for it in SUBJECTS
}


def wires(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """Yield what each adapter writes of a request that it can express."""
    for subject in SUBJECTS:
        known = subject.adapter.capabilities.parameters
        sent = replace(request, extra={name: value for name, value in request.extra.items() if name in known})
        try:
            sent = with_files_as_text(sent, subject.adapter.capabilities)
            wire = subject.adapter.build_request(sent, subject.target)
        except ProviderError:
            continue
        yield (
            str(subject),
            f"{wire.path} {wire.query} {wire.headers} {b''.join((wire.body, *map(bytes, wire.rest))).decode()}",
        )


def expect_judged(api: str, path: str, request: ChatRequest | None) -> None:
    """Fail if an adapter writes the mark, and no judge has it, and the page does not name the field."""
    if request is None or MARK in judged(request):
        return
    kind = next((kind for pattern, kind in UNJUDGED.items() if re.fullmatch(pattern, path)), None)
    if kind is not None:
        assert kind in PAGE
        return
    writers = [name for name, wire in wires(request) if MARK in wire]
    assert not writers, f"{api} {path}: no judge gets what {writers} write"


@pytest.mark.parametrize(("api", "form"), [(api, form) for api, (_, forms) in APIS.items() for form in forms])
def test_what_an_adapter_writes_of_each_field_is_judged_or_listed(api: str, form: str) -> None:
    body = APIS[api][1][form]
    if MARK in json.dumps(body):
        expect_judged(api, form, decoded(api, body))
    assert decoded(api, body) is not None, "the whole form is accepted"
    for path in leaves(body):
        shown = ".".join(str(key) for key in path if isinstance(key, str))
        expect_judged(api, shown, decoded(api, marked(body, path)))


OWN = sorted({name for it in SUBJECTS for name in it.adapter.capabilities.parameters - PARAMETERS})


@pytest.mark.parametrize("name", OWN)
def test_fields_of_one_vendor_are_judged_or_listed(name: str) -> None:
    for value in FORMS:
        expect_judged("chat", name, decoded("chat", {"messages": [USER], name: value}))


@pytest.mark.parametrize(
    "line", ["x-anthropic-billing-header: cc_version=2; cch=1;", "x-anthropic-billing-header: cch=1"]
)
def test_line_of_claude_code_is_judged_and_arrives(line: str) -> None:
    request = decoded("messages", {"system": f"{line}\nBe kind.", "messages": [USER]})
    assert line in judged(request)
    assert any(name.startswith("anthropic-") and line in wire for name, wire in wires(request))
