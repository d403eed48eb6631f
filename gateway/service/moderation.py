"""Judge a request by its region's moderation: what the client sends, and what the model answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.execution.exchange import Exchange, Said
from gateway.execution.failure_observations import client_scope
from gateway.execution.judging import MOST_CHARACTERS, Judge, PassedTexts, pieces_of, policy_of
from gateway.execution.moderated_stream import ModeratedStream
from gateway.execution.run import PlanExecutor, RunContext
from gateway.execution.structured_output import WholeAnswer
from gateway.execution.upstream_client import Answer
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.excerpt import excerpt
from gateway.model.moderation import Flagged, Moderation, NoVerdict
from gateway.policy.client_users import has_issuer
from gateway.policy.routing import MEDIA
from providers import chat
from providers.failures import UnsupportedFeature
from providers.json_values import as_map, dumps_text
from providers.matching.requirements import CACHE_CONTROL, CACHE_KEY, CACHE_SALT, IDENTITY
from providers.moderations.values import ModerationInput
from providers.reading.folding import Folding
from providers.value import replace

_IMAGE = "image\0"
_GRAMMARS = frozenset({"structured_outputs", "grammar", "regex", "ebnf"})
_OF_SERVERS = _GRAMMARS | {"chat_template_kwargs"}
"""Fields of model servers: the forms of an answer, and what a template writes into the prompt."""
_SETTINGS = frozenset({CACHE_CONTROL, "service_tier", "verbosity", "thinking", "prompt_mode"})
_UNREAD = IDENTITY | {CACHE_KEY, CACHE_SALT, "request_id"} | _SETTINGS | {"prediction"}
"""Fields that no model reads, which are identifiers and settings in a provider's words; and one that is read apart."""


class _Asked(msgspec.Struct):
    """The texts and the pictures, by their URLs, that the judges of a request get.

    Each text has the categories that do not count in it, and the memories that keep it if it passes, with the name of
    the policy. `is_unclear`: there is media that no judge can be asked about.
    """

    texts: dict[str, frozenset[str]] = msgspec.field(default_factory=dict)
    kept: list[tuple[PassedTexts, str, str]] = msgspec.field(default_factory=list)
    pictures: dict[str, tuple[chat.TextPart | chat.ImagePart, ...]] = msgspec.field(default_factory=dict)
    is_unclear: bool = False

    def add(self, text: str, memory: PassedTexts, policy: str, excepted: frozenset[str] = frozenset()) -> None:
        """Ask about a text. A category that counts in one of its places counts."""
        self.texts[text] = self.texts.get(text, excepted) & excepted
        self.kept.append((memory, policy, text))


def _asked(
    judge: Judge,
    messages: Sequence[chat.Message],
    others: Collection[str],
    passed: PassedTexts,
    excepted: Mapping[Said, frozenset[str]],
) -> _Asked:
    """Return what the judges are asked.

    System texts, earlier messages and the other texts are judged unless they have passed already; the messages since
    the last answer are judged always. The texts of an app are remembered for all whom its client asserts, and those of
    a conversation for its user.
    """
    policy, of_output = (
        policy_of(judge.moderation, judge.moderation.input),
        policy_of(judge.moderation, judge.moderation.output),
    )
    own = of_app = passed.of(asker := judge.context.asker)
    if judge.user is None or not has_issuer(judge.user):
        of_app = passed.of(client_scope(asker))
    asked = _Asked()
    for text in others:
        if text.strip() and not of_app.has(policy, text):
            asked.add(text, of_app, policy)
    since = max((place for place, one in enumerate(messages) if isinstance(one, chat.AssistantMessage)), default=-1)
    for place, message in enumerate(messages):
        is_new = place > since and not isinstance(message, chat.SystemMessage)
        memory = of_app if isinstance(message, chat.SystemMessage) else own
        # An answer has passed the judges of answers. The same text of another role has not passed those of requests.
        policies = (policy, of_output) if isinstance(message, chat.AssistantMessage) else (policy,)
        media = [*_media_of(message)]
        for text in filter(str.strip, (*_texts_of(message), *_words_of(media))):
            names = excepted.get((type(message), text), frozenset())
            # A text that passed with an exception has not passed without it.
            kept_as = f"{policy};{','.join(sorted(names))}" if names else policy
            if is_new or not any(memory.has(one, text) for one in (kept_as, *policies)):
                asked.add(text, memory, kept_as, names)
        for part in media:
            if not isinstance(part, chat.ImagePart):
                asked.is_unclear = True
            elif is_new or not own.has(policy, _IMAGE + part.url):
                asked.pictures[part.url] = (part,)
    return asked


async def judge_input(
    judge: Judge,
    messages: tuple[chat.Message, ...],
    others: Collection[str],
    passed: PassedTexts,
    excepted: Mapping[Said, frozenset[str]],
) -> None:
    """Judge what a client sends, before any provider gets it: messages without the words of labels, and `other_texts`.

    The categories that are `excepted` in a text of a role do not count, because help is or was given for it. `passed`
    is the memory of all askers. Raises Flagged, NoVerdict if the policy requires one, UnsupportedFeature for media that
    no deployment can judge, and CallRefused by a budget.
    """
    moderation, result = judge.moderation, judge.result
    for part in judge.region.parts.every:
        messages = part.without_own_texts(messages)
    asked = _asked(judge, messages, others, passed, excepted)
    seeing = [it for it in moderation.input if _sees(it)]
    if (asked.is_unclear or (asked.pictures and not seeing)) and moderation.media == "refuse":
        raise UnsupportedFeature(
            "vision", "the moderation of this region cannot judge images or other media", "messages"
        )
    pieces = [(piece, names) for text, names in asked.texts.items() for piece in pieces_of(text)]
    counting_all = {piece for piece, names in pieces if not names}
    of_pieces: dict[ModerationInput, frozenset[str]] = {
        piece: names for piece, names in pieces if piece not in counting_all
    }
    try:
        await _expect_passed(judge, moderation.input, [piece for piece, _ in pieces], of_pieces)
        if seeing:
            await _expect_passed(judge, seeing, [*asked.pictures.values()], {})
    except NoVerdict as missing:
        if moderation.on_failure == "closed":
            result.input = "failed"
            raise
        result.input = "skipped"
        result.note_missing(missing)
        return
    except Flagged as error:
        result.input, result.categories = "flagged", error.categories
        raise
    result.input = "passed"
    for memory, policy, text in asked.kept:
        memory.add_text(policy, text)
    for url in asked.pictures if seeing else ():
        passed.of(judge.context.asker).add_text(policy_of(moderation, moderation.input), _IMAGE + url)


async def _expect_passed(
    judge: Judge,
    judges: Sequence[Deployment],
    inputs: Sequence[ModerationInput],
    excepted: Mapping[ModerationInput, frozenset[str]],
) -> None:
    if inputs and (verdict := await judge.verdict(judges, inputs, excepted=excepted)).flagged is not None:
        raise Flagged(verdict.flagged)


def _sees(deployment: Deployment) -> bool:
    judging = moderations_of(deployment)
    return judging is not None and "vision" in judging.capabilities.features


def refused_media(moderation: Moderation | None) -> frozenset[str]:
    """Return the features of requests with media that a moderation refuses, because it has no judge of them."""
    if moderation is None or not moderation.input or moderation.media == "pass":
        return frozenset()
    return MEDIA - {"vision", "image_url"} if any(map(_sees, moderation.input)) else MEDIA


def other_texts(judge: Judge, request: chat.ChatRequest) -> Iterator[str]:
    """Yield the texts of a chat that a model gets with its messages, of all fields that a deployment may get.

    Tools and schemas are whole, because a model also reads the names of their properties. They are many, so they are
    judged only where nothing may pass without a verdict.
    """
    if type(request.messages) is not chat.Texts:
        yield from dict.fromkeys(
            message.name for message in request.messages if not isinstance(message, chat.ToolMessage) and message.name
        )
    if request.stop:
        yield "\n".join(request.stop)
    if (prediction := request.extra.get("prediction")) is not None:
        content = as_map(prediction).get("content")
        is_plain = isinstance(content, str) and prediction == {"type": "content", "content": content}
        yield str(content) if is_plain else dumps_text(prediction)
    is_closed = judge.moderation.on_failure == "closed"
    deployments = judge.config.deployments.values()
    yield from texts_of_fields({
        name: request.extra[name]
        for name in request.extra.keys() - (_UNREAD if is_closed else _UNREAD | _GRAMMARS)
        if name in _OF_SERVERS
        or any(name in it.capabilities.parameters or name in it.target.passthrough for it in deployments)
    })  # fmt: skip
    if is_closed:
        for tool in request.tools:
            schemas = (dumps_text(schema) for schema in (tool.parameters, tool.own) if schema)
            yield "\n".join([tool.name, tool.description or "", *schemas])
        if isinstance(form := request.response_format, chat.JsonSchemaFormat):
            yield "\n".join([form.name, form.description or "", dumps_text(form.schema)])


def texts_of_fields(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of each field with the names of its members, as one text."""
    for _, value in sorted(fields.items()):
        parts = (part for pair in value.items() for part in pair) if isinstance(value, dict) else (value,)
        yield "\n".join(
            it if isinstance(it, str) else dumps_text(it) for it in parts if isinstance(it, str | list | dict)
        )


def _texts_of(message: chat.Message) -> Iterator[str]:
    yield chat.text_of(message.content)
    if isinstance(message, chat.AssistantMessage):
        yield message.refusal or ""
        yield message.reasoning or ""
        yield from (f"{call.name}{call.arguments}" for call in message.tool_calls)


def _media_of(message: chat.Message) -> Iterator[chat.Part]:
    if isinstance(message, chat.UserMessage | chat.ToolMessage) and not isinstance(message.content, str):
        yield from (part for part in message.content if not isinstance(part, chat.TextPart))


def _words_of(media: Iterable[chat.Part]) -> Iterator[str]:
    """Yield the texts of text files, with their names, and the names of others."""
    for part in media:
        if isinstance(part, chat.FilePart):
            yield part.as_text() or part.filename or ""


async def moderated(judge: Judge, answer: Answer, request: chat.ChatRequest, memory: PassedTexts) -> Answer:
    """Return the answer, of which only what passes is shown. Raises NoVerdict for a whole answer without one.

    `memory` is that of all askers.
    """
    passed = memory.of(judge.context.asker)
    users = [chat.text_of(one.content) for one in request.messages if isinstance(one, chat.UserMessage)]
    asked, is_whole = users[-1] if users else "", request.response_format is not None
    prompt = excerpt(asked, max(0, len(asked) - MOST_CHARACTERS), len(asked))
    if answer.stream is not None:
        stream = ModeratedStream(answer.stream, judge, prompt, passed, is_whole=is_whole)
        return replace(answer, stream=stream)
    if answer.completion is None:
        return answer
    # The client waits for the whole, so it is judged as a whole. If that is flagged, its good beginning is looked for.
    whole = ModeratedStream(WholeAnswer(answer.completion), judge, prompt, passed, is_whole=True)
    await _completion_of(whole)
    if not whole.flagged:
        return answer
    stream = ModeratedStream(
        WholeAnswer(answer.completion), judge, prompt, passed, is_whole=is_whole, known=whole.flagged
    )
    return replace(answer, completion=await _completion_of(stream))


async def _completion_of(stream: ModeratedStream) -> chat.ChatCompletion:
    folding = Folding()
    async for events in stream:
        folding.add(events)
    return folding.whole()


def judge_of(
    executor: PlanExecutor,
    current: Callable[[], ConfigVersion],
    exchange: Exchange,
    context: RunContext,
    region: Region,
) -> Judge | None:
    """Return the judges of a request, or None if its region has no moderation."""
    policy, caller = exchange.config.moderation.get(region.name), exchange.caller
    if policy is None:
        return None
    assistant = exchange.assistant.for_use("moderations")
    verdicts = exchange.judged.verdicts if exchange.judged is not None else None
    who = caller.client, exchange.user
    judge = Judge(executor, exchange.config, current, context, assistant, region, *who, verdicts, moderation=policy)
    exchange.record.moderation = judge.result
    return judge
