"""OpenAI's legacy text completions (`POST /v1/completions`): a chat with one user message.

LlamaIndex' OpenAILike and the `completion` function of the Vercel AI SDK still use them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import assert_never

import orjson

from gateway.api.body import parse_json
from gateway.api.dialects.dialect import NO_PLACE_FOR_IMAGES, StreamEncoder
from gateway.api.dialects.labelling import MEMBER, label_answer
from gateway.api.dialects.openai_chat import DONE, OpenAIChat
from gateway.api.errors import ApiError, encode_error
from gateway.execution.exchange import AnswerStyle
from gateway.execution.run import PlanExhausted
from gateway.model.record import Record
from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.openai_json.decode_request import decode_any_request
from providers.openai_json.encode_answer import OUTWARD_FINISH, encode_usage
from providers.openai_json.fields import boolean, integer, mapping, present
from providers.value import replace

_MESSAGE = re.compile(r"messages(?:\[\d+\][\w.\[\]]*)?")
_USE_CHAT = "use POST /v1/chat/completions"
_ONE_PROMPT = "the gateway answers one prompt for each request: send several requests"
_OF_CHAT = ("messages", "tools", "tool_choice", "functions", "function_call")
_READ_HERE = frozenset({"prompt", "echo", "suffix", "best_of", "logprobs"})


class Completions(OpenAIChat):
    """One request for a text completion."""

    route = "/v1/completions"

    def decode(self, body: bytes) -> chat.ChatRequest:
        return decode_completion(parse_json(body))

    def encode_answer(self, completion: chat.ChatCompletion, style: AnswerStyle, record: Record) -> bytes:
        if any(choice.message.images for choice in completion.choices):
            raise PlanExhausted(NO_PLACE_FOR_IMAGES)
        labelled, member = label_answer(completion, style, record)
        body: dict[str, object] = {
            **_head(record, style.shown_model or completion.model, completion.created),
            "choices": [
                _choice(choice.index, chat.said_in(choice.message), OUTWARD_FINISH[choice.finish_reason])
                for choice in labelled.choices
            ],
        }
        if completion.usage is not None:
            body["usage"] = encode_usage(completion.usage)
        if member:
            body[MEMBER] = member
        return orjson.dumps(body)

    def encoder(self, style: AnswerStyle, record: Record) -> CompletionStreamEncoder:
        return CompletionStreamEncoder(style, record)

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        """See Dialect. Inner layers see the prompt as the message of a chat."""
        if error.param is not None and _MESSAGE.fullmatch(error.param):
            message = _MESSAGE.sub("prompt", error.message)
            error = replace(error, param="prompt", message=message)
        return orjson.dumps(encode_error(error))


def decode_completion(body: object) -> chat.ChatRequest:
    """Return the request in a parsed body as a chat. Raises InvalidRequest or UnsupportedFeature."""
    source = mapping(body, "")
    for name in _OF_CHAT:
        if source.get(name) is not None:
            raise InvalidRequest(f"`{name}` is a field of chat completions: {_USE_CHAT}", name)
    prompt = _prompt(source)
    _refuse(source)
    kept = {name: value for name, value in source.items() if name not in _READ_HERE}
    return decode_any_request({**kept, "messages": [{"role": "user", "content": prompt}]})


def _prompt(source: Mapping[str, object]) -> str:
    prompt = present(source, "prompt", "prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt:
        if all(isinstance(entry, str) for entry in prompt):
            raise InvalidRequest(f"`prompt` has {len(prompt)} prompts; {_ONE_PROMPT}", "prompt")
        raise InvalidRequest("`prompt` must be text: token ids belong to one model only; send the text", "prompt")
    raise InvalidRequest("`prompt` must be a string, or an array of one string", "prompt")


def _refuse(source: Mapping[str, object]) -> None:
    """Refuse fields without a form in a chat, unless they ask for nothing."""
    if boolean(source, "echo", "echo"):
        raise UnsupportedFeature("echo", "`echo: true` is not supported: put the prompt before the answer", "echo")
    if source.get("suffix"):
        message = "`suffix` is not supported: a chat continues a text only at its end; leave it out"
        raise UnsupportedFeature("suffix", message, "suffix")
    if (best_of := integer(source, "best_of", "best_of", 0, 128)) is not None and best_of > 1:
        raise UnsupportedFeature("best_of", f"`best_of` above 1 is not supported: {_ONE_PROMPT}", "best_of")
    if source.get("logprobs") is not None:
        message = f"`logprobs` is not supported here: {_USE_CHAT} with `logprobs: true`"
        raise UnsupportedFeature("logprobs", message, "logprobs")


def _head(record: Record, model: str, created: int) -> dict[str, object]:
    return {
        "id": f"cmpl-{record.request_id}",
        "object": "text_completion",
        "created": created or int(time.time()),
        "model": model,
    }


def _choice(index: int, text: str, finish: str | None = None) -> dict[str, object]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


class CompletionStreamEncoder(StreamEncoder):
    """Encodes the stream of one client."""

    def __init__(self, style: AnswerStyle, record: Record) -> None:
        super().__init__(style, record)
        self._include_usage = style.include_usage
        # The first chunk has what belongs to help.
        self._is_help_due = record.help is not None
        self._choices = max(style.choices, 1)
        self._ended = 0
        self._head = b""
        # The bytes around a text of choice 0.
        self._text_head = self._text_tail = b""

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        return b"".join([self._encode(event) for event in self._labels.add(events) if self.failed is None])

    def around_text(self) -> tuple[bytes, bytes] | None:
        if not self._head or self._labels.reads_texts:
            return None
        return self._text_head, self._text_tail

    def _encode(self, event: chat.StreamEvent) -> bytes:
        match event:
            case chat.Opened():
                self._open(event)
            case chat.TextRun(pieces):
                return b"".join([self._text_head + piece + self._text_tail for piece in pieces])
            case chat.TextDelta() | chat.RefusalDelta():
                return self._chunk(_choice(event.choice, event.text))
            case chat.ChoiceFinish():
                self._ended += 1
                return self._chunk(_choice(event.choice, "", OUTWARD_FINISH[event.reason]))
            case chat.UsageReport():
                self.usage = event.usage
                return self._usage(event.usage) if self._include_usage else b""
            case chat.Finished():
                self.finished = True
                # A finish in an earlier batch was written before the cost was known.
                cost = self._labels.cost()
                return b'%b],"%b":%b}\n\n' % (self._head, MEMBER.encode(), orjson.dumps(cost)) + DONE if cost else DONE
            case chat.ImageDelta():
                return self._encode(chat.Failed(NO_PLACE_FOR_IMAGES))
            case chat.Failed():
                return self._broken(event)
            # This API has no place for reasoning, and no request has tools.
            case (
                chat.ReasoningDelta()
                | chat.ToolCallDelta()
                | chat.AnnotationsDelta()
                | chat.Heartbeat()
                | chat.AudioDelta()
                | chat.SegmentDelta()
            ):
                pass
            case _:
                assert_never(event)
        return b""

    def _open(self, event: chat.Opened) -> None:
        head = orjson.dumps(_head(self._record, self._model or event.model, event.created))
        end = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        self._head = b'data: %b,"choices":[' % head[:-1]
        self._text_head = self._head + b'{"index":0,"logprobs":null,"finish_reason":null,"text":"'
        self._text_tail = b'"}]' + end

    def _chunk(self, choice: Mapping[str, object]) -> bytes:
        """Return a chunk with one choice. The last finish has `x_gateway`, with help the first chunk too."""
        tail: dict[str, object] = {"usage": None} if self._include_usage else {}
        if self._is_help_due and (member := self._labels.first_member()) is not None:
            self._is_help_due, tail[MEMBER] = False, member
        if self._ended == self._choices and (member := self._labels.member(with_cost=not self._include_usage)):
            tail[MEMBER] = member
        rest = b"," + orjson.dumps(tail)[1:] if tail else b"}"
        return b"%b%b]%b\n\n" % (self._head, orjson.dumps(choice), rest)

    def _usage(self, usage: chat.Usage) -> bytes:
        tail: dict[str, object] = {"usage": encode_usage(usage)}
        if cost := self._labels.cost():
            tail[MEMBER] = cost
        return b"%b],%b\n\n" % (self._head, orjson.dumps(tail)[1:])
