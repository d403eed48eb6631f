"""What servers of OpenAI's dialect say where they have no code for it, or that of something else: a name or a key is
wrong, a prompt (or a prompt and its answer) is longer than the model takes, the safety system stepped in.

source: bodies captured by several projects, and the servers' own code where it is public; as_of 2026-11-20. vLLM ends
some of them with "None", and newer ones with the field that it holds to be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.failures import FailureKind
from providers.json_values import read_map
from providers.phrases import Phrases

__all__ = ["TOO_LONG", "by_sentence", "code_of_block"]

# A 400 without a code for what the operator chose: a name, a key.
_OF_OPERATORS = Phrases(
    dict.fromkeys(
        (
            "invalid model ID",  # OpenAI, where the name is none that it could have
            "model not found",  # llama.cpp as a router
            "model '{model}' not found",
            "{model} is not a valid model ID",  # OpenRouter
            # LiteLLM's proxy; some versions write the exception, some its detail.
            "/chat/completions: Invalid model name passed in model={model}. Call `/v1/models` to view available models "
            "for your key.",
            "{'error': '/chat/completions: Invalid model name passed in model={model}. Call `/v1/models` to view "
            "available models for your key.'}",
        ),
        FailureKind.MODEL_NOT_FOUND,
    )
    | dict.fromkeys(  # xAI
        (
            "Incorrect API key provided. You can obtain an API key from https://console.x.ai.",
            "Incorrect API key provided: {key}. You can obtain an API key from https://console.x.ai.",
        ),
        FailureKind.CREDENTIALS,
    )
)
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
# xAI's word for a block is a 403, which is that of a key elsewhere. source: bodies captured by several projects.
_BLOCKED = Phrases(
    {
        f"Content violates usage guidelines. {whose}Failed check: {{check}}": FailureKind.CONTENT_FILTER
        for whose in (
            "",
            "Team: {team}, API key ID: {key}, ",
            "Team: {team}, API key ID: {key}, Model: {model}, ",
        )
    },
    instead_of=FailureKind.CREDENTIALS,
)


def by_sentence(kind: FailureKind, text: str) -> FailureKind:
    """The kind of an error that its code and status call `kind`, by what it says as a whole."""
    for phrases in (_OF_OPERATORS, TOO_LONG, _BLOCKED):
        kind = phrases.kind_of(kind, text)
    return kind


def code_of_block(error: Mapping[str, object]) -> str | None:
    """What is told of a block beside the code, as the code that is missing.

    By OpenAI, or by OpenRouter (`metadata` of a moderation error), whose 403 would be that of a key.
    """
    if error.get("misalignment"):
        return "misalignment_policy_violation"
    return "content_policy_violation" if "flagged_input" in read_map(error, "metadata") else None
