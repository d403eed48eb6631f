"""Sentences of servers that many hosts run: a 400 without a code for a prompt, or a prompt and its answer, that is
longer than the model takes.

source: bodies captured by several projects, and the servers' own code where it is public; as_of 2026-11-20. vLLM ends
some of them with "None", and newer ones with the field that it holds to be wrong.
"""

from __future__ import annotations

from providers.failures import FailureKind
from providers.phrases import Phrases

__all__ = ["TOO_LONG"]

_LIMIT = "This model's maximum context length is {most} tokens. However, "
_EITHER = "Please reduce the length of the input prompt or the number of requested output tokens."
# vLLM, and DeepSeek, which has the first of these.
_OF_VLLM = (
    f"{_LIMIT}you requested {{all}} tokens ({{prompt}} in the messages, {{answer}} in the completion). "
    "Please reduce the length of the messages or completion.",
    f"{_LIMIT}you requested {{prompt}} tokens in the messages, Please reduce the length of the messages.",
    f"{_LIMIT}your request has {{prompt}} input tokens. Please reduce the length of the input messages.",
    f"{_LIMIT}you requested {{answer}} output tokens and your prompt contains at least {{prompt}} input tokens, "
    f"for a total of at least {{all}} tokens. {_EITHER}",
    f"{_LIMIT}you requested {{answer}} output tokens and your prompt contains {{prompt}} input tokens, "
    f"for a total of {{all}} tokens ({{prompt}} + {{answer}} = {{all}} > {{most}}). {_EITHER}",
    "'max_tokens' or 'max_completion_tokens' is too large: {answer}. This model's maximum context length is {most} "
    "tokens and your request has {prompt} input tokens ({answer} > {most} - {prompt}).",
    "You passed {prompt} input tokens and requested {answer} output tokens. However, the model's context length is "
    "only {most} tokens, resulting in a maximum input length of {room} tokens. "
    "Please reduce the length of the input prompt.",
)
_ENDS = ("", " None", " (parameter={parameter}, value={value})")
_OTHERS = (
    # SGLang; the first is Together's, too.
    "The input ({prompt} tokens) is longer than the model's context length ({most} tokens).",
    "Requested token count exceeds the model's maximum context length of {most} tokens. You requested a total of "
    "{all} tokens: {prompt} tokens from the input messages and {answer} tokens for the completion. Please reduce the "
    "number of tokens in the input messages or the completion to fit within the limit.",
    # xAI
    "This model's maximum prompt length is {most} but the request contains {prompt} tokens.",
    # OpenRouter
    *(
        "This endpoint's maximum context length is {most} tokens. However, you requested about {all} tokens ({prompt} "
        f"of text input, {tools}{{answer}} in the output). Please reduce the length of either one, or use the {how} "
        "to compress your prompt automatically."
        for tools in ("", "{tools} of tool input, ")
        for how in ('"middle-out" transform', "context-compression plugin")
    ),
)
TOO_LONG = Phrases(
    dict.fromkeys(
        (*(f"{said}{end}" for said in _OF_VLLM for end in _ENDS), *_OTHERS),
        FailureKind.CONTEXT_LENGTH,
    )
)
